"""Forecast residuals to an anomaly score and an alarm, calibrated on each stream's own first steps.

The residual vector is averaged exponentially. The score is the Mahalanobis distance of that average from its values
during calibration (Mahalanobis 1936), relative to a threshold. It detects one sensor that is off for long, or several
that are off together. An alarm is held over gaps of `hold_steps`, and its average is limited by `ceiling`, since an
average that a short event drove far away would take long to come back. Where the bundle knows the residuals of other
devices, a stream is judged before the end of its calibration too (`prior`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edge_lstm.bundle.contract import Alarm, Contract
from edge_lstm.decisions.alarms import events
from edge_lstm.decisions.alarms.drivers import NAMED_FROM, Drivers, drivers
from edge_lstm.decisions.alarms.marginal import without
from edge_lstm.decisions.alarms.operator import Operator
from edge_lstm.decisions.alarms.prior import Prior, prior_of
from edge_lstm.decisions.angles import difference
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.decisions.step import Step
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Integers, Records, Slots

START_VALUES = {"expected": float("nan")}
_MIN_VARIANCE = 1e-8  # of averaged residuals, in squared standard deviations of their feature
_TO_DEVIATION = 1.4826  # of the median absolute deviation, to the standard deviation of normal values
_TRIMS = 2
_LEAST_KEPT = 0.7  # of the steps of a calibration
_NO_RULES = DecisionRules()


class Found(NamedTuple):
    """What n steps of a detector come to."""

    scores: Doubles  # (n,): an alarm begins above 1; NaN: not scored yet
    alarms: Flags  # (n,)
    turned: Flags  # (n,): whether the alarm differs from the previous step
    drivers: Drivers
    events: events.Events


class AnomalyDetector:
    """Scores and alarms of many streams at once.

    The record of a stream has `expected` (the forecast of its next sample), `smoothed` (the average of the standardized
    residuals) and `calibrated` (calibration steps so far). After the calibration it has `center`, `whitening` and
    `threshold`. With `hold_steps`, `quiet` counts the steps since the score was last above `release`. A stream with a
    prior has these from its first calibration step on; with `ceiling`, `unlimited` is then its average without ceiling,
    from which it calibrates.
    """

    def __init__(self, contract: Contract, rules: DecisionRules = _NO_RULES) -> None:
        alarm = contract.alarm
        assert alarm is not None  # checked by Contract.faults
        names = [feature.name for feature in contract.features]
        self._alarm = alarm
        self._operator = Operator(rules)
        self._columns = [names.index(target) for target in contract.targets]
        self._scale = np.array([contract.features[column].scale for column in self._columns])
        periods = ((place, contract.circles.get(target)) for place, target in enumerate(contract.targets))
        self._circles = [(place, period) for place, period in periods if period is not None]
        self._same_step = contract.horizons == [0]  # a reconstruction; else a forecast of the next step
        self._rate = 2.0 / (alarm.span_steps + 1.0)
        self._prior = prior_of(alarm)
        self._has_unlimited = has_unlimited(alarm)

    def __call__(self, step: Step) -> Found:
        """What n steps come to."""
        current, slots, values, raw = step.current, step.slots, step.values, step.outputs
        steps = current["warm_steps"][slots]
        expected = raw if self._same_step else current["expected"][slots]
        residuals = (values[:, self._columns].astype(np.float64) - expected) / self._scale
        for place, period in self._circles:
            values_here = values[:, self._columns[place]]
            residuals[:, place] = difference(values_here, expected[:, place], period) / self._scale[place]
        residuals_known = steps - (0 if self._same_step else 1)  # since the restart, with this one
        fresh = residuals_known <= 0
        silent = step.missing[:, self._columns] | ~np.isfinite(residuals) | fresh[:, None]
        smoothed = self._averaged(current["smoothed"][slots], residuals, silent, residuals_known)
        maintained = self._operator.maintained(current, slots)
        if maintained.any():  # what happens then leaves no trace: afterwards the average begins as usual
            smoothed[maintained] = self._resting(current, slots[maintained])
        current["smoothed"][slots] = smoothed
        current["expected"][slots] = raw
        judged = ~fresh & (steps > self._alarm.settle_steps)
        sensed = step.sensed
        if sensed is not None:
            smoothed = self._begun_again(current, slots, smoothed, sensed.turned)
        learning = np.flatnonzero((current["calibrated"][slots] < self._alarm.calibrate_steps) & ~maintained)
        if self._has_unlimited and learning.size:
            former = current["unlimited"][slots[learning]]
            found = self._averaged(former, residuals[learning], silent[learning], residuals_known[learning])
            current["unlimited"][slots[learning]] = found
        completed = self._calibrate(current, step.calibration, slots, learning, judged & step.learns)
        smoothed[completed] = current["smoothed"][slots[completed]]
        ready = judged & ~maintained & (current["threshold"][slots] > 0)
        if self._prior is None:
            ready &= current["calibrated"][slots] == self._alarm.calibrate_steps
        counted = smoothed  # without dead sensors
        if sensed is not None:
            dead = (sensed.faults[:, self._columns] > 0) & ready[:, None]
            counted = without(dead, smoothed, current["center"][slots], current["whitening"][slots])
        scores = np.full(len(slots), np.nan)
        calibrated_scores = scores
        if ready.any():
            chosen = slots[ready]
            away = distance(counted[ready], current["center"][chosen], current["whitening"][chosen])
            scores[ready] = away / current["threshold"][chosen]
            calibrated_scores = scores.copy()
            scores[ready] = self._operator.scores(current, chosen, counted[ready], scores[ready])
            self._limit(current, slots, scores)
        before = current["alarm"][slots]
        kept = before & ~completed  # an alarm by the prior goes on only where the own steps alone raise it too
        alarms = scores > np.where(kept, self._alarm.release, 1.0)  # False for NaN
        if self._alarm.hold_steps:
            quiet = np.where(scores > self._alarm.release, 0, current["quiet"][slots] + 1)
            quiet = np.minimum(quiet, self._alarm.hold_steps + 1)
            current["quiet"][slots] = quiet
            alarms |= kept & ready & (quiet <= self._alarm.hold_steps)
        current["alarm"][slots] = alarms
        self._operator.note_alarms(current, slots, before, alarms, calibrated_scores)
        drove = self._drivers(step, ready & ((scores >= NAMED_FROM) | alarms), counted, expected)
        return Found(scores, alarms, alarms != before, drove, events.follow(step, scores, alarms, drove))

    def _drivers(self, step: Step, named: Flags, smoothed: Doubles, expected: Floats) -> Drivers:
        """Which sensors drove the scores that are `named` (n,), by the averages (n, targets) before the ceiling."""
        chosen = step.slots[named]
        away, whitening = smoothed[named] - step.current["center"][chosen], step.current["whitening"][chosen]
        measured = step.values[:, self._columns]
        if chosen.size:
            measured[step.missing[:, self._columns]] = np.nan
        return drivers(named, away, whitening, measured, expected)

    def confidence(self, step: Step, scores: Doubles) -> Doubles | None:
        """(n,): how much of each score rests on the stream's own steps; NaN: all of it, or no score.

        None without a prior.
        """
        if self._prior is None:
            return None
        found = self._prior.confidence(step.current["calibrated"][step.slots])
        found[~np.isfinite(scores)] = np.nan
        return found

    def _resting(self, current: Records, slots: Slots) -> Doubles:
        """(n, targets): the averages of calibrated streams at their centers, and those of others as they are."""
        calibrated = current["calibrated"][slots] == self._alarm.calibrate_steps
        found: Doubles = np.where(calibrated[:, None], current["center"][slots], current["smoothed"][slots])
        return found

    def _begun_again(self, current: Records, slots: Slots, smoothed: Doubles, again: Flags) -> Doubles:
        """The averages (n, targets), where `again` (n,) at their center: what came before says little."""
        again = again & (current["threshold"][slots] > 0)
        smoothed = np.where(again[:, None], current["center"][slots], smoothed)
        current["smoothed"][slots] = smoothed
        return smoothed

    def _limit(self, current: Records, slots: Slots, scores: Doubles) -> None:
        """Pull averages with a score above the ceiling back to it, on the line to their center."""
        ceiling = self._alarm.ceiling
        if ceiling is None or not (over := scores > ceiling).any():
            return
        chosen = slots[over]
        center = current["center"][chosen]
        away = current["smoothed"][chosen] - center
        current["smoothed"][chosen] = center + away * (ceiling / scores[over])[:, None]

    def _averaged(self, former: Doubles, residuals: Doubles, silent: Flags, known: Integers) -> Doubles:
        """The averages (n, targets) with these residuals, of which `known` (n,) have come since the restart."""
        former = np.where((known <= 1)[:, None], 0.0, former)
        rate = np.maximum(self._rate, 1.0 / np.maximum(known, 1))[:, None]  # at first the arithmetic mean
        found: Doubles = np.where(silent, former, former + rate * (residuals - former))
        return found

    def _calibrate(self, current: Records, calibration: Floats, slots: Slots, learning: Slots, learns: Flags) -> Flags:
        """Store the averages of the streams at `learning`, and fit those that have enough of them.

        Returns (n,): whether its own steps alone judge a stream from now on.
        """
        completed = np.zeros(len(slots), np.bool_)
        learning = learning[learns[learning]]
        if not learning.size:
            return completed
        chosen = slots[learning]
        count = current["calibrated"][chosen]
        calibration[chosen, count] = current["unlimited" if self._has_unlimited else "smoothed"][chosen]
        current["calibrated"][chosen] = count + 1
        completed[learning] = count + 1 == self._alarm.calibrate_steps
        for slot in chosen[completed[learning]].tolist():
            self._fit(current, slot, calibration[slot], None)
            if self._has_unlimited:
                current["smoothed"][slot] = current["unlimited"][slot]
        if self._prior is not None:
            for slot in chosen[~completed[learning] & self._prior.due(count + 1)].tolist():
                self._fit(current, slot, calibration[slot, : current["calibrated"][slot]], self._prior)
        return completed

    def _fit(self, current: Records, slot: int, rows: Floats, prior: Prior | None) -> None:
        center, whitening, threshold = fit_distance(rows.astype(np.float64), self._alarm, prior)
        current["center"][slot], current["whitening"][slot], current["threshold"][slot] = center, whitening, threshold


def fit_distance(rows: Doubles, alarm: Alarm, prior: Prior | None = None) -> tuple[Doubles, Doubles, float]:
    """Center (targets,), whitening (targets, targets) and threshold by a stream's averages (steps, targets).

    prior: where these are fewer than the stream's whole calibration.
    """
    steps = len(rows)
    if alarm.trim is not None:
        rows = rows[usual_rows(rows, alarm.trim, alarm.shrinkage)]
    center, covariance = _moments(rows)
    if prior is not None:
        center, covariance = prior.posterior(center, covariance, steps)
    whitening = _whitening(covariance, alarm.shrinkage)
    usual = max(1.0, float(np.quantile(_distances(rows, center, whitening), alarm.quantile)))
    if prior is not None:
        usual = prior.usual(usual, steps)
    return center, whitening, alarm.factor * usual  # 1: for values that never changed


def usual_rows(rows: Doubles, trim: float, shrinkage: float) -> Flags:
    """(steps,): whether a step of the calibration (steps, targets) is kept.

    The first distance is the RMS over the targets from their medians, in median absolute deviations (Hampel 1974). Then
    the covariance of the steps that are kept gives the Mahalanobis distance, twice. A step further than `trim` times
    the median is left out, but never more than three of ten.
    """
    median = np.median(rows, axis=0)
    deviation = np.maximum(_TO_DEVIATION * np.median(np.abs(rows - median), axis=0), _MIN_VARIANCE**0.5)
    away: Doubles = np.sqrt((((rows - median) / deviation) ** 2).mean(axis=1))
    for _ in range(_TRIMS):
        kept = away <= max(trim * float(np.median(away)), float(np.quantile(away, _LEAST_KEPT)))
        center, covariance = _moments(rows[kept])
        away = _distances(rows, center, _whitening(covariance, shrinkage))
    found: Flags = away <= max(trim * float(np.median(away)), float(np.quantile(away, _LEAST_KEPT)))
    return found


def _moments(rows: Doubles) -> tuple[Doubles, Doubles]:
    """Mean (targets,) and covariance (targets, targets) of the rows (steps, targets)."""
    return rows.mean(axis=0), np.atleast_2d(np.cov(rows, rowvar=False, bias=True))


def _whitening(covariance: Doubles, shrinkage: float) -> Doubles:
    """The inverse Cholesky factor of the shrunk covariance."""
    diagonal = np.diag(np.maximum(np.diag(covariance), _MIN_VARIANCE))
    covariance = (1 - shrinkage) * covariance + shrinkage * diagonal + _MIN_VARIANCE * np.eye(len(covariance))
    found: Doubles = np.linalg.inv(np.linalg.cholesky(covariance))
    return found


def _distances(rows: Doubles, center: Doubles, whitening: Doubles) -> Doubles:
    """`distance` from one center by one factor."""
    repeated = np.broadcast_to(center, rows.shape), np.broadcast_to(whitening, (len(rows), *whitening.shape))
    return distance(rows, *repeated)


def distance(rows: Doubles, center: Doubles, whitening: Doubles) -> Doubles:
    """Mahalanobis distance of rows (n, d) from centers (n, d), by the inverse Cholesky factors (n, d, d). (n,)"""
    white = (whitening * (rows - center)[:, None, :]).sum(axis=2)
    found: Doubles = np.sqrt((white**2).sum(axis=1))
    return found


def has_unlimited(alarm: Alarm) -> bool:
    """Whether a stream has a second average: a calibration must not depend on what the prior takes for an alarm."""
    return alarm.ceiling is not None and prior_of(alarm) is not None


def record_fields(contract: Contract) -> list[tuple[str, str, tuple[int, ...]]]:
    """The fields (name, type, shape) of a stream's record for the detector."""
    size = len(contract.targets)
    assert contract.alarm is not None  # checked by Contract.faults
    held = [("quiet", "i8", ())] if contract.alarm.hold_steps else []
    unlimited = [("unlimited", "f8", (size,))] if has_unlimited(contract.alarm) else []
    return [
        ("expected", "f4", (size,)),
        ("smoothed", "f8", (size,)),
        ("calibrated", "i8", ()),
        ("center", "f8", (size,)),
        ("whitening", "f8", (size, size)),
        ("threshold", "f8", ()),
        ("alarm", "?", ()),
        *held,
        *events.record_fields(contract),
        *unlimited,
    ]
