"""The baselines that a model has to beat: persistence, seasonal-naive and a ridge autoregression, in closed form.

They see no more than the model sees at the same step. They learn from the training part alone, and from the validation
part as well if the model is refitted on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.angles import PublishedOutputs
from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm.foundation.progress import Advance, work
from edge_lstm.streaming.features import cosine_columns
from edge_lstm_train.data.dataset import Dataset, first_with_same_truth, target_columns
from edge_lstm_train.data.split import PARTS

PERSISTENCE, SEASONAL, MEAN, RIDGE = "persistence", "seasonal-naive", "mean", "ridge"
NAIVE = (PERSISTENCE, SEASONAL, MEAN)

_PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)  # of standardized lags, per training row
_SHORT_LAGS = (4, 12)
_MOST_COLUMNS = 1500  # a larger Gram matrix takes longer than training the model
_BLOCK = 16_384  # rows at a time, so that memory does not grow with the recording
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
class Baselines:
    """The predictions of each baseline at every step of a dataset."""

    predictions: dict[str, Doubles]  # by name, (steps, outputs) in the targets' units, as they are published
    ridge: list[RidgeChoice]  # one per output of the network
    residual: Doubles  # (network outputs,): RMS of the ridge's error on the training part, in the targets' units


def fit_baselines(dataset: Dataset, refit: bool = False) -> Baselines:
    """Persistence, seasonal-naive (if the dataset has a season) and ridge for `dataset`.

    If the target is not a feature, the mean replaces persistence. On a circle, each predicts sine and cosine. With
    `refit`, once lags and penalty are chosen, ridge is fitted again on training and validation part together, as the
    model is.
    """
    naive = np.empty(dataset.targets.shape, kept_type(dataset))
    for rows in _blocks(np.arange(len(dataset))):
        naive[rows] = dataset.naive_predictions_at(rows)
    predictions = {PERSISTENCE if _is_forecast(dataset) else MEAN: naive}
    if dataset.season is not None:
        predictions[SEASONAL] = seasonal_naive(dataset, dataset.season)
    predictions[RIDGE], choices = ridge(dataset, refit)
    train = dataset.steps("train")
    squares, counts = np.zeros(dataset.targets.shape[1]), np.zeros(dataset.targets.shape[1])
    for rows in _blocks(train):
        error = predictions[RIDGE][rows] - dataset.targets[rows]
        squares, counts = squares + np.nansum(error**2, axis=0), counts + np.isfinite(error).sum(axis=0)
    residual = np.sqrt(squares / counts)
    floor = 1e-6 * np.maximum(np.nanstd(dataset.targets[train], axis=0), 1e-12)
    residual = np.maximum(residual, floor)
    published = PublishedOutputs(dataset.contract)
    for pair in published.pairs:  # of a position near 0 the cosine hardly changes, and its error counts as little
        residual[list(pair)] = np.sqrt((residual[list(pair)] ** 2).mean())
    return Baselines({name: published(found) for name, found in predictions.items()}, choices, residual)


def seasonal_naive(dataset: Dataset, season: int) -> Doubles:
    """(steps, network outputs): the value one whole season before the target; the newest one where a run is short."""
    predictions = dataset.naive_predictions.astype(kept_type(dataset))
    steps, run_start = np.arange(len(dataset)), dataset.run_start
    for output, (column, (_, horizon)) in enumerate(
        zip(target_columns(dataset.contract), dataset.contract.network_outputs, strict=True)
    ):
        back = season * -(-horizon // season) - horizon  # steps from the newest value
        known = steps - back >= run_start
        predictions[known, output] = dataset.features[steps[known] - back, column]
    return predictions


def ridge(dataset: Dataset, refit: bool = False) -> tuple[Doubles, list[RidgeChoice]]:
    """(steps, network outputs) predictions of a linear autoregression, and the settings that the validation part chose.

    Inputs are the standardized lags of all features and the clock; the target is the change from the naive prediction.
    Ridge regression: Hoerl & Kennard 1970.
    """
    outputs = len(dataset.contract.network_outputs)
    best = np.full(outputs, np.inf)
    choices = [RidgeChoice(1, True, np.inf)] * outputs
    chosen: list[Doubles | None] = [None] * outputs  # (columns + 1,): weights
    forms = [
        (lags, level_free)
        for lags in _lag_counts(dataset)
        for level_free in ((True, False) if _is_forecast(dataset) else (False,))
    ]
    fitted = np.count_nonzero(dataset.part_of == PARTS.index("train"))
    with work("fitting the baselines", len(forms) * fitted, "rows") as advance:
        for lags, level_free in forms:
            weights = _ridge_weights(dataset, lags, level_free, advance)
            errors = _validation_errors(dataset, lags, level_free, weights)
            for penalty, weight, error in zip(_PENALTIES, weights, errors, strict=True):
                for output in np.flatnonzero(error < best):
                    best[output], chosen[output] = error[output], weight[:, output]
                    choices[output] = RidgeChoice(lags, level_free, penalty)
    if refit:
        both = dataset.with_validation_in_training()
        for lags, level_free in {(choice.lags, choice.level_free) for choice in choices}:
            path = dict(zip(_PENALTIES, _ridge_weights(both, lags, level_free), strict=True))
            for output, choice in enumerate(choices):
                if (choice.lags, choice.level_free) == (lags, level_free) and choice.penalty in path:
                    chosen[output] = path[choice.penalty][:, output]
    return _linear_predictions(dataset, choices, chosen), choices


def _linear_predictions(dataset: Dataset, choices: Sequence[RidgeChoice], chosen: Sequence[Doubles | None]) -> Doubles:
    """(steps, network outputs): the naive predictions, with the change that each output's weights give."""
    predictions = np.empty(dataset.targets.shape, kept_type(dataset))
    with work("predicting by the baselines", len(dataset), "rows") as advance:
        for rows in _blocks(np.arange(len(dataset))):
            found = dataset.naive_predictions_at(rows)
            designs: dict[tuple[int, bool], Doubles] = {}
            for output, (choice, weight) in enumerate(zip(choices, chosen, strict=True)):
                if weight is not None:
                    form = choice.lags, choice.level_free
                    if form not in designs:
                        designs[form] = _design_matrix(dataset, rows, *form)
                    found[:, output] += designs[form] @ weight
            predictions[rows] = found
            advance(len(rows))
    return predictions


def _validation_errors(dataset: Dataset, lags: int, level_free: bool, weights: Sequence[Doubles]) -> Doubles:
    """(penalties, outputs): the mean squared error of each solution on the validation part; NaN where none is known."""
    squares = np.zeros((len(weights), dataset.targets.shape[1]))
    counts = np.zeros(dataset.targets.shape[1])
    for rows in _blocks(dataset.steps("validation")):
        x = _design_matrix(dataset, rows, lags, level_free)
        change = dataset.targets[rows] - dataset.naive_predictions_at(rows)
        counts += np.isfinite(change).sum(axis=0)
        for penalty, weight in enumerate(weights):
            squares[penalty] += np.nansum((x @ weight - change) ** 2, axis=0)
    with np.errstate(invalid="ignore"):
        return np.asarray(squares / counts)


def kept_type(dataset: Dataset) -> type[np.floating[Any]]:
    """The type of predictions that are kept for every step: float32 of a large dataset, as its features are."""
    return np.float32 if len(dataset) > _MOST_IN_FLOAT64 else np.float64


def _blocks(rows: Integers) -> list[Integers]:
    return [rows[first : first + _BLOCK] for first in range(0, len(rows), _BLOCK)]


def _is_forecast(dataset: Dataset) -> bool:
    """Whether the targets are features: only then can level-free lags predict them."""
    return dataset.contract.task in ("forecast", "anomaly")


def _lag_counts(dataset: Dataset) -> list[int]:
    longest = (dataset.season or 0) + 1
    fits = longest * len(dataset.contract.features) <= _MOST_COLUMNS
    shortest = () if _is_forecast(dataset) else (1,)
    return sorted({*shortest, *_SHORT_LAGS, *([longest] if dataset.season and fits else [])})


def _ridge_weights(
    dataset: Dataset, lags: int, level_free: bool, advance: Advance = lambda rows: None
) -> list[Doubles]:
    """Weights (columns + 1, outputs) for each penalty, fitted on the training part."""
    train = dataset.steps("train")
    # lags from before a run are filled in, and a fit on them makes a weaker baseline
    whole = train[train - dataset.run_start[train] >= lags - 1]
    train = whole if 2 * len(whole) >= len(train) else train
    alike = first_with_same_truth(dataset.contract)
    distinct = sorted(set(alike))
    size = _design_matrix(dataset, train[:1], lags, level_free).shape[1]
    grams = np.zeros((len(distinct), size, size))
    moments, counts = np.zeros((len(distinct), size)), np.zeros(len(distinct))
    for block in _blocks(train):
        x = _design_matrix(dataset, block, lags, level_free)  # (rows, columns + 1)
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


def _design_matrix(dataset: Dataset, rows: Integers, lags: int, level_free: bool) -> Doubles:
    """(rows, columns + 1): lags of the standardized features, masks and clock, and a one for the intercept.

    A lag from before the last restart of the stream takes the first value after the restart.
    """
    rows = dataset.newest_known_at(rows)
    columns, mean, scale = _measured(dataset.contract)
    at = np.maximum(rows[:, None] - np.arange(lags), dataset.run_start[rows][:, None])  # (rows, lags)
    taps = (dataset.features[at[..., None], columns].astype(np.float64) - mean) / scale  # (rows, lags, measured)
    if level_free:
        taps = taps[:, 1:] - taps[:, :1]
    others = np.delete(dataset.features[rows], columns, axis=1).astype(np.float64)
    return np.concatenate([taps.reshape(len(rows), -1), others, np.ones((len(rows), 1))], axis=1)


def _measured(contract: Contract) -> tuple[Integers, Doubles, Doubles]:
    """The columns of measured values in the feature vector, and their mean and scale: a circle has two columns."""
    circles = cosine_columns(contract)
    columns = np.array([*range(len(contract.features)), *circles.values()])
    mean = np.array([*(feature.mean for feature in contract.features), *[0.0] * len(circles)])
    scale = np.array([*(feature.scale for feature in contract.features), *[1.0] * len(circles)])
    mean[list(circles)], scale[list(circles)] = 0.0, 1.0
    return columns, mean, scale
