"""Ridge regression on lags, in closed form, with lags, levels and penalty chosen on the validation part.

It sees no more than a network sees at the same step, and no more than a network's linear path can hold.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm.streaming.features import cosine_columns
from edge_lstm_train.data.dataset import Dataset, first_with_same_truth

_PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)  # of standardized lags, per training row
_SHORT_LAGS = (4, 12)
_MOST_COLUMNS = 1500  # a larger Gram matrix takes longer than training the model
MOST_WEIGHTS = 20_000  # of all lags, inputs and outputs: the default limit of a network
_BLOCK = 16_384  # rows at a time, so that memory does not grow with the recording


@dataclass(frozen=True)
class RidgeChoice:
    """The ridge settings that the validation part chose for one output."""

    lags: int
    level_free: bool  # lags relative to the newest value: robust against a drifting level
    penalty: float

    def __str__(self) -> str:
        return f"{self.lags} lags{', level-free' if self.level_free else ''}, penalty {self.penalty:g}"


@dataclass(frozen=True, eq=False)
class Ridge:
    """A linear autoregression of each output: what it predicts, its settings and its coefficients."""

    predictions: Doubles  # (steps, network outputs); after a refit, fitted on training and validation part
    choices: list[RidgeChoice]  # one per output of the network
    coefficients: list[Doubles]  # of the training part alone; per output, in the order of `design_matrix`
    refitted: list[Doubles]  # of training and validation part, or the same again
    left_out: list[int]  # numbers of lags that the season suggests and whose weights would be too many


def fit_ridge(dataset: Dataset, refit: bool = False, most_weights: int = MOST_WEIGHTS) -> Ridge:
    """Ridge regression (Hoerl & Kennard 1970) of each output's change from its naive prediction.

    Inputs are the standardized lags of all measured features, and all other inputs at the newest step. The validation
    part chooses lags, levels and penalty for each output. Lags that would need more than `most_weights` in a linear
    path are left out. With `refit`, the chosen regressions are fitted again on training and validation part together.
    """
    outputs = len(dataset.contract.network_outputs)
    best = np.full(outputs, np.inf)
    predictions = dataset.naive_predictions.copy()
    choices = [RidgeChoice(1, True, np.inf)] * outputs
    coefficients: list[Doubles] = [np.zeros(0)] * outputs
    validation = dataset.steps("validation")
    counts, left_out = _lag_counts(dataset, most_weights)
    for lags in counts:
        for level_free in (True, False) if is_forecast(dataset) else (False,):
            paths = _path(dataset, lags, level_free)
            candidates = _predictions(dataset, lags, level_free, paths)
            for penalty, weights, candidate in zip(_PENALTIES, paths, candidates, strict=True):
                error = np.nanmean((candidate[validation] - dataset.targets[validation]) ** 2, axis=0)
                for output in np.flatnonzero(error < best):
                    best[output] = error[output]
                    predictions[:, output] = candidate[:, output]
                    choices[output] = RidgeChoice(lags, level_free, penalty)
                    coefficients[output] = weights[:, output]
    found = Ridge(predictions, choices, coefficients, coefficients, left_out)
    return _refitted(found, dataset) if refit else found


def _refitted(found: Ridge, dataset: Dataset) -> Ridge:
    both = dataset.with_validation_in_training()
    predictions, refitted = found.predictions.copy(), list(found.coefficients)
    for lags, level_free in {(choice.lags, choice.level_free) for choice in found.choices}:
        paths = _path(both, lags, level_free)
        candidates = _predictions(both, lags, level_free, paths)
        for output, choice in enumerate(found.choices):
            if (choice.lags, choice.level_free) == (lags, level_free) and choice.penalty in _PENALTIES:
                at = _PENALTIES.index(choice.penalty)
                predictions[:, output], refitted[output] = candidates[at][:, output], paths[at][:, output]
    return dataclasses.replace(found, predictions=predictions, refitted=refitted)


def is_forecast(dataset: Dataset) -> bool:
    """Whether the targets are features: only then can level-free lags predict them."""
    return dataset.contract.task in ("forecast", "anomaly")


def _lag_counts(dataset: Dataset, most_weights: int) -> tuple[list[int], list[int]]:
    """The numbers of lags to try, and those that a linear path of so many weights cannot hold."""
    contract = dataset.contract
    longest = (dataset.season or 0) + 1
    fits = longest * len(contract.features) <= _MOST_COLUMNS
    shortest = () if is_forecast(dataset) else (1,)
    wanted = sorted({*shortest, *_SHORT_LAGS, *([longest] if dataset.season and fits else [])})
    at_once = len(contract.inputs) * len(contract.network_outputs)
    counts = [lags for lags in wanted if lags * at_once <= most_weights] or wanted[:1]
    return counts, [lags for lags in wanted if lags not in counts]


def _path(dataset: Dataset, lags: int, level_free: bool) -> list[Doubles]:
    """The coefficients (columns + 1, outputs) for each penalty, fitted on the training part."""
    naive, train = dataset.naive_predictions, dataset.steps("train")
    # lags from before a run are filled in, and a fit on them makes a weaker baseline
    whole = train[train - dataset.run_start[train] >= lags - 1]
    train = whole if 2 * len(whole) >= len(train) else train
    blocks = [train[first : first + _BLOCK] for first in range(0, len(train), _BLOCK)]
    alike = first_with_same_truth(dataset.contract)
    distinct = sorted(set(alike))
    solutions: list[list[Doubles]] = [[] for _ in _PENALTIES]  # by penalty, by distinct output: (columns + 1,)
    for output in distinct:
        size = design_matrix(dataset, train[:1], lags, level_free).shape[1]
        gram, moment, count = np.zeros((size, size)), np.zeros(size), 0
        for block in blocks:
            known = block[np.isfinite(dataset.targets[block, output])]
            x = design_matrix(dataset, known, lags, level_free)  # (rows, columns + 1)
            change = dataset.targets[known, output] - naive[known, output]
            gram += x.T @ x
            moment += x.T @ change
            count += len(known)
        shrink = np.eye(size)
        shrink[-1, -1] = 0.0  # no penalty on the intercept
        for penalty, column in zip(_PENALTIES, solutions, strict=True):
            column.append(np.linalg.solve(gram / count + penalty * shrink, moment / count))
    places = [distinct.index(output) for output in alike]
    return [np.stack(column, axis=1)[:, places] for column in solutions]


def _predictions(dataset: Dataset, lags: int, level_free: bool, paths: list[Doubles]) -> list[Doubles]:
    """(steps, outputs) for each of the coefficients."""
    predictions = [dataset.naive_predictions.copy() for _ in paths]
    for first in range(0, len(dataset), _BLOCK):
        rows = np.arange(first, min(first + _BLOCK, len(dataset)))
        x = design_matrix(dataset, rows, lags, level_free)
        for prediction, weights in zip(predictions, paths, strict=True):
            prediction[rows] += x @ weights
    return predictions


def design_matrix(dataset: Dataset, rows: Integers, lags: int, level_free: bool) -> Doubles:
    """(rows, columns + 1): lags of the standardized features, masks and clock, and a one for the intercept.

    Lag by lag from the newest, or level-free from the second; then the other inputs. A lag from before the last restart
    of the stream takes the first value after the restart.
    """
    rows = dataset.newest_known[rows]
    columns, mean, scale = measured_inputs(dataset.contract)
    at = np.maximum(rows[:, None] - np.arange(lags), dataset.run_start[rows][:, None])  # (rows, lags)
    taps = (dataset.features[at[..., None], columns].astype(np.float64) - mean) / scale  # (rows, lags, measured)
    if level_free:
        taps = taps[:, 1:] - taps[:, :1]
    others = np.delete(dataset.features[rows], columns, axis=1).astype(np.float64)
    return np.concatenate([taps.reshape(len(rows), -1), others, np.ones((len(rows), 1))], axis=1)


def measured_inputs(contract: Contract) -> tuple[Integers, Doubles, Doubles]:
    """The columns of measured values in the feature vector, and their mean and scale: a circle has two columns."""
    circles = cosine_columns(contract)
    columns = np.array([*range(len(contract.features)), *circles.values()])
    mean = np.array([*(feature.mean for feature in contract.features), *[0.0] * len(circles)])
    scale = np.array([*(feature.scale for feature in contract.features), *[1.0] * len(circles)])
    mean[list(circles)], scale[list(circles)] = 0.0, 1.0
    return columns, mean, scale
