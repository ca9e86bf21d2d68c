"""The start of a linear path at the best simple predictor of each output: persistence, seasonal-naive or ridge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from edge_lstm.foundation.arrays import Doubles
from edge_lstm_train.data.dataset import Dataset, target_columns
from edge_lstm_train.model.forecaster import Forecaster
from edge_lstm_train.model.input_statistics import input_statistics
from edge_lstm_train.model.ridge import Ridge, blocks_of, is_forecast, measured_inputs, trained_ridge_at


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A linear predictor of each output, over the newest standardized samples of the network's inputs.

    prediction = naive prediction + taps @ samples + bias, in the targets' units.
    """

    taps: Doubles  # (outputs, 1 + earlier, inputs), the newest sample first
    bias: Doubles  # (outputs,)
    free: Doubles  # (outputs, 1 + earlier, inputs): 1 where training may change a tap
    tied: Doubles  # (outputs, inputs): 1 where the newest tap is minus the sum of the earlier ones
    names: list[str]  # of each output's predictor

    @property
    def earlier(self) -> int:
        """Samples before the newest one."""
        return self.taps.shape[1] - 1


@dataclass(frozen=True, eq=False)
class LinearFits:
    """The same choices, fitted on the training part, and on training and validation part together."""

    searched: LinearFit
    refitted: LinearFit


def linear_fits(dataset: Dataset, ridge: Ridge, seasonal: Doubles | None) -> LinearFits:
    """For each output, the predictor with the least squared error on the validation part.

    seasonal (steps, outputs): the seasonal-naive predictions, None without a season. A simpler predictor wins a tie.
    """
    validation = dataset.steps("validation")

    def error(predictions: Doubles) -> Doubles:
        squared: Doubles = np.nanmean((predictions - dataset.targets[validation]) ** 2, axis=0)
        return squared

    naive = "persistence" if is_forecast(dataset) else "mean"
    errors = {naive: error(dataset.naive_predictions_at(validation))}
    if seasonal is not None:
        errors["seasonal-naive"] = error(seasonal[validation])
    errors["ridge"] = error(trained_ridge_at(dataset, validation, ridge))
    names = list(errors)
    chosen = [names[index] for index in np.argmin(np.stack(list(errors.values())), axis=0).tolist()]
    fits = [_linear_fit(dataset, ridge, coefficients, chosen) for coefficients in (ridge.coefficients, ridge.refitted)]
    return LinearFits(*fits)


def _linear_fit(dataset: Dataset, ridge: Ridge, coefficients: list[Doubles], chosen: list[str]) -> LinearFit:
    contract = dataset.contract
    outputs, inputs = len(contract.network_outputs), len(contract.inputs)
    season = dataset.season or 0
    backs = [season * -(-horizon // season) - horizon if season else 0 for _, horizon in contract.network_outputs]
    longest = max(
        ridge.choices[output].lags - 1 if name == "ridge" else backs[output] if name == "seasonal-naive" else 0
        for output, name in enumerate(chosen)
    )
    taps, free = np.zeros((outputs, 1 + longest, inputs)), np.zeros((outputs, 1 + longest, inputs))
    tied, bias, names = np.zeros((outputs, inputs)), np.zeros(outputs), list(chosen)
    mean, scale = (one.astype(np.float64) for one in input_statistics(dataset))
    columns, own_mean, own_scale = measured_inputs(contract)
    others = np.setdiff1d(np.arange(inputs), columns)
    for output, name in enumerate(chosen):
        if name == "seasonal-naive":
            column = target_columns(contract)[output]
            taps[output, backs[output], column] = scale[column]
            taps[output, 0, column] -= scale[column]  # the newest value is in the naive prediction already
            free[output, backs[output], column], tied[output, column] = 1.0, 1.0
        elif name == "ridge":
            choice, weights = ridge.choices[output], coefficients[output]
            first, names[output] = int(choice.level_free), f"ridge, {choice}"
            size = (choice.lags - first) * len(columns)
            # from the ridge's units to the network's
            own = weights[:size].reshape(-1, len(columns)) / own_scale
            taps[output, first : choice.lags, columns] = (own * scale[columns]).T
            free[output, first : choice.lags, columns] = 1.0
            bias[output] = weights[-1]
            if choice.level_free:
                taps[output, 0, columns] = -taps[output, 1 : choice.lags, columns].sum(axis=1)
                tied[output, columns] = 1.0
            else:
                bias[output] += (own * (mean[columns] - own_mean)).sum()
            taps[output, 0, others] = weights[size:-1] * scale[others]
            free[output, 0, others] = 1.0
            bias[output] += weights[size:-1] @ mean[others]
    return LinearFit(taps, bias, free, tied, names)


def start_at(model: Forecaster, dataset: Dataset, linear: LinearFit, quantiles: Doubles) -> None:
    """Set the linear path and the head's bias to a linear predictor, in place; it sees the path's samples or fewer.

    quantiles (outputs,): the level of each quantile output, NaN for others. A quantile's bias is that of the residuals
    in the training part.
    """
    shape, scale = model.shape, model.output_scale.double().numpy()
    taps, free = (np.zeros((shape.outputs, 1 + shape.highway, shape.inputs)) for _ in range(2))
    taps[:, : 1 + linear.earlier], free[:, : 1 + linear.earlier] = linear.taps, linear.free
    bias = linear.bias + _quantile_shifts(dataset, linear, quantiles)
    plain = taps * free  # a tied tap follows from the others
    with torch.no_grad():
        model.highway.weight[:] = torch.from_numpy(plain.reshape(shape.outputs, -1) / scale[:, None])
        model.free[:] = torch.from_numpy(free.reshape(shape.outputs, -1))
        model.tied[:] = torch.from_numpy(linear.tied)
        model.head.bias[:] = torch.from_numpy(bias / scale)


def _quantile_shifts(dataset: Dataset, linear: LinearFit, quantiles: Doubles) -> Doubles:
    """(outputs,): the quantile of each quantile output's residuals in the training part, 0 for other outputs."""
    shifts = np.zeros(len(quantiles))
    if np.isnan(quantiles).all():
        return shifts
    mean, scale = (one.astype(np.float64) for one in input_statistics(dataset))
    steps, outputs = dataset.steps("train"), np.flatnonzero(np.isfinite(quantiles))
    residuals = []  # (rows, quantile outputs) of each block
    for rows in blocks_of(steps):
        predicted = dataset.naive_predictions_at(rows)[:, outputs] + linear.bias[outputs]
        for lag in range(1 + linear.earlier):
            at = np.maximum(rows - lag, dataset.run_start[rows])  # a register that starts full
            predicted += ((dataset.features[at] - mean) / scale) @ linear.taps[outputs, lag].T
        residuals.append(dataset.targets[rows][:, outputs] - predicted)
    for output, residual in zip(outputs.tolist(), np.concatenate(residuals).T, strict=True):
        shifts[output] = np.quantile(residual[np.isfinite(residual)], quantiles[output])
    return shifts
