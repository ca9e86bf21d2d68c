"""Which sensors of a stream are dead: stuck, gone, or out of range. Their values count as missing until they are back.

A sensor is doubted as soon as it repeats a value for longer than it ever did in training, while its value is out of
range, and for some steps after a jump. A doubted value is not used. If that goes on, or if it hardly moves for much
longer than in training, the sensor is dead, which is reported. It is back after some steps in a row with values that
are beyond doubt.
"""

from __future__ import annotations

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.sensor import Sensor
from edge_lstm.decisions.decisions import Decisions
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.decisions.sensors.sensed import Sensed
from edge_lstm.decisions.sensors.stillness import Stillness, after_values
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Records, Slots

FAULTS = ("working", "stuck", "gone", "out of range")  # a record has the index
_WORKING, _STUCK, _GONE, _OUTSIDE = range(len(FAULTS))
_MORE, _TIMES = 10.0, 1.5  # a dead sensor exceeds training by so many steps, and so many times
_FAR = 5.0  # ranges of the training part that a value may lie outside of it: faults of the machine leave it too
_OUTSIDE_STEPS = 5.0  # in a row; a single value is an outlier
_BACK_STEPS = 10.0  # beyond doubt, in a row
_USUAL_SPAN = 400.0  # steps of the average that replaces a value where the network has no mask
_EQUAL = 1  # of the kinds of being still: it repeats a value
_GAP_TIMES = 1.5  # the longest gap in training, before a sensor is gone
_LEAST_GAP = 20  # intervals

FIELDS = ("sensors", "sensor_fault")
# The rows of `sensors` in a stream's record, one number for each sensor that is watched; first those of `Stillness`.
_STILLNESS, _RUN = len(Stillness._fields), Stillness._fields.index("run")
_OUT, _AWAY, _GOOD, _SEEN, _USUAL, _USED = range(_STILLNESS, _STILLNESS + 6)
_NUMBERS = _STILLNESS + 6


class SensorWatch:
    """Watches the sensors of many streams. False where a contract has none to watch."""

    def __init__(self, contract: Contract, rules: DecisionRules) -> None:
        features = contract.features
        self._columns = watched(contract, rules)
        known = [features[column].sensor for column in self._columns]
        self._names = [feature.name for feature in features]
        self._masked = np.array([features[column].mask for column in self._columns], np.bool_)
        periods = [features[column].period for column in self._columns]
        self._periods = np.array([np.nan if period is None else period for period in periods])
        self._masked |= ~np.isnan(self._periods)  # on a circle, an average of values may be none of them
        self._still = np.array([-1.0 if one is None else one.still for one in known])
        self._limits = _Limits(known)
        ranges = [(-np.inf, np.inf) if one is None else _range(one) for one in known]
        self._low, self._high = np.array(ranges).reshape(-1, 2).T
        widths = [np.inf if one is None or one.most <= one.least else one.most - one.least for one in known]
        self._jump = np.where(np.isnan(self._periods), np.array(widths, np.float64), np.inf)
        self._waits = np.array([0 if one is None else one.still_steps + 1 for one in known], np.float64)
        self._timeout_s = np.array([_timeout_s(one, contract, rules) for one in known])

    def __bool__(self) -> bool:
        return bool(self._columns)

    def __call__(
        self,
        current: Records,
        slots: Slots,
        times: Doubles,
        restart: Flags,
        held: Floats,
        values: Floats,
        missing: Flags,
    ) -> Sensed:
        """The sensors at a step of the streams `slots` (n,), whose records are updated.

        times (n,): of the samples; restart (n,): whether the stream restarts after a gap; held (n, features): the
        values that were used last; values, missing (n, features): the samples, where a missing one is held.
        """
        columns = self._columns
        found, measured = values[:, columns].astype(np.float64), ~missing[:, columns]
        numbers = current["sensors"][slots]  # (n, _NUMBERS, sensors)
        stillness = after_values(
            Stillness(*np.swapaxes(numbers[:, :_STILLNESS], 0, 1)), found, self._still, self._periods, measured
        )
        for row, of_row in enumerate(stillness):
            numbers[:, row] = of_row
        doubted, stuck = self._limits(stillness)
        inside = (found >= self._low) & (found <= self._high)
        outside = _counted(numbers, _OUT, ~inside & measured, _OUTSIDE_STEPS)
        seen = _last_seen(numbers, times[:, None], measured | restart[:, None])
        gone = ~measured & (times[:, None] - seen >= self._timeout_s)
        fault = np.where(gone, _GONE, np.where(outside >= _OUTSIDE_STEPS, _OUTSIDE, np.where(stuck, _STUCK, _WORKING)))
        first = current["step"][slots][:, None] == 0
        bad = doubted | (measured & ~inside) | self._has_jumped(numbers, found - held[:, columns], measured & ~first)
        before = current["sensor_fault"][slots].astype(np.int64)
        good = np.where(bad | gone | (before == _WORKING), 0.0, np.minimum(numbers[:, _GOOD] + measured, _BACK_STEPS))
        numbers[:, _GOOD] = good
        faults = np.where(before == _WORKING, fault, np.where(good >= _BACK_STEPS, _WORKING, before))
        dead = faults != _WORKING
        left_out = bad | dead
        usual = _usual(numbers, found, measured & ~left_out)
        current["sensors"][slots], current["sensor_fault"][slots] = numbers, faults
        used, missing = values.copy(), missing.copy()
        replaced = np.where(dead & ~self._masked, usual, held[:, columns])
        used[:, columns] = np.where(left_out, replaced, values[:, columns])
        missing[:, columns] |= left_out
        current["held"][slots] = used
        reported = np.zeros(missing.shape, np.uint8)
        reported[:, columns] = faults
        uncertain, turned = (left_out & ~dead).any(axis=1), (faults != before).any(axis=1)
        return Sensed(used, missing, uncertain, turned, reported)

    def decided(self, decisions: Decisions, sensed: Sensed) -> Decisions:
        """The decisions with the names of dead sensors."""
        faults = sensed.faults
        if not faults.any():
            nothing: list[tuple[str, ...]] = [()] * len(faults)
            return decisions._replace(degraded=nothing, faults=faults, turned=decisions.turned | sensed.turned)
        names = self._names
        degraded = [tuple([names[at] for at in np.flatnonzero(row).tolist()]) for row in faults != _WORKING]
        return decisions._replace(degraded=degraded, faults=faults, turned=decisions.turned | sensed.turned)

    def dead(self, record: np.void) -> dict[str, str]:
        """The dead sensors in a stream's record, each with its fault."""
        codes = zip(self._columns, record["sensor_fault"].tolist(), strict=True)
        return {self._names[column]: FAULTS[code] for column, code in codes if code}

    def _has_jumped(self, numbers: Doubles, away: Doubles, measured: Flags) -> Flags:
        """(n, sensors): whether a value jumped by more than the range of training, and has hardly moved since.

        A sensor that dies may do so, and then stands still; a machine that fails may too, and goes on to move.
        """
        steps = _counted(numbers, _AWAY, measured & (np.abs(away) > self._jump), self._waits + 1)
        found: Flags = (steps > 0) & (steps <= self._waits) & (numbers[:, _RUN] >= steps)
        return found


def _counted(numbers: Doubles, row: int, happens: Flags, most: Doubles | float) -> Doubles:
    """(n, sensors): for how many steps in a row something happens, `most` at most."""
    steps: Doubles = np.where(happens, np.minimum(numbers[:, row] + 1.0, most), 0.0)
    numbers[:, row] = steps
    return steps


def _last_seen(numbers: Doubles, now: Doubles, measured: Flags) -> Doubles:
    """(n, sensors): when each sensor gave its last value; 0 is never."""
    seen = numbers[:, _SEEN]
    seen = np.where(measured | (seen == 0) | (seen > now), now, seen)
    numbers[:, _SEEN] = seen
    return seen


def _usual(numbers: Doubles, values: Doubles, trusted: Flags) -> Doubles:
    """(n, sensors): the average of the values that were trusted."""
    count = np.minimum(numbers[:, _USED] + trusted, _USUAL_SPAN)
    rate = np.where(trusted, np.maximum(1.0 / np.maximum(count, 1.0), 2.0 / (_USUAL_SPAN + 1.0)), 0.0)
    usual = np.where(rate == 1.0, values, numbers[:, _USUAL] + rate * (values - numbers[:, _USUAL]))
    numbers[:, _USED], numbers[:, _USUAL] = count, usual
    return usual


class _Limits:
    """For how many steps each sensor may be still, or repeat its value."""

    def __init__(self, known: list[Sensor | None]) -> None:
        shape = (len(known), max([0 if one is None else len(one.levels) for one in known], default=0))
        self._levels, self._reach = np.full(shape, np.nan), np.zeros((len(known), 1))
        self._at_levels = np.zeros((2, *shape))  # still, equal
        self._base = np.full((2, len(known)), np.inf)
        for place, one in enumerate(known):
            if one is not None:
                self._base[:, place] = one.still_steps, one.equal_steps
                self._levels[place, : len(one.levels)], self._reach[place] = one.levels, one.reach
                self._at_levels[:, place, : len(one.levels)] = one.level_still_steps, one.level_equal_steps

    def __call__(self, stillness: Stillness) -> tuple[Flags, Flags]:
        """(n, sensors) each: whether a sensor is doubted, and whether it is stuck."""
        runs = (stillness.run, stillness.equal)
        doubted = (runs[0] > self._base[0]) | (runs[1] > self._base[1])
        if not doubted.any():
            return doubted, doubted
        stuck, doubted = np.zeros_like(doubted), np.zeros_like(doubted)
        for kind, (run, value) in enumerate(zip(runs, (stillness.mean, stillness.last), strict=True)):
            near = np.abs(value[:, :, None] - self._levels) <= self._reach
            longest = np.where(near, self._at_levels[kind], 0.0).max(axis=2, initial=0.0)
            longest = np.maximum(longest, self._base[kind])
            stuck |= run > np.maximum(longest + _MORE, np.floor(_TIMES * longest))
            if kind == _EQUAL:  # a value that hardly moves may be right: without it, a forecast would be worse
                doubted |= run > longest
        return doubted | stuck, stuck


def watched(contract: Contract, rules: DecisionRules) -> list[int]:
    """The columns of the features that are watched: with statistics; by a timeout all that are measured."""
    timed = rules.sensor_timeout_s is not None
    told = {name for one in contract.known_ahead for name in one.features}  # of no sensor
    features = enumerate(contract.features)
    return [column for column, one in features if one.sensor is not None or (timed and one.name not in told)]


def record_fields(contract: Contract, rules: DecisionRules) -> list[tuple[str, str, tuple[int, ...]]]:
    """The fields (name, type, shape) of a stream's record for its sensors."""
    count = len(watched(contract, rules))
    return [("sensors", "f8", (_NUMBERS, count)), ("sensor_fault", "u1", (count,))] if count else []


def count_bounds(contract: Contract, rules: DecisionRules) -> dict[str, tuple[int, int]]:
    """The least and the most of these fields that are indexes."""
    return {"sensor_fault": (0, len(FAULTS) - 1)} if watched(contract, rules) else {}


def _range(known: Sensor) -> tuple[float, float]:
    """The values between which a sensor may be working."""
    far = _FAR * (known.most - known.least)
    return known.least - far, known.most + far


def _timeout_s(known: Sensor | None, contract: Contract, rules: DecisionRules) -> float:
    """Seconds without a value after which a sensor is gone."""
    if rules.sensor_timeout_s is not None or known is None:
        return np.inf if rules.sensor_timeout_s is None else rules.sensor_timeout_s
    return max(_GAP_TIMES * known.gap_s, _LEAST_GAP * (contract.sampling.interval_s or np.inf))
