"""Prediction intervals: their calibration on the validation part, and how often they hold on the test part.

Split conformal prediction (Lei et al. 2018): the score of a step says how far its truth lies from the prediction, and
the interval is as wide as the score that a given share of the validation steps stays below. With quantiles, the score
counts from the outer ones (conformalized quantile regression, Romano et al. 2019).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.intervals import HOURS, SHARES, Intervals
from edge_lstm.decisions.angles import PublishedOutputs
from edge_lstm.decisions.forecasts.bands import hours, in_order
from edge_lstm.foundation.arrays import Doubles, Flags, Integers
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.streaming.reading import Prediction
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.split import Part
from edge_lstm_train.evaluation.formatting import output_label
from edge_lstm_train.evaluation.predictions import Predictions, predictions_by_step, steps_of
from edge_lstm_train.evaluation.regression import errors_of

_SHRINKAGE = 3  # scores of an hour that count as much as the mean of all hours
_LEAST_FACTOR = 0.05  # of an hour: at night a plant's power is 0 in every training, and need not be for ever
_LEAST_GAIN = 0.01  # of the interval score, for factors by hour


def calibrated_intervals(dataset: Dataset, predicted: Doubles, level: float) -> Intervals:
    """The intervals that hold on the validation part.

    predicted (steps, network outputs): from weights that were not trained on that part. Raises EdgeLstmError if it has
    too few steps for the level.
    """
    contract, steps = dataset.contract, dataset.steps("validation")
    refuse_few_steps(dataset, level)
    times = dataset.times[steps]
    widths, tables, factors = [], [], []
    scores = _scores(contract, predicted[steps], dataset.targets[steps])
    for place in range(len(banded(contract))):
        known = np.flatnonzero(np.isfinite(scores[:, place]))
        of_step = scores[known, place]
        by_hour = np.ones(HOURS)
        if not contract.quantiles:
            by_hour = _factors(of_step, times[known], level)
            of_step = of_step / by_hour[hours(times[known])]
        widths.append(conformal_quantile(of_step, level))
        tables += [conformal_quantile(of_step, share) for share in SHARES]
        factors.append(by_hour)
    every = np.concatenate(factors)
    return Intervals(level, widths, tables, [] if (every == 1).all() else every.tolist())


def refuse_few_steps(dataset: Dataset, level: float) -> None:
    """Raise EdgeLstmError if the validation part has too few steps with a known target for intervals of that level."""
    contract, truth = dataset.contract, dataset.truth[dataset.steps("validation")]
    least = math.ceil(level / (1 - level) - 1e-9)  # of n scores, the (n + 1) * level smallest exists
    for target, horizon in banded(contract):
        known = int(np.isfinite(truth[:, contract.outputs.index((target, horizon))]).sum())
        if known < least:
            raise EdgeLstmError(
                f"intervals = {level:g}: expected at least {least} validation steps with a known "
                f"{output_label(target, horizon)}, found {known}",
                "choose a lower probability, or a larger validation part under [split]",
            )


def conformal_quantile(scores: Doubles, share: float) -> float:
    """The score (n,) that a new one stays below with that probability: the ceil((n + 1) * share) smallest."""
    rank = min(math.ceil((len(scores) + 1) * share - 1e-9), len(scores))
    return float(np.partition(scores, rank - 1)[rank - 1])


def banded(contract: Contract) -> list[tuple[str, int]]:
    """(target, horizon) of each interval."""
    return [(target, horizon) for target in contract.targets for horizon in contract.horizons]


def _scores(contract: Contract, predicted: Doubles, targets: Doubles) -> Doubles:
    """(steps, targets * horizons): how far the truth lies outside, NaN where it is unknown.

    predicted, targets: (steps, network outputs).
    """
    publish = PublishedOutputs(contract)
    truth, published = publish(targets), in_order(contract, publish(predicted))
    scores = []
    for target, horizon in banded(contract):
        columns = [contract.outputs.index((name, horizon)) for name in contract.output_names_of(target)]
        true, own = truth[:, columns[0]], published[:, columns]
        if contract.quantiles:
            scores.append(np.maximum(own[:, 1:].min(axis=1) - true, true - own[:, 1:].max(axis=1)))
        else:
            scores.append(np.abs(errors_of(own[:, 0], true, contract.circles.get(target))))
    return np.stack(scores, axis=1)


def _factors(scores: Doubles, times: Doubles, level: float) -> Doubles:
    """(24,): the typical score (n,) of each hour over that of all hours; ones where they make no better intervals.

    The steps of one half judge the factors of the other half, by the interval score (Gneiting & Raftery 2007).
    """
    none, order = np.ones(HOURS), np.argsort(times, kind="stable")
    halves = np.array_split(order, 2)
    if not all(len(half) for half in halves):
        return none
    losses = np.zeros(2)  # without and with factors
    for learned, judged in (halves, halves[::-1]):
        for kind, by_hour in enumerate((none, _hourly(scores[learned], times[learned]))):
            width = conformal_quantile(scores[learned] / by_hour[hours(times[learned])], level)
            widths = width * by_hour[hours(times[judged])]
            beyond = np.maximum(scores[judged] - widths, 0)
            losses[kind] += (2 * widths + 2 / (1 - level) * beyond).mean()
    return _hourly(scores, times) if losses[1] < (1 - _LEAST_GAIN) * losses[0] else none


def _hourly(scores: Doubles, times: Doubles) -> Doubles:
    """(24,): the mean score of each hour, with some scores of the overall mean, over that mean."""
    mean = max(float(scores.mean()), 1e-12)
    of_hour = hours(times)
    sums, counts = (np.bincount(of_hour, weights, HOURS) for weights in (scores, None))
    found: Doubles = np.maximum((sums + _SHRINKAGE * mean) / (counts + _SHRINKAGE) / mean, _LEAST_FACTOR)
    return found


@dataclass(frozen=True)
class Held:
    """How often the intervals of one output held."""

    target: str
    horizon: int
    unit: str
    level: float
    share: float  # of the pairs that lie inside
    width: float  # mean, in `unit`
    pairs: int
    by_stream: Mapping[str, float]  # share by stream
    by_hour: Mapping[int, float]  # share by the hour of the step's time (UTC)


def held(dataset: Dataset, predictions: Iterable[Prediction], part: Part = "test") -> list[Held]:
    """How often each interval held, over the part's steps that have one and a measured target."""
    contract = dataset.contract
    if contract.intervals is None:
        return []
    outputs, bounds, level = banded(contract), aligned_bands(dataset, predictions), contract.intervals.level
    steps, truth, units = dataset.steps(part), dataset.truth, contract.target_units
    found = []
    for place, (target, horizon) in enumerate(outputs):
        true = truth[:, contract.outputs.index((target, horizon))]
        known = steps[np.isfinite(true[steps]) & np.isfinite(bounds[steps, place]).all(axis=1)]
        low, high = bounds[known, place].T
        period = contract.circles.get(target)
        inside = _is_inside(true[known], low, high, period)
        widths = high - low if period is None else np.where(high - low >= period, period, (high - low) % period)
        streams = {name: float(inside[np.isin(known, own)].mean()) for name, own in dataset.by_stream(known).items()}
        found.append(
            Held(
                target,
                horizon,
                units[target],
                level,
                float(inside.mean()) if inside.size else math.nan,
                float(widths.mean()) if widths.size else math.nan,
                len(known),
                streams,
                _share_by_hour(inside, hours(dataset.times[known])),
            )
        )
    return found


def aligned_bands(dataset: Dataset, predictions: Iterable[Prediction]) -> Doubles:
    """(steps, targets * horizons, 2): the bounds at the dataset's steps, NaN where there are none."""
    outputs = banded(dataset.contract)
    bounds = np.full((len(dataset), len(outputs), 2), np.nan)
    if isinstance(predictions, Predictions):
        if predictions.bands is not None:
            steps = steps_of(dataset, predictions)
            bounds[steps[steps >= 0]] = predictions.bands[steps >= 0]
        return bounds
    for step, prediction in predictions_by_step(dataset, predictions):
        if prediction.bands is not None:
            bounds[step] = [prediction.bands[target][horizon] for target, horizon in outputs]
    return bounds


def _is_inside(true: Doubles, low: Doubles, high: Doubles, period: float | None) -> Flags:
    if period is None:
        return (low <= true) & (true <= high)
    inside: Flags = ((true - low) % period <= (high - low) % period) | (high - low >= period)
    return inside


def _share_by_hour(inside: Flags, of_hour: Integers) -> dict[int, float]:
    return {hour: float(inside[of_hour == hour].mean()) for hour in np.unique(of_hour).tolist()}


def figures(found: Iterable[Held]) -> list[dict[str, Any]]:
    """As JSON values."""
    return [
        {**dataclasses.asdict(one), "by_hour": {str(hour): share for hour, share in one.by_hour.items()}}
        for one in found
        if one.pairs
    ]
