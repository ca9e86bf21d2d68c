"""The baselines that a model has to beat: persistence, seasonal-naive and a ridge autoregression, in closed form.

A device can run each of them: the linear path of a network holds them, and they are candidates for the model. They see
no more than the model sees at the same step. They learn from the training part alone, and from the validation
part as well if the model is refitted on both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_lstm.decisions.angles import PublishedOutputs
from edge_lstm.foundation.arrays import Doubles
from edge_lstm_train.data.dataset import Dataset, target_columns
from edge_lstm_train.model.linear_start import LinearFits, linear_fits
from edge_lstm_train.model.ridge import MOST_WEIGHTS, Ridge, blocks_of, fit_ridge, is_forecast, kept_type

PERSISTENCE, SEASONAL, MEAN, RIDGE = "persistence", "seasonal-naive", "mean", "ridge"
NAIVE = (PERSISTENCE, SEASONAL, MEAN)


@dataclass(frozen=True, eq=False)
class Baselines:
    """The predictions of each baseline at every step of a dataset."""

    predictions: dict[str, Doubles]  # by name, (steps, outputs) in the targets' units, as they are published
    ridge: Ridge  # with its settings and coefficients for each output of the network
    residual: Doubles  # (network outputs,): RMS of the ridge's error on the training part, in the targets' units


def fit_baselines(dataset: Dataset, refit: bool = False, most_weights: int = MOST_WEIGHTS) -> Baselines:
    """Persistence, seasonal-naive (if the dataset has a season) and ridge for `dataset`.

    If the target is not a feature, the mean replaces persistence. On a circle, each predicts sine and cosine. With
    `refit`, once lags and penalty are chosen, ridge is fitted again on training and validation part together, as the
    model is. The ridge has at most `most_weights`, of all lags, inputs and outputs.
    """
    naive = np.empty(dataset.targets.shape, kept_type(dataset))
    for rows in blocks_of(np.arange(len(dataset))):
        naive[rows] = dataset.naive_predictions_at(rows)
    predictions = {PERSISTENCE if is_forecast(dataset) else MEAN: naive}
    if dataset.season is not None:
        predictions[SEASONAL] = seasonal_naive(dataset, dataset.season)
    ridge = fit_ridge(dataset, refit, most_weights)
    predictions[RIDGE] = ridge.predictions
    train = dataset.steps("train")
    squares, counts = np.zeros(dataset.targets.shape[1]), np.zeros(dataset.targets.shape[1])
    for rows in blocks_of(train):
        error = predictions[RIDGE][rows] - dataset.targets[rows]
        squares, counts = squares + np.nansum(error**2, axis=0), counts + np.isfinite(error).sum(axis=0)
    residual = np.sqrt(squares / counts)
    floor = 1e-6 * np.maximum(np.nanstd(dataset.targets[train], axis=0), 1e-12)
    residual = np.maximum(residual, floor)
    published = PublishedOutputs(dataset.contract)
    for pair in published.pairs:  # of a position near 0 the cosine hardly changes, and its error counts as little
        residual[list(pair)] = np.sqrt((residual[list(pair)] ** 2).mean())
    return Baselines({name: published(found) for name, found in predictions.items()}, ridge, residual)


def linear_starts(dataset: Dataset, baselines: Baselines) -> LinearFits:
    """For each output, the best of them on the dataset's validation part, as the start of a linear path."""
    seasonal = None if dataset.season is None else seasonal_naive(dataset, dataset.season)
    return linear_fits(dataset, baselines.ridge, seasonal)


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
