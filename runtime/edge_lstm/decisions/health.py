"""Whether the model of a stream is still good: by the errors of its past predictions, and by what its inputs are like.

The truth about a prediction is the sample that it predicted. The averaged squared error of the model stands beside
those of persistence and of a ridge regression at the same steps. The Page-Hinkley test (Page 1954, Hinkley 1971) finds
a rise of the error that lasts. The population stability index compares the values of each input with the training part.
Every fourth sample is compared with what was predicted for it, and every sixteenth step renews the verdict: the figures
are averages over hundreds of steps, and so cost a step little. A verdict gets better only well below the limit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edge_lstm.bundle.contract import Contract, Feature
from edge_lstm.bundle.health import BINS, ErrorLimits, InputLimits
from edge_lstm.decisions.pending import Pending, Truth
from edge_lstm.decisions.step import Step
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Records, Slots

GOOD, WATCH, POOR = range(3)
VERDICTS = ("good", "watch", "poor")
CAUSES = ("", "error", "persistence", "rise", "coverage")  # then the plain features, in their order
EVERY = 16  # steps of a stream: between two looks at its inputs, and two verdicts
JUDGED_EVERY = 4  # steps of a stream: between two samples that are compared with their predictions
START_VALUES = {
    "model_error": float("nan"),  # averaged squared errors, in the scales of the limits
    "persistence_error": float("nan"),
    "reference_error": float("nan"),
    "coverage": float("nan"),
    "usual_error": 0.0,  # of the Page-Hinkley test
    "error_rise": 0.0,
    "verdict_since": float("nan"),
}
_MOST_SQUARE = 100.0  # of an error in its scale: one spike is not the end of a model
_POOR = 1.5  # times the limit
_BETTER = 0.9  # times the limit: a verdict that is worse ends below it
_SLOWER = 10  # times the span: over which the usual error follows
_LEAST_SHARE = 1e-3  # of a bin, for the logarithm


class Verdicts(NamedTuple):
    """The verdicts on n streams."""

    levels: Slots  # (n,): index into VERDICTS
    turned: Flags  # (n,): whether it is another one than at the step before
    causes: Slots  # (n,): index into `cause_names`


class ModelHealth:
    """Judges the models of many streams at once."""

    def __init__(self, contract: Contract) -> None:
        assert contract.health is not None  # the caller checks it
        plain = plain_features(contract)
        self._columns = [contract.features.index(feature) for feature in plain]
        errors, inputs = contract.health.errors, contract.health.inputs
        self._errors = None if errors is None else _Errors(contract, errors, self._columns)
        self._inputs = None if inputs is None else _Inputs(inputs, len(plain))

    def fields(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """The fields (name, type, shape) of a stream's record."""
        found: list[tuple[str, str, tuple[int, ...]]] = [("verdict", "i1", ()), ("cause", "i2", ())]
        found += [(name, "f8", ()) for name in START_VALUES]
        return found + [field for part in (self._errors, self._inputs) if part is not None for field in part.fields]

    def __call__(self, step: Step, published: Doubles, bands: Floats | None, alarms: Flags | None) -> Verdicts:
        """The verdicts after a step.

        published (n, targets * horizons): the predictions; bands (n, targets * horizons, 2); alarms (n,): steps in an
        alarm say nothing about the model.
        """
        current, slots = step.current, step.slots
        counts = step.learns if alarms is None else step.learns & ~alarms
        if self._errors is not None:
            self._errors.add(step, counts, published, bands)
        due = np.flatnonzero(current["step"][slots] % EVERY == 0)
        turned = np.zeros(len(slots), np.bool_)
        if due.size:
            if self._inputs is not None:
                values = step.values[due][:, self._columns]
                known = ~step.missing[due][:, self._columns] & counts[due, None]
                self._inputs.add(current, slots[due], values, known)
            turned[due] = self._judge(current, slots[due])
        return Verdicts(current["verdict"][slots].astype(np.intp), turned, current["cause"][slots].astype(np.intp))

    def _judge(self, current: Records, slots: Slots) -> Flags:
        """Renew the verdicts of these streams; whether they changed. (n,)"""
        before = current["verdict"][slots].astype(np.intp)
        excess = np.zeros((len(slots), len(CAUSES) + len(self._columns)))  # figures over their limits
        if self._errors is not None:
            excess[:, 1 : len(CAUSES)] = self._errors.excess(current, slots)
        if self._inputs is not None:
            excess[:, len(CAUSES) :] = self._inputs.excess(current, slots)
        poor = np.maximum(excess[:, 1] / _POOR, excess[:, 2])  # unusual inputs alone make no model poor
        level = np.full(len(slots), GOOD)
        level[excess.max(axis=1) > np.where(before >= WATCH, _BETTER, 1.0)] = WATCH
        level[poor > np.where(before >= POOR, _BETTER, 1.0)] = POOR
        by_error = np.where(excess[:, 2] >= excess[:, 1] / _POOR, CAUSES.index("persistence"), CAUSES.index("error"))
        cause = np.where(level == POOR, by_error, excess.argmax(axis=1))
        turned: Flags = level != before
        cause = np.where(turned, cause, current["cause"][slots])  # the one that a verdict began with
        current["cause"][slots] = np.where(level == GOOD, 0, cause)
        current["verdict"][slots] = level
        current["verdict_since"][slots] = np.where(turned, current["time"][slots], current["verdict_since"][slots])
        return turned


class _Errors:
    """The errors of past predictions, beside those of persistence and of a ridge regression."""

    def __init__(self, contract: Contract, limits: ErrorLimits, columns: list[int]) -> None:
        self._limits, self._truth = limits, Truth(contract)
        self._scales = np.array(limits.scales)
        self._banded = contract.intervals is not None and bool(limits.coverage)
        self._numbers = 5 if self._banded else 3  # prediction, persistence, reference, bounds
        self._pending = Pending(contract, "judged", self._numbers)
        self._reference = None
        if limits.reference is not None:
            features = [contract.features[column] for column in columns]
            self._reference = _Ridge(limits.reference.lags, np.array(limits.reference.weights), features, columns)
        self.fields = [self._pending.field, ("judged_steps", "i8", ())]
        if self._reference is not None:
            self.fields.append(self._reference.field)
        self._rate = 2.0 / (limits.span_steps / JUDGED_EVERY + 1.0)

    def add(self, step: Step, counts: Flags, published: Doubles, bands: Floats | None) -> None:
        """Judge what was predicted for this step, and keep what is predicted at it."""
        due = np.flatnonzero(counts & (step.current["step"][step.slots] % JUDGED_EVERY == 0))
        truth = self._truth(step)
        if due.size:
            self._judge(step.of(due), truth[due])
        reference = truth if self._reference is None else truth + self._reference.change(step)
        said = np.empty((*truth.shape, self._numbers), np.float32)
        said[:, :, 0], said[:, :, 1], said[:, :, 2] = published, truth, reference
        if self._banded and bands is not None:
            said[:, :, 3:] = bands
        self._pending.wait(step, said)

    def _judge(self, step: Step, truth: Doubles) -> None:
        arrived = self._pending.arrived(step).astype(np.float64)
        away = [self._truth.minus(truth, arrived[:, :, place]) / self._scales for place in range(3)]
        squares = np.minimum(np.stack(away, axis=2) ** 2, _MOST_SQUARE)
        known = np.isfinite(squares).all(axis=2)  # (n, targets * horizons)
        number = known.sum(axis=1)
        judged = np.flatnonzero(number)
        if not judged.size:
            return
        squares[~known] = 0.0
        means = squares[judged].sum(axis=1) / number[judged, None]
        inside = None
        if self._banded:
            beyond = (truth < arrived[:, :, 3]) | (arrived[:, :, 4] < truth)  # False where there was no interval
            held = ~beyond & known
            inside = held[judged].sum(axis=1) / number[judged]
        self._average(step.current, step.slots[judged], means, inside)

    def _average(self, current: Records, slots: Slots, squares: Doubles, inside: Doubles | None) -> None:
        count = current["judged_steps"][slots] + 1
        current["judged_steps"][slots] = count
        rate = np.maximum(self._rate, 1.0 / count)
        names = ("model_error", "persistence_error", "reference_error")
        for name, found in zip(names, squares.T, strict=True):
            _follow(current, name, slots, found, rate)
        if inside is not None:
            _follow(current, "coverage", slots, inside, rate)
        error = np.sqrt(squares[:, 0])
        slow = np.maximum(self._rate / _SLOWER, 1.0 / count)
        usual = current["usual_error"][slots] + slow * (error - current["usual_error"][slots])
        current["usual_error"][slots] = usual
        rise = current["error_rise"][slots] + JUDGED_EVERY * (error - usual - self._limits.tolerance)
        current["error_rise"][slots] = np.clip(rise, 0.0, 2 * self._limits.rise)

    def excess(self, current: Records, slots: Slots) -> Doubles:
        """(n, 4): error, error against persistence, rise and coverage over their limits; 0 before half a span."""
        limits = self._limits
        error, naive = np.sqrt(current["model_error"][slots]), np.sqrt(current["persistence_error"][slots])
        found = np.zeros((len(slots), 4))
        found[:, 0] = error / limits.worse
        found[:, 1] = error / np.maximum(naive, 1e-12) / max(limits.against_persistence, 1e-12)
        found[:, 2] = current["error_rise"][slots] / max(limits.rise, 1e-12)
        if limits.coverage:
            least, most = limits.coverage
            held = current["coverage"][slots]
            short, long = (1 - held) / max(1 - least, 1e-12), held / max(most, 1e-12)
            found[:, 3] = np.where(np.isnan(held), 0.0, np.maximum(short, long))
        found[current["judged_steps"][slots] * JUDGED_EVERY < limits.span_steps // 2] = 0.0
        return np.nan_to_num(found)


class _Ridge:
    """The ridge regression of `Reference`. The record keeps the last samples."""

    def __init__(self, lags: int, weights: Doubles, features: list[Feature], columns: list[int]) -> None:
        self._columns = columns
        by_lag = weights.reshape(-1, lags * len(columns) + 1)[:, :-1].reshape(-1, lags, len(columns))
        mean, scale = np.array([[one.mean, one.scale] for one in features]).T
        self._weights = (by_lag / scale).reshape(len(by_lag), -1)  # of values that are not standardized
        self._constant = weights.reshape(len(by_lag), -1)[:, -1] - (by_lag * (mean / scale)).sum(axis=(1, 2))
        self.field = ("lately", "f4", (lags, len(columns)))

    def change(self, step: Step) -> Doubles:
        """(n, targets * horizons): the predicted change from the newest value."""
        current, slots = step.current, step.slots
        newest = step.values[:, None, self._columns]  # (n, 1, plain features)
        lately = np.concatenate([newest, current["lately"][slots][:, :-1]], axis=1)
        first = current["warm_steps"][slots] == 1  # before the first sample there were copies of it
        if first.any():
            lately[first] = newest[first]
        current["lately"][slots] = lately
        found: Doubles = (self._weights * lately.reshape(len(slots), 1, -1)).sum(axis=2) + self._constant
        return found


class _Inputs:
    """The shares of each input's values in the bins of the training part."""

    def __init__(self, limits: InputLimits, features: int) -> None:
        self._edges = np.array(limits.edges).reshape(features, BINS - 1)
        self._shares = np.array(limits.shares).reshape(features, BINS)
        self._limits = np.array(limits.limits)
        self._span, self._rate = limits.span_steps, 2.0 / (limits.span_steps + 1.0)
        self.fields = [("input_shares", "f4", (features, BINS)), ("looks", "i8", ())]

    def add(self, current: Records, slots: Slots, values: Floats, known: Flags) -> None:
        """Add values (n, plain features) to the averaged shares; only known ones."""
        looks = current["looks"][slots] + 1
        current["looks"][slots] = looks
        bins = (values[:, :, None] > self._edges).sum(axis=2)  # (n, features)
        here = np.arange(BINS) == bins[:, :, None]
        kept = np.where((looks == 1)[:, None, None], self._shares, current["input_shares"][slots])
        moved = kept + self._rate * (here - kept)
        current["input_shares"][slots] = np.where(known[:, :, None], moved, kept)

    def excess(self, current: Records, slots: Slots) -> Doubles:
        """(n, plain features): the index over its limit; 0 before half a span."""
        found: Doubles = stability_index(current["input_shares"][slots].astype(np.float64), self._shares) / self._limits
        found[current["looks"][slots] < self._span // 2] = 0.0
        return found


def stability_index(shares: Doubles, expected: Doubles) -> Doubles:
    """The population stability index of shares (..., bins) against those expected: sum of (p - q) log(p / q). (...,)"""
    own, usual = np.maximum(shares, _LEAST_SHARE), np.maximum(expected, _LEAST_SHARE)
    found: Doubles = ((own - usual) * np.log(own / usual)).sum(axis=-1)
    return found


def plain_features(contract: Contract) -> list[Feature]:
    """The features that are numbers on a line: no categories, no positions on a circle."""
    return [feature for feature in contract.features if not feature.categories and feature.period is None]


def index_bounds(contract: Contract) -> dict[str, tuple[int, int]]:
    """The least and the most of the fields that are indexes."""
    return {"verdict": (GOOD, POOR), "cause": (0, len(cause_names(contract)) - 1)}


def cause_names(contract: Contract) -> list[str]:
    """What `Verdicts.causes` are."""
    return [*CAUSES, *(feature.name for feature in plain_features(contract))]


def _follow(current: Records, name: str, slots: Slots, found: Doubles, rate: Doubles) -> None:
    """Move an average of these streams towards what was found, all (n,)."""
    before = current[name][slots]
    current[name][slots] = np.where(np.isnan(before), found, before + rate * (found - before))
