"""Readings to samples, a round at a time: joins partial readings, fills a grid, holds missing values, restarts at gaps.

A round holds at most one sample a stream, so that one reading and a thousand go the same way, as arrays.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_lstm.bundle.contract import Contract, Feature
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Slots
from edge_lstm.foundation.hashing import blake2b
from edge_lstm.foundation.numbers import FLOAT32_MAX
from edge_lstm.streaming.bounds import squares_below
from edge_lstm.streaming.reading import Reading
from edge_lstm.streaming.stream_table import StreamTable, rows_of

log = logging.getLogger(__name__)

_MAX_DEVIATIONS = 1e9  # standard deviations; training refuses a recording of such values

# Tuples: a fast sensor makes one of each a reading, and a frozen dataclass takes several times as long to make.


class Round(NamedTuple):
    """Samples of different streams, as arrays over them; a missing value is NaN."""

    order: Sequence[int]  # which of the readings fed they came with
    slots: Slots  # (n,)
    rows: Slots | slice  # the same, to index the table's columns with: `rows_of`
    times: Doubles  # (n,): seconds since 1970
    ids: NDArray[np.uint64]  # (n,): of the device's own sequence, 0 where the time is the identity
    given: Floats  # (n, features)
    revisions: NDArray[np.uint16]  # (n,): how often the sample was predicted before

    def part(self, chosen: Flags) -> Round:
        """Some of the readings."""
        order = [number for number, take in zip(self.order, chosen.tolist(), strict=True) if take]
        slots = self.slots[chosen]
        return Round(
            order,
            slots,
            rows_of(slots),
            self.times[chosen],
            self.ids[chosen],
            self.given[chosen],
            self.revisions[chosen],
        )


class _Arrived(NamedTuple):
    """Samples in the order in which they came; a stream may have several."""

    order: Sequence[int]  # which of the readings fed they came with
    slots: Sequence[int]
    times: Sequence[float]
    ids: Sequence[int]
    given: Floats  # (n, features)


class Samples(NamedTuple):
    """What a round of readings steps with."""

    values: Floats  # (n, features): complete, missing ones held
    missing: Flags  # (n, features): where they were
    since: Doubles  # (n,): seconds since the sample before, NaN where there was none
    restart: Flags  # (n,): whether the state started anew


class Sampler:
    """Readings into rounds, rounds into complete values."""

    def __init__(self, contract: Contract, table: StreamTable) -> None:
        self._names = [feature.name for feature in contract.features]
        self._limits = np.array([_limit(feature) for feature in contract.features], np.float32)
        self._least_limit_squared = float(self._limits.min()) ** 2
        tests = {feature.name: _measurement_test(feature) for feature in contract.features}
        self._is_measurement = {name: test for name, test in tests.items() if test is not None}
        self._max_gap_s = contract.sampling.max_gap_s or math.inf
        self._table = table
        self._grid = Grid(contract, table) if contract.sampling.grid else None
        self.gaps = 0  # silences over `max_gap_s`
        self.missing = 0  # values held

    @property
    def totals(self) -> dict[str, int]:
        """What became of readings and values here."""
        grid = {} if self._grid is None else {"duplicate": self._grid.duplicate, "late": self._grid.late}
        return {"gaps": self.gaps, "missing": self.missing, **grid}

    def rounds(self, readings: Iterable[Reading]) -> Iterator[Round]:
        """The samples in rounds: a stream's first sample in the first, its second in the second.

        A partial reading only becomes part of a round when it completes its sample; on a grid, a reading brings the
        samples of the intervals that ended before it.
        """
        taken = self._arrived(readings if isinstance(readings, Sequence) else list(readings))
        order, count = taken.order, len(taken.order)
        if not count:
            return
        slots, times = np.array(taken.slots, np.int64), np.array(taken.times, np.float64)
        ids, given, revisions = np.array(taken.ids, np.uint64), taken.given, np.zeros(count, np.uint16)
        sizes = [count]
        if len(set(taken.slots)) < count:
            places, sizes = _in_rounds(slots)
            order = [order[place] for place in places.tolist()]
            slots, times, ids, given = slots[places], times[places], ids[places], given[places]
        start = 0
        for size in sizes:  # views: a round may be as small as one sample
            at = slice(start, start + size)
            yield Round(order[at], slots[at], rows_of(slots[at]), times[at], ids[at], given[at], revisions[at])
            start += size

    def _arrived(self, readings: Sequence[Reading]) -> _Arrived:
        """The samples that the readings come to, in their order."""
        names, slot_of = self._names, self._table.slot
        if not readings:
            return _Arrived([], [], [], [], np.zeros((0, len(names)), np.float32))
        if self._is_measurement:
            readings = [self._without_sentinels(reading) for reading in readings]
        streams, times, values, sequences, partials = zip(*readings, strict=True)
        if self._grid is None and not any(partials):  # every reading is a sample
            ids = [0 if sequence is None else sequence_id(sequence) for sequence in sequences]
            given = np.empty((len(readings), len(names)), np.float32)
            for column, name in enumerate(names):
                given[:, column] = [one.get(name, math.nan) for one in values]
            return _Arrived(range(len(readings)), [slot_of(stream) for stream in streams], times, ids, given)
        order, slots, moments, ids, rows = [], [], [], [], []
        for index, reading in enumerate(readings):
            slot = slot_of(reading.stream)
            row = (
                self._join_partial(slot, reading)
                if reading.partial
                else [reading.values.get(n, math.nan) for n in names]
            )
            if row is None:
                continue
            found = [(reading.time, row)] if self._grid is None else self._grid.take(slot, reading.time, row)
            for moment, sample in found:
                order.append(index)
                slots.append(slot)
                moments.append(moment)
                ids.append(0 if reading.sequence is None or self._grid else sequence_id(reading.sequence))
                rows.append(sample)
        return _Arrived(order, slots, moments, ids, np.array(rows, np.float32).reshape(-1, len(names)))

    def _without_sentinels(self, reading: Reading) -> Reading:
        """The reading, NaN in it for what the contract takes for a missing value."""
        values = reading.values
        missing = {
            n: math.nan for n, measured in self._is_measurement.items() if n in values and not measured(values[n])
        }
        return reading._replace(values={**values, **missing}) if missing else reading

    def _join_partial(self, slot: int, reading: Reading) -> list[float] | None:
        """The whole sample where the reading completes it, else None.

        Among what waits NaN is a value that has not come, and infinity one that came and is missing.
        """
        waiting = self._table.partial_values[slot]
        for index, name in enumerate(self._names):
            if name in reading.values:
                value = reading.values[name]
                waiting[index] = value if math.isfinite(value) else math.inf
        if np.isnan(waiting).any():
            return None
        whole: list[float] = np.where(np.isinf(waiting), np.nan, waiting).tolist()
        waiting[:] = np.nan
        return whole

    def late_or_repeated(self, one: Round) -> Flags:
        """Whether each reading is not newer than its stream's last sample, or was seen before. (n,)"""
        table = self._table
        behind: Flags = one.times <= table.current["time"][one.rows]  # not where that is NaN: the first sample
        if table.seen.shape[1] and one.ids.any():
            behind |= (table.seen[one.slots] == one.ids[:, None]).any(axis=1) & (one.ids > 0)
        return behind

    def complete(self, one: Round) -> Samples:
        """The round's samples; gaps restart their streams. The table moves on to the round's times and values."""
        current, slots, rows = self._table.current, one.slots, one.rows
        since = one.times - current["time"][rows]  # NaN before the first sample: no comparison holds
        gap = since > self._max_gap_s
        if np.count_nonzero(gap):  # a tenth of what any() takes
            self.gaps += int(gap.sum())
            self._table.restart(slots[gap])
            for slot, silence in zip(slots[gap].tolist(), since[gap].tolist(), strict=True):
                log.info("stream restarts stream=%s gap_s=%.1f", self._table.name(slot), silence)
        given = one.given
        complete = squares_below(given, self._least_limit_squared)  # as it is most often
        missing = np.zeros(given.shape, np.bool_) if complete else ~(np.abs(given) <= self._limits)
        values = given
        if not complete and (held := int(np.count_nonzero(missing))):  # NumPy 2.4's own int is not what JSON takes
            self.missing += held
            values = np.where(missing, current["held"][rows], given)
        current["held"][rows] = values
        current["time"][rows] = one.times
        return Samples(values, missing, since, gap)


class Grid:
    """Readings to one sample an interval: what the interval's readings come to, and missing values where none came.

    An interval is closed by the first reading after it: nothing here looks at a clock, so that a recording and the
    service make the same samples. Its sample has the time of the interval's end. A reading that is not newer than its
    stream's newest one is dropped and counted, since what is already in a sum cannot be told from what is not. After a
    silence over the contract's `max_gap_s` the intervals between are left out, and the state starts anew.
    """

    def __init__(self, contract: Contract, table: StreamTable) -> None:
        assert contract.sampling.interval_s is not None  # its faults() say so
        assert contract.sampling.max_gap_s is not None
        self._interval_s = contract.sampling.interval_s
        self._max_gap_s = contract.sampling.max_gap_s
        self._aggregates = [feature.aggregate for feature in contract.features]
        self._categorical = [bool(feature.categories) for feature in contract.features]
        self._table = table
        self.duplicate = 0
        self.late = 0

    def take(self, slot: int, time: float, values: list[float]) -> list[tuple[float, list[float]]]:
        """The samples (time, values) of the intervals that this reading of a stream closes, oldest first."""
        open_interval = self._table.open_interval[slot]
        newest = float(open_interval["newest"])
        if time <= newest:  # not where that is NaN: the stream's first reading
            self.duplicate += time == newest
            self.late += time < newest
            return []
        number = math.floor(time / self._interval_s)
        begun = float(open_interval["interval"])
        closed: list[tuple[float, list[float]]] = []
        if not math.isnan(begun) and number > begun:
            closed.append(((begun + 1) * self._interval_s, self._sample(open_interval)))
            if (number - begun) * self._interval_s <= self._max_gap_s:
                empty = [math.nan] * len(values)
                closed += [((skipped + 1) * self._interval_s, empty) for skipped in range(int(begun) + 1, number)]
        if math.isnan(begun) or number > begun:
            open_interval["interval"], open_interval["count"], open_interval["value"] = number, 0, 0.0
        open_interval["newest"] = time
        for column, value in enumerate(values):
            if math.isfinite(value):
                self._aggregate(open_interval, column, value)
        return closed

    def _aggregate(self, open_interval: np.void, column: int, value: float) -> None:
        so_far, count, how = open_interval["value"][column], open_interval["count"][column], self._aggregates[column]
        if not count or how == "last" or self._categorical[column]:
            open_interval["value"][column] = value
        elif how == "least":
            open_interval["value"][column] = min(so_far, value)
        elif how == "most":
            open_interval["value"][column] = max(so_far, value)
        else:
            open_interval["value"][column] = so_far + value
        open_interval["count"][column] = count + 1

    def _sample(self, open_interval: np.void) -> list[float]:
        sample = []
        for value, count, how, label in zip(
            open_interval["value"].tolist(),
            open_interval["count"].tolist(),
            self._aggregates,
            self._categorical,
            strict=True,
        ):
            mean = how == "mean" and not label
            sample.append(math.nan if not count else value / count if mean else value)
        return sample


def _measurement_test(feature: Feature) -> Callable[[float], bool] | None:
    """Whether a value is a measurement, as the recording's were told from others; None where every one is."""
    if not feature.sentinels and feature.least is None and feature.most is None:
        return None
    # of as many digits as a recording's: what was float32 once says -273.20001
    codes = frozenset(np.array(feature.sentinels, np.float32).tolist())
    least = -FLOAT32_MAX if feature.least is None else feature.least
    most = FLOAT32_MAX if feature.most is None else feature.most
    return lambda value: least <= value <= most and float(np.float32(value)) not in codes


def _limit(feature: Feature) -> float:
    """What is farther from zero is missing: an average would carry it for hundreds of steps."""
    unknown = math.isnan(feature.mean) or (feature.mean, feature.scale) == (0.0, 1.0)  # a model that others made
    return FLOAT32_MAX if unknown else min(abs(feature.mean) + _MAX_DEVIATIONS * feature.scale, FLOAT32_MAX)


def _in_rounds(slots: Slots) -> tuple[Slots, list[int]]:
    """The places of samples of `slots` (n,) round by round, in a round as they came, and the sizes of the rounds."""
    by_slot = np.argsort(slots, kind="stable")
    begins = np.flatnonzero(np.diff(slots[by_slot], prepend=-1))
    number = np.empty(len(slots), np.intp)  # which of its stream's samples each is; bincount takes nothing wider
    number[by_slot] = np.arange(len(slots)) - np.repeat(begins, np.diff(begins, append=len(slots)))
    return np.argsort(number, kind="stable"), np.bincount(number).tolist()


def sequence_id(sequence: str) -> int:
    """64 bits for a device's own sequence number or id; never 0, which says that the time is the identity."""
    return int.from_bytes(blake2b(sequence.encode(), digest_size=8).digest(), "big") or 1
