"""The limits by which a device judges its model, from the validation part.

Days of the validation part, drawn at random, make months; the limits are what the figures exceed in a given share of
these months (block bootstrap, Kuensch 1989). The limits of the inputs are above all that the training and validation
parts show.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.health import BINS, ErrorLimits, Health, InputLimits, Reference, reference_fits
from edge_lstm.decisions.angles import PublishedOutputs
from edge_lstm.decisions.forecasts.bands import Bands, in_order
from edge_lstm.decisions.health import EVERY, JUDGED_EVERY, plain_features, stability_index
from edge_lstm.decisions.pending import Pending
from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.evaluation.intervals import banded
from edge_lstm_train.evaluation.regression import errors_of

FALSE_ALARMS_PER_MONTH = 0.1
_CHECKS = 4  # limits that share it
_DAY_S, _WEEK_S, _MONTH_S = 86_400.0, 7 * 86_400.0, 30 * 86_400.0
_MONTHS = 400  # simulated
_MOST_SIMULATED = 3000  # steps of a simulated month; more are averaged first
_LEAST_BLOCKS = 100  # averages that the longest stream gives, however short it is
_LONGEST = 6000  # averages of a simulated month; of fast and short recordings it is the beginning of a month
_LEAST_STEPS = 200  # of the validation part
_SPANS = 50, 20_000  # least and most, steps
_LOOKS = 25, 5000
_LEAST_WORSE, _LEAST_INDEX = 1.1, 0.25  # .25: by convention a large shift of the population
_ABOVE_SEEN = 1.5  # limit of an index, over the largest that was seen
_TOLERANCE = 0.1  # of the usual error
_MOST_SQUARE = 100.0
_LAGS = (16, 8, 4, 2, 1)
_PENALTY = 1e-3
_MOST_ROWS = 50_000  # for the regression


class _Judged(NamedTuple):
    """The errors of the validation steps, as a device averages them over its predictions."""

    squares: Doubles  # (steps, 3): of the model, persistence and the reference
    inside: Doubles  # (steps,): share of the intervals that hold; NaN without intervals
    streams: list[Integers]  # places of the steps of each stream, in order


def fitted_health(dataset: Dataset, contract: Contract, predicted: Doubles) -> Health | None:
    """The limits for a trained contract; None where there is nothing to judge by.

    predicted (steps, network outputs): from weights that were not trained on the validation part.
    """
    interval_s, steps = _interval_s(dataset), len(dataset.steps("validation"))
    errors = _error_limits(dataset, contract, predicted, interval_s)
    inputs = _input_limits(dataset, contract, interval_s)
    if errors is None and inputs is None:
        return None
    return Health(FALSE_ALARMS_PER_MONTH, steps * interval_s / _MONTH_S, errors, inputs)


def _interval_s(dataset: Dataset) -> float:
    """The median time from a step to the next one of its stream."""
    return max(float(np.median(np.diff(dataset.times)[~dataset.restart[1:]])), 1e-3) if len(dataset) > 1 else 1.0


def _error_limits(dataset: Dataset, contract: Contract, predicted: Doubles, interval_s: float) -> ErrorLimits | None:
    steps = dataset.steps("validation")
    arrives = contract.task in ("forecast", "anomaly") and contract.horizons != [0]
    if not arrives or len(steps) < _LEAST_STEPS or not Pending(contract, "judged", 5).fits:
        return None
    columns = [contract.outputs.index(one) for one in banded(contract)]
    publish = PublishedOutputs(contract)
    truth = publish(dataset.targets[steps])[:, columns]
    published = in_order(contract, publish(predicted[steps]))
    naive = publish(dataset.naive_predictions_at(steps))[:, columns]
    reference, change = _reference(dataset, contract, columns)
    away = [_away(contract, found, truth) for found in (published[:, columns], naive, naive + change)]
    with np.errstate(invalid="ignore"):
        scales = np.sqrt(np.nanmean(away[0] ** 2, axis=0))
    if not np.isfinite(scales).all() or not (scales > 0).all():
        return None
    squares = [np.minimum((found / scales) ** 2, _MOST_SQUARE) for found in away]
    known = np.isfinite(truth).any(axis=1)
    pooled = np.stack([np.nanmean(one[known], axis=1) for one in squares], axis=1)
    inside = np.full(len(pooled), np.nan)
    if contract.intervals is not None:
        bounds = Bands(contract)(published[known].astype(np.float32), dataset.times[steps[known]])
        held = (bounds[:, :, 0] <= truth[known]) & (truth[known] <= bounds[:, :, 1])
        inside = np.where(np.isfinite(truth[known]), held, np.nan)
        inside = np.nanmean(inside, axis=1)
    streams = dataset.by_stream(steps[known])
    judged = _Judged(pooled, inside, [np.searchsorted(steps[known], own) for own in streams.values()])
    return _simulated_limits(judged, scales.tolist(), interval_s, reference)


def _away(contract: Contract, predicted: Doubles, truth: Doubles) -> Doubles:
    """(steps, targets * horizons): truth - prediction; on a circle the shorter way."""
    outputs = enumerate(banded(contract))
    found = [errors_of(predicted[:, at], truth[:, at], contract.circles.get(name)) for at, (name, _) in outputs]
    return np.stack(found, axis=1)


def _simulated_limits(
    judged: _Judged, scales: list[float], interval_s: float, reference: Reference | None
) -> ErrorLimits:
    """The limits that a share of simulated months exceeds."""
    steps = len(judged.squares)
    span = int(np.clip(_WEEK_S / interval_s, _SPANS[0], min(_SPANS[1], max(_SPANS[0], steps // 4))))
    month = max(int(_MONTH_S / interval_s), 2 * span)
    columns = np.column_stack([judged.squares[:, :2], np.sqrt(judged.squares[:, 0]), judged.inside])
    compared = [columns[own[offset::JUDGED_EVERY]] for own in judged.streams for offset in range(JUDGED_EVERY)]
    averaged_steps = -(-month // JUDGED_EVERY // _MOST_SIMULATED)  # of those that a device compares
    averaged_steps = max(min(averaged_steps, max(map(len, compared)) // _LEAST_BLOCKS), 1)
    together = JUDGED_EVERY * averaged_steps  # steps
    averaged = [_averaged(own, averaged_steps) for own in compared if len(own) >= averaged_steps]
    block = max(round(_DAY_S / interval_s / together), 1)
    drawn = _months(averaged, block, min(month // together, _LONGEST))
    rate = min(2.0 / (span / together + 1.0), 1.0)
    highest = np.zeros((_MONTHS, 4))  # error, against persistence, rise, coverage
    lowest = np.ones(_MONTHS)
    mean, usual, rise = np.array(drawn[0]), np.zeros(_MONTHS), np.zeros(_MONTHS)
    for number, now in enumerate(drawn, start=1):  # now (months, 4)
        mean += np.maximum(rate, 1.0 / number) * (now - mean)
        usual += max(rate / 10, 1.0 / number) * (now[:, 2] - usual)
        rise = np.maximum(rise + together * (now[:, 2] - usual - _TOLERANCE), 0.0)
        if number * together >= span // 2:
            ratio = np.sqrt(mean[:, 0] / np.maximum(mean[:, 1], 1e-12))
            highest = np.maximum(highest, np.column_stack([np.sqrt(mean[:, 0]), ratio, rise, mean[:, 3]]))
            lowest = np.minimum(lowest, mean[:, 3])
    allowed = 1 - FALSE_ALARMS_PER_MONTH / _CHECKS
    worse, against, rising, _ = np.quantile(highest[:, :4], allowed, axis=0).tolist()
    coverage = [] if np.isnan(judged.inside).all() else _coverage(lowest, highest[:, 3])
    return ErrorLimits(
        span,
        scales,
        max(worse, _LEAST_WORSE),
        max(against, 1.0),
        rising,
        _TOLERANCE,
        coverage,
        reference,
    )


def _coverage(lowest: Doubles, highest: Doubles) -> list[float]:
    share = FALSE_ALARMS_PER_MONTH / _CHECKS / 2
    return [float(np.quantile(lowest, share)), min(float(np.quantile(highest, 1 - share)), 1.0)]


def _averaged(values: Doubles, together: int) -> Doubles:
    """Means of so many rows after each other."""
    whole = len(values) // together * together
    found: Doubles = values[:whole].reshape(-1, together, values.shape[1]).mean(axis=1)
    return found


def _months(streams: list[Doubles], block: int, length: int) -> Doubles:
    """(length, months, columns): months of blocks, each month from one stream."""
    draw = np.random.default_rng(0)
    months = []
    for _ in range(_MONTHS):
        own = streams[draw.integers(len(streams))]
        begins = draw.integers(0, len(own), -(-length // block))
        places = (begins[:, None] + np.arange(block)).reshape(-1)[:length] % len(own)
        months.append(own[places])
    return np.stack(months, axis=1)


def _reference(dataset: Dataset, contract: Contract, columns: list[int]) -> tuple[Reference | None, Doubles]:
    """The ridge regression of the last samples that is best on the validation part, and its changes there."""
    steps = dataset.steps("validation")
    none = np.zeros((len(steps), len(columns)))
    plain = plain_features(contract)
    if not plain:
        return None, none
    places = [contract.features.index(feature) for feature in plain]
    values = (dataset.values[:, places] - [one.mean for one in plain]) / np.array([one.scale for one in plain])
    train = dataset.steps("train")
    train = train[:: -(-len(train) // _MOST_ROWS)]
    change = _changes(dataset, contract, columns, train)
    wanted = _changes(dataset, contract, columns, steps)
    best, found, kept = np.inf, None, none
    for lags in _LAGS:
        if not reference_fits(len(columns), len(plain), lags):
            continue
        weights = _fit(_lagged(dataset, values, train, lags), change)
        predicted = _lagged(dataset, values, steps, lags) @ weights.T
        error = float(np.nanmean(((predicted - wanted) / np.maximum(np.nanstd(wanted, axis=0), 1e-12)) ** 2))
        if error < best:
            best, found, kept = error, Reference(lags, weights.reshape(-1).tolist()), predicted
    return found, kept


def _changes(dataset: Dataset, contract: Contract, columns: list[int], steps: Integers) -> Doubles:
    """(steps, targets * horizons): the truth, less the newest value; 0 on circles, which no line follows."""
    publish = PublishedOutputs(contract)
    found: Doubles = (
        publish(dataset.targets[steps])[:, columns] - publish(dataset.naive_predictions_at(steps))[:, columns]
    )
    for place, (target, _) in enumerate(banded(contract)):
        if target in contract.circles:
            found[:, place] = 0.0
    return found


def _lagged(dataset: Dataset, values: Doubles, steps: Integers, lags: int) -> Doubles:
    """(steps, lags * features + 1): the newest sample first; before a run, copies of its first sample; and ones."""
    rows = np.maximum(steps[:, None] - np.arange(lags), dataset.run_start[steps][:, None])
    return np.column_stack([values[rows].reshape(len(steps), -1), np.ones(len(steps))])


def _fit(x: Doubles, y: Doubles) -> Doubles:
    """(outputs, columns): ridge weights; steps with an unknown target are left out."""
    shrink = _PENALTY * np.eye(x.shape[1])
    shrink[-1, -1] = 0.0
    found = []
    for column in y.T:
        known = np.isfinite(column)
        gram = x[known].T @ x[known] / max(known.sum(), 1) + shrink + 1e-9 * np.eye(x.shape[1])
        found.append(np.linalg.solve(gram, x[known].T @ column[known] / max(known.sum(), 1)))
    return np.stack(found)


def _input_limits(dataset: Dataset, contract: Contract, interval_s: float) -> InputLimits | None:
    """Bins at the deciles of the training part; limits above all that was seen there and in the validation part."""
    places = [contract.features.index(feature) for feature in plain_features(contract)]
    train = dataset.steps("train")
    if not places or len(train) < _LEAST_STEPS:
        return None
    values = dataset.values[:, places]
    edges = np.quantile(values[train], np.arange(1, BINS) / BINS, axis=0).T.astype(np.float32)  # (features, edges)
    bins = (values[:, :, None] > edges).sum(axis=2)
    shares = np.stack([np.bincount(own, minlength=BINS) for own in bins[train].T]) / len(train)
    known = np.sort(np.concatenate([train, dataset.steps("validation")]))
    looks = [bins[own[EVERY - 1 :: EVERY]] for own in dataset.by_stream(known).values()]
    longest = max(map(len, looks))
    span = int(np.clip(4 * _WEEK_S / interval_s / EVERY, _LOOKS[0], min(_LOOKS[1], max(_LOOKS[0], longest // 2))))
    limits = np.maximum(_ABOVE_SEEN * _highest_index(looks, shares, span), _LEAST_INDEX)
    return InputLimits(span, edges.reshape(-1).tolist(), shares.reshape(-1).tolist(), limits.tolist())


def _highest_index(looks: list[Integers], shares: Doubles, span: int) -> Doubles:
    """(features,): the largest index that a device would have found in these streams of bins (looks, features)."""
    order = sorted(looks, key=len, reverse=True)
    lengths = np.array([len(own) for own in order])
    bins = np.zeros((max(map(len, order)), len(order), len(shares)), np.int8)
    for stream, own in enumerate(order):
        bins[: len(own), stream] = own
    averaged = np.repeat(shares[None], len(order), axis=0)
    rate, highest = 2.0 / (span + 1.0), np.zeros(len(shares))
    for number, now in enumerate(bins, start=1):
        here = averaged[: int((lengths >= number).sum())]
        here += rate * ((np.arange(BINS) == now[: len(here), :, None]) - here)
        if number >= span // 2:
            highest = np.maximum(highest, stability_index(here, shares).max(axis=0))
    return highest
