"""Ridge regression on lags, in closed form, with lags, levels and penalty chosen on the validation part.

It sees no more than a network sees at the same step, and no more than a network's linear path can hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm.foundation.progress import Advance, work
from edge_lstm.streaming.features import cosine_columns
from edge_lstm_train.data.dataset import Dataset, first_with_same_truth
from edge_lstm_train.data.split import PARTS

_PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)  # of standardized lags, per training row
_SHORT_LAGS = (4, 12)
_MOST_COLUMNS = 1500  # a larger Gram matrix takes longer than training the model
MOST_WEIGHTS = 20_000  # of all lags, inputs and outputs: the default limit of a network
_BLOCK = 16_384  # rows at a time
_MOST_IN_FLOAT64 = 2_000_000  # steps


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
    choices = [RidgeChoice(1, True, np.inf)] * outputs
    coefficients: list[Doubles] = [np.zeros(0)] * outputs
    counts, left_out = _lag_counts(dataset, most_weights)
    forms = [
        (lags, level_free) for lags in counts for level_free in ((True, False) if is_forecast(dataset) else (False,))
    ]
    fitted = np.count_nonzero(dataset.part_of == PARTS.index("train"))
    with work("fitting the baselines", len(forms) * fitted, "rows") as advance:
        for lags, level_free in forms:
            paths = _path(dataset, lags, level_free, advance)
            errors = _validation_errors(dataset, lags, level_free, paths)
            for penalty, weights, error in zip(_PENALTIES, paths, errors, strict=True):
                for output in np.flatnonzero(error < best):
                    best[output], coefficients[output] = error[output], weights[:, output]
                    choices[output] = RidgeChoice(lags, level_free, penalty)
    refitted = _refitted(dataset, choices, coefficients) if refit else coefficients
    return Ridge(_predictions(dataset, choices, refitted), choices, coefficients, refitted, left_out)


def _refitted(dataset: Dataset, choices: list[RidgeChoice], coefficients: list[Doubles]) -> list[Doubles]:
    both = dataset.with_validation_in_training()
    refitted = list(coefficients)
    for lags, level_free in {(choice.lags, choice.level_free) for choice in choices}:
        paths = _path(both, lags, level_free)
        for output, choice in enumerate(choices):
            if (choice.lags, choice.level_free) == (lags, level_free) and choice.penalty in _PENALTIES:
                refitted[output] = paths[_PENALTIES.index(choice.penalty)][:, output]
    return refitted


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


def _path(dataset: Dataset, lags: int, level_free: bool, advance: Advance = lambda rows: None) -> list[Doubles]:
    """The coefficients (columns + 1, outputs) for each penalty, fitted on the training part."""
    train = dataset.steps("train")
    # lags from before a run are filled in, and a fit on them makes a weaker baseline
    whole = train[train - dataset.run_start[train] >= lags - 1]
    train = whole if 2 * len(whole) >= len(train) else train
    alike = first_with_same_truth(dataset.contract)
    distinct = sorted(set(alike))
    size = design_matrix(dataset, train[:1], lags, level_free).shape[1]
    grams = np.zeros((len(distinct), size, size))
    moments, counts = np.zeros((len(distinct), size)), np.zeros(len(distinct))
    for block in blocks_of(train):
        x = design_matrix(dataset, block, lags, level_free)  # (rows, columns + 1)
        change = dataset.targets[block] - dataset.naive_predictions_at(block)
        advance(len(block))
        whole_gram = None
        for place, output in enumerate(distinct):
            known = np.isfinite(change[:, output])
            if known.all():  # nearly always, and the same for all outputs
                whole_gram = x.T @ x if whole_gram is None else whole_gram
                grams[place] += whole_gram
                moments[place] += x.T @ change[:, output]
            else:
                grams[place] += x[known].T @ x[known]
                moments[place] += x[known].T @ change[known, output]
            counts[place] += np.count_nonzero(known)
    shrink = np.eye(size)
    shrink[-1, -1] = 0.0  # no penalty on the intercept
    places = [distinct.index(output) for output in alike]
    found = []
    for penalty in _PENALTIES:
        solutions = [
            np.linalg.solve(gram / count + penalty * shrink, moment / count)
            for gram, moment, count in zip(grams, moments, counts, strict=True)
        ]
        found.append(np.stack(solutions, axis=1)[:, places])
    return found


def _validation_errors(dataset: Dataset, lags: int, level_free: bool, paths: Sequence[Doubles]) -> Doubles:
    """(penalties, outputs): the mean squared error of each solution on the validation part; NaN where none is known."""
    squares = np.zeros((len(paths), dataset.targets.shape[1]))
    counts = np.zeros(dataset.targets.shape[1])
    for rows in blocks_of(dataset.steps("validation")):
        x = design_matrix(dataset, rows, lags, level_free)
        change = dataset.targets[rows] - dataset.naive_predictions_at(rows)
        counts += np.isfinite(change).sum(axis=0)
        for penalty, weights in enumerate(paths):
            squares[penalty] += np.nansum((x @ weights - change) ** 2, axis=0)
    with np.errstate(invalid="ignore"):
        return np.asarray(squares / counts)


def _predictions(dataset: Dataset, choices: Sequence[RidgeChoice], coefficients: Sequence[Doubles]) -> Doubles:
    """(steps, network outputs): what the regressions predict."""
    predictions = np.empty(dataset.targets.shape, kept_type(dataset))
    with work("predicting by the baselines", len(dataset), "rows") as advance:
        for rows in blocks_of(np.arange(len(dataset))):
            predictions[rows] = ridge_at(dataset, rows, choices, coefficients)
            advance(len(rows))
    return predictions


def ridge_at(
    dataset: Dataset, rows: Integers, choices: Sequence[RidgeChoice], coefficients: Sequence[Doubles]
) -> Doubles:
    """(rows, network outputs): what regressions with these coefficients predict at the steps `rows`."""
    found = dataset.naive_predictions_at(rows)
    designs: dict[tuple[int, bool], Doubles] = {}
    for output, (choice, weights) in enumerate(zip(choices, coefficients, strict=True)):
        if weights.size:
            form = choice.lags, choice.level_free
            if form not in designs:
                designs[form] = design_matrix(dataset, rows, *form)
            found[:, output] += designs[form] @ weights
    return found


def trained_ridge_at(dataset: Dataset, rows: Integers, ridge: Ridge) -> Doubles:
    """(rows, network outputs): what the regressions of the training part alone predict, in blocks.

    After a refit, `ridge.predictions` know the validation part, so these judge it.
    """
    blocks = [ridge_at(dataset, block, ridge.choices, ridge.coefficients) for block in blocks_of(rows)]
    return np.concatenate([np.empty((0, dataset.targets.shape[1])), *blocks])


def kept_type(dataset: Dataset) -> type[np.floating[Any]]:
    """The type of predictions that are kept for every step: float32 of a large dataset, as its features are."""
    return np.float32 if len(dataset) > _MOST_IN_FLOAT64 else np.float64


def blocks_of(rows: Integers) -> list[Integers]:
    """The rows in blocks, so that memory does not grow with the recording."""
    return [rows[first : first + _BLOCK] for first in range(0, len(rows), _BLOCK)]


def design_matrix(dataset: Dataset, rows: Integers, lags: int, level_free: bool) -> Doubles:
    """(rows, columns + 1): lags of the standardized features, masks and clock, and a one for the intercept.

    Lag by lag from the newest, or level-free from the second; then the other inputs. A lag from before the last restart
    of the stream takes the first value after the restart.
    """
    rows = dataset.newest_known_at(rows)
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
