"""Forecast residuals to an anomaly score and an alarm, calibrated on each stream's own first steps.

The residual vector is averaged exponentially. The score is the Mahalanobis distance of that average from its values
during calibration (Mahalanobis 1936), relative to a threshold. It detects one sensor that is off for long, or several
that are off together. An alarm is held over gaps of `hold_steps`, and its average is limited by `ceiling`, since an
average that a short event drove far away would take long to come back.
"""

from __future__ import annotations

import numpy as np

from edge_lstm.bundle.contract import Alarm, Contract
from edge_lstm.decisions.angles import difference
from edge_lstm.decisions.operator import Operator
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.decisions.step import Step
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Records, Slots

START_VALUES = {"expected": float("nan")}
_MIN_VARIANCE = 1e-8  # of averaged residuals, in squared standard deviations of their feature
_TO_DEVIATION = 1.4826  # of the median absolute deviation, to the standard deviation of normal values
_TRIMS = 2
_LEAST_KEPT = 0.7  # of the steps of a calibration
_NO_RULES = DecisionRules()


class AnomalyDetector:
    """Scores and alarms of many streams at once.

    The record of a stream has `expected` (the forecast of its next sample), `smoothed` (the average of the standardized
    residuals) and `calibrated` (calibration steps so far). After the calibration it has `center`, `whitening` and
    `threshold`. With `hold_steps`, `quiet` counts the steps since the score was last above `release`.
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

    def __call__(self, step: Step) -> tuple[Doubles, Flags, Flags]:
        """Scores, alarms and changed alarms, (n,) each. An alarm begins above a score of 1; NaN: not scored yet."""
        current, slots, values, raw = step.current, step.slots, step.values, step.outputs
        steps = current["warm_steps"][slots]
        expected = raw if self._same_step else current["expected"][slots]
        residuals = (values[:, self._columns].astype(np.float64) - expected) / self._scale
        for place, period in self._circles:
            values_here = values[:, self._columns[place]]
            residuals[:, place] = difference(values_here, expected[:, place], period) / self._scale[place]
        residuals_known = steps - (0 if self._same_step else 1)  # since the restart, with this one
        fresh = residuals_known <= 0
        smoothed = np.where((residuals_known <= 1)[:, None], 0.0, current["smoothed"][slots])
        silent = step.missing[:, self._columns] | ~np.isfinite(residuals) | fresh[:, None]
        rate = np.maximum(self._rate, 1.0 / np.maximum(residuals_known, 1))[:, None]  # at first the arithmetic mean
        smoothed = np.where(silent, smoothed, smoothed + rate * (residuals - smoothed))
        maintained = self._operator.maintained(current, slots)
        if maintained.any():  # what happens then leaves no trace: afterwards the average begins as usual
            calibrated = maintained & (current["calibrated"][slots] == self._alarm.calibrate_steps)
            smoothed[maintained] = current["smoothed"][slots[maintained]]
            smoothed[calibrated] = current["center"][slots[calibrated]]
        current["smoothed"][slots] = smoothed
        current["expected"][slots] = raw
        judged = ~fresh & (steps > self._alarm.settle_steps)
        self._calibrate(current, step.calibration, slots, smoothed, judged & step.learns)
        ready = judged & ~maintained & (current["calibrated"][slots] == self._alarm.calibrate_steps)
        ready &= current["threshold"][slots] > 0
        scores = np.full(len(slots), np.nan)
        calibrated_scores = scores
        if ready.any():
            chosen = slots[ready]
            away = distance(smoothed[ready], current["center"][chosen], current["whitening"][chosen])
            scores[ready] = away / current["threshold"][chosen]
            calibrated_scores = scores.copy()
            scores[ready] = self._operator.scores(current, chosen, smoothed[ready], scores[ready])
            self._limit(current, slots, scores)
        before = current["alarm"][slots]
        alarms = scores > np.where(before, self._alarm.release, 1.0)  # False for NaN
        if self._alarm.hold_steps:
            quiet = np.where(scores > self._alarm.release, 0, current["quiet"][slots] + 1)
            quiet = np.minimum(quiet, self._alarm.hold_steps + 1)
            current["quiet"][slots] = quiet
            alarms |= before & ready & (quiet <= self._alarm.hold_steps)
        current["alarm"][slots] = alarms
        self._operator.note_alarms(current, slots, before, alarms, calibrated_scores)
        return scores, alarms, alarms != before

    def _limit(self, current: Records, slots: Slots, scores: Doubles) -> None:
        """Pull averages with a score above the ceiling back to it, on the line to their center."""
        ceiling = self._alarm.ceiling
        if ceiling is None or not (over := scores > ceiling).any():
            return
        chosen = slots[over]
        center = current["center"][chosen]
        away = current["smoothed"][chosen] - center
        current["smoothed"][chosen] = center + away * (ceiling / scores[over])[:, None]

    def _calibrate(self, current: Records, calibration: Floats, slots: Slots, smoothed: Doubles, judged: Flags) -> None:
        """Store the averages of streams in calibration; at its end, compute center, whitening and threshold."""
        size = self._alarm.calibrate_steps
        count = current["calibrated"][slots]
        places = np.flatnonzero(judged & (count < size))
        if not places.size:
            return
        calibration[slots[places], count[places]] = smoothed[places]
        current["calibrated"][slots[places]] += 1
        for slot in slots[places[count[places] + 1 == size]].tolist():
            center, whitening, threshold = fit_distance(calibration[slot].astype(np.float64), self._alarm)
            current["center"][slot], current["whitening"][slot], current["threshold"][slot] = (
                center,
                whitening,
                threshold,
            )


def fit_distance(rows: Doubles, alarm: Alarm) -> tuple[Doubles, Doubles, float]:
    """Center (targets,), whitening (targets, targets) and threshold by a stream's averages (steps, targets)."""
    if alarm.trim is not None:
        rows = rows[usual_rows(rows, alarm.trim, alarm.shrinkage)]
    center, whitening = _center_and_whitening(rows, alarm.shrinkage)
    usual = float(np.quantile(_distances(rows, center, whitening), alarm.quantile))
    return center, whitening, alarm.factor * max(1.0, usual)  # 1: for values that never changed


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
        away = _distances(rows, *_center_and_whitening(rows[kept], shrinkage))
    found: Flags = away <= max(trim * float(np.median(away)), float(np.quantile(away, _LEAST_KEPT)))
    return found


def _center_and_whitening(rows: Doubles, shrinkage: float) -> tuple[Doubles, Doubles]:
    """Mean (targets,) of the rows (steps, targets) and the inverse Cholesky factor of their shrunk covariance."""
    center = rows.mean(axis=0)
    covariance = np.atleast_2d(np.cov(rows, rowvar=False, bias=True))
    diagonal = np.diag(np.maximum(np.diag(covariance), _MIN_VARIANCE))
    covariance = (1 - shrinkage) * covariance + shrinkage * diagonal + _MIN_VARIANCE * np.eye(len(center))
    return center, np.linalg.inv(np.linalg.cholesky(covariance))


def _distances(rows: Doubles, center: Doubles, whitening: Doubles) -> Doubles:
    """`distance` from one center by one factor."""
    repeated = np.broadcast_to(center, rows.shape), np.broadcast_to(whitening, (len(rows), *whitening.shape))
    return distance(rows, *repeated)


def distance(rows: Doubles, center: Doubles, whitening: Doubles) -> Doubles:
    """Mahalanobis distance of rows (n, d) from centers (n, d), by the inverse Cholesky factors (n, d, d). (n,)"""
    white = (whitening * (rows - center)[:, None, :]).sum(axis=2)
    found: Doubles = np.sqrt((white**2).sum(axis=1))
    return found


def record_fields(contract: Contract) -> list[tuple[str, str, tuple[int, ...]]]:
    """The fields (name, type, shape) of a stream's record for the detector."""
    size = len(contract.targets)
    assert contract.alarm is not None  # checked by Contract.faults
    held = [("quiet", "i8", ())] if contract.alarm.hold_steps else []
    return [
        ("expected", "f4", (size,)),
        ("smoothed", "f8", (size,)),
        ("calibrated", "i8", ()),
        ("center", "f8", (size,)),
        ("whitening", "f8", (size, size)),
        ("threshold", "f8", ()),
        ("alarm", "?", ()),
        *held,
    ]
