"""Readings to samples in rounds; counts, holds missing values, and restarts states after gaps.

A round holds at most one sample of each stream, as arrays. One reading and a thousand take the same path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_lstm.bundle.contract import Contract, Feature
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Slots
from edge_lstm.foundation.numbers import FLOAT32_MAX
from edge_lstm.foundation.times.text import format_time
from edge_lstm.streaming.bounds import squares_below
from edge_lstm.streaming.reading import Reading
from edge_lstm.streaming.sampling.counters import Counters, counter_columns, value_type
from edge_lstm.streaming.sampling.grid import Grid
from edge_lstm.streaming.sampling.joining import ABSENT, Joiner
from edge_lstm.streaming.sampling.sequences import (
    UNDER_WAY,
    Sequences,
    is_known,
    sequence_id,
    sequences_of,
    wrapped_bits,
)
from edge_lstm.streaming.sampling.step_costs import StepCosts
from edge_lstm.streaming.stream_table import StreamTable, rows_of
from edge_lstm.streaming.stream_watch import StreamWatch

_is_restart = attrgetter("restart")
_MAX_DEVIATIONS = 1e9  # standard deviations from the mean; training refuses a recording with such values

# Named tuples: each reading makes one of each, and making a frozen dataclass takes several times as long.


class Round(NamedTuple):
    """One sample of each of n streams, as arrays. A missing value is NaN."""

    order: Sequence[int]  # index of the reading that brought the sample
    slots: Slots  # (n,)
    rows: Slots | slice  # the slots as an index of the table's columns, see `rows_of`
    times: Doubles  # (n,): seconds since 1970
    ids: NDArray[np.uint64]  # (n,): from the device's sequence number; 0: the time identifies the sample
    given: NDArray[Any]  # (n, features): float32, or float64 where the contract has counters, as they were read
    revisions: NDArray[np.uint64]  # (n,): how many predictions the sample had before
    sequences: Sequences | None = None  # None: no reading has one, or the table keeps none

    def part(self, chosen: Flags) -> Round:
        """The chosen samples."""
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
            None if self.sequences is None else self.sequences.at(chosen),
        )


class _SampleList(NamedTuple):
    """Samples in the order of arrival. A stream may have several."""

    order: Sequence[int]  # index of the reading that brought the sample
    slots: Sequence[int]
    times: Sequence[float]
    ids: Sequence[int]
    given: NDArray[Any]  # (n, features)
    sequences: Sequences | None = None


class Samples(NamedTuple):
    """The complete samples of a round."""

    values: Floats  # (n, features): missing ones replaced by the last value
    missing: Flags  # (n, features)
    since: Doubles  # (n,): seconds since the previous sample, NaN at the first one
    restart: Flags  # (n,): whether the state was restarted


class Sampler:
    """Turns readings into rounds, and rounds into complete samples."""

    def __init__(
        self,
        contract: Contract,
        table: StreamTable,
        join_within_s: float | None = None,
        watch: StreamWatch | None = None,
        max_steps: int = 0,
    ) -> None:
        """`join_within_s`: see `Joiner`. `watch` gets readings that are dropped, and restarts.

        `max_steps`: a reading that causes more on a grid is dropped; 0: none is.
        """
        self._names = [feature.name for feature in contract.features]
        self._limits = np.array([limit_of(feature) for feature in contract.features], np.float32)
        self._least_limit_squared = float(self._limits.min()) ** 2
        tests = {feature.name: _measurement_test(feature) for feature in contract.features}
        self._is_measurement = {name: test for name, test in tests.items() if test is not None}
        self._max_gap_s = contract.sampling.max_gap_s or math.inf
        self._table = table
        self._value_type = value_type(contract)
        self._counted = counter_columns(contract)
        self._counters = None if contract.sampling.grid else Counters.of(contract)  # a grid counts by itself
        self._watch = watch or StreamWatch(contract.sampling)
        ahead = contract.ahead_columns
        # the values that identify a reading: it may come again with another forecast
        self._identifying = np.delete(np.arange(len(self._names)), ahead) if ahead else slice(None)
        self._grid = Grid(contract, table) if contract.sampling.grid else None
        self._joiner = Joiner(contract, table, join_within_s)
        self._costs = StepCosts(contract, table, max_steps)
        self._max_steps = max_steps
        self.has_restarts = False  # whether a stream begins again between these rounds
        self.gaps = 0  # silences longer than `max_gap_s`
        self.missing = 0  # values replaced by the last one

    @property
    def part_window_s(self) -> float:
        """How far apart the parts of a sample may be, if the device gave their times."""
        return self._joiner.within_s

    @property
    def totals(self) -> dict[str, int]:
        """Counts of gaps and missing values, and of duplicate and late readings that were dropped."""
        return {"gaps": self.gaps, "missing": self.missing, **self._watch.counts}

    def affordable(self, readings: Sequence[Reading], most_steps: int) -> int:
        """How many of the readings, from the first on, cause at most so many steps; at least one, if there is one."""
        return self._costs.affordable(readings, most_steps)

    def rounds(self, readings: Iterable[Reading]) -> Iterator[Round]:
        """The samples in rounds: a stream's first sample is in the first round, its second one in the second.

        A partial reading adds a sample if it completes one, or closes an incomplete one. On a grid, a reading adds the
        samples of the intervals that ended before it.

        A stream that restarts at a reading does so when all rounds before that reading were taken from the iterator:
        their samples are stepped with the state before.
        """
        readings = readings if isinstance(readings, Sequence) else list(readings)
        self.has_restarts = any(map(_is_restart, readings))
        if not self.has_restarts:
            yield from self._rounds(self._sample_list(readings))
            return
        for begin, part in _split_at_restarts(readings):
            restarts = {
                self._table.slot(reading.stream): index
                for index, reading in enumerate(part)
                if reading.restart and not self._was_received(reading)
            }
            for one in self._rounds(self._open_samples(restarts)):
                yield _counted_from(begin, one)
            for slot, index in restarts.items():
                steps = int(self._table.current["step"][slot])
                self._watch.restarted(self._table.name(slot), steps, part[index].time)
            self._table.begin_again(np.array(list(restarts), np.int64))
            for one in self._rounds(self._sample_list(part)):
                yield _counted_from(begin, one)

    def _was_received(self, reading: Reading) -> bool:
        """Whether the stream has stepped this reading before: it is a duplicate then, and restarts nothing."""
        table, slot = self._table, self._table.slot(reading.stream)
        if self._grid is not None:
            return reading.time == self._grid.newest(slot)
        trail = table.trail[slot, : table.trail_length[slot]]
        same_time = trail["time"] == reading.time
        if reading.sequence is not None:
            found = same_time & (trail["id"] == sequence_id(reading.sequence))
            return bool(found.any()) or self._is_repeated(slot, int(self._sequences(reading).keys[0]))
        return bool(same_time.any()) or reading.time == float(table.current["time"][slot])

    def _open_samples(self, restarts: Mapping[int, int]) -> _SampleList:
        """The samples that a restart ends: incomplete ones, on a grid those of open intervals.

        `restarts`: by slot, the index of the reading.
        """
        take = self._joiner.take_waiting if self._grid is None else self._grid.open_sample
        self._joiner.begin_batch()
        found = [(slot, *take(slot)) for slot in restarts]
        begun = [(slot, time, sample) for slot, time, sample in found if not math.isnan(time)]
        slots = [slot for slot, _, _ in begun]
        given = np.array([sample for _, _, sample in begun], self._value_type).reshape(-1, len(self._names))
        return _SampleList(
            [restarts[slot] for slot in slots], slots, [time for _, time, _ in begun], [0] * len(begun), given
        )

    def _rounds(self, taken: _SampleList) -> Iterator[Round]:
        """The samples in rounds."""
        order, count = taken.order, len(taken.order)
        if not count:
            return
        slots, times = np.array(taken.slots, np.int64), np.array(taken.times, np.float64)
        ids, given, revisions = np.array(taken.ids, np.uint64), taken.given, np.zeros(count, np.uint64)
        sizes, sequences = [count], taken.sequences
        if len(set(taken.slots)) < count:
            places, sizes = _sort_into_rounds(slots)
            order = [order[place] for place in places.tolist()]
            slots, times, ids, given = slots[places], times[places], ids[places], given[places]
            sequences = None if sequences is None else sequences.at(places)
        start = 0
        for size in sizes:  # views: a round may be as small as one sample
            at = slice(start, start + size)
            numbered = None if sequences is None else sequences.at(at)
            arrays = times[at], ids[at], given[at], revisions[at]
            yield Round(order[at], slots[at], rows_of(slots[at]), *arrays, numbered)
            start += size

    def _sample_list(self, readings: Sequence[Reading]) -> _SampleList:
        """The samples of the readings, in their order."""
        names = self._names
        if not readings:
            return _SampleList([], [], [], [], np.zeros((0, len(names)), self._value_type))
        if self._is_measurement:
            readings = [self._without_sentinels(reading) for reading in readings]
        streams, times, values, sequences, partials, _, arrived = zip(*readings, strict=True)
        slots = self._table.slots(streams)  # first: a store that fails leaves every sample as it was
        if self._grid is not None or any(partials) or self._joins(slots):
            return self._joined(slots, readings)
        ids = [0 if sequence is None else sequence_id(sequence) for sequence in sequences]  # every reading is a sample
        given = np.empty((len(readings), len(names)), self._value_type)
        for column, name in enumerate(names):
            given[:, column] = [one.get(name, math.nan) for one in values]
        numbered = None
        if self._table.seen.shape[1] and any(ids):
            own = given[:, self._identifying]
            numbered = sequences_of(sequences, np.array(ids, np.uint64), np.array(times, np.float64), own, arrived)
        return _SampleList(range(len(readings)), slots, times, ids, given, numbered)

    def _joined(self, known: Sequence[int], readings: Sequence[Reading]) -> _SampleList:
        """The samples of readings in these slots (n,) that are parts of samples, or go into the intervals of a grid."""
        order: list[int] = []
        slots, moments, rows, ids, texts = [], [], [], [], []
        self._joiner.begin_batch()
        for index, (slot, reading) in enumerate(zip(known, readings, strict=True)):
            is_new = self._joiner.is_newest(slot, reading.time)
            for moment, sample in self._samples(slot, reading):
                own = reading.sequence if moment == reading.time and not reading.partial else None
                own = own if self._grid is None else None
                order.append(index)
                slots.append(slot)
                moments.append(moment)
                rows.append(sample)
                ids.append(0 if own is None else sequence_id(own))
                texts.append(None if is_new else own)  # `_samples` has noted the sequence of a new one
        given = np.array(rows, self._value_type).reshape(-1, len(self._names))
        numbered = None
        if self._table.seen.shape[1] and any(texts):
            arrived = [readings[index].arrived for index in order]
            keyed = [0 if text is None else number for text, number in zip(texts, ids, strict=True)]
            own_values = given[:, self._identifying]
            numbered = sequences_of(
                texts, np.array(keyed, np.uint64), np.array(moments, np.float64), own_values, arrived
            )
        return _SampleList(order, slots, moments, ids, given, numbered)

    def _samples(self, slot: int, reading: Reading) -> Sequence[tuple[float, list[float]]]:
        """The samples (time, values) that a reading completes or closes, oldest first."""
        time, joiner = reading.time, self._joiner
        if self._grid is not None and self._max_steps:
            begun, number = self._grid.intervals(slot, time)
            if self._costs.closed(begun, number) is None:
                found = f"it would end {number - begun:.0f} intervals of the grid"
                self._drop(slot, "costly", f"{found}, more than max_steps_per_reading={self._max_steps}")
                return []
        row, key = joiner.row(reading.values), 0
        # late ones are identified when they step, parts with a time of their own by that
        at_once = reading.arrived if reading.partial else joiner.is_newest(slot, time)
        if reading.sequence is not None and (self._grid is not None or at_once):
            sequences = self._sequences(reading)
            key = int(sequences.keys[0])
            if self._is_repeated(slot, key):
                self._drop(slot, "duplicate", f"its sequence {reading.sequence} was received before")
                return []
            self.note_sequences(np.array([slot]), sequences)
        if self._grid is None:
            if not reading.partial:
                return joiner.take_whole(slot, time, _without_absent(row), reading.arrived)
            joined = joiner.take(slot, time, row, reading.arrived)
            if not joined.is_used:
                self._drop(slot, "duplicate", f"its values of {format_time(time)} were received before")
            return joined.samples
        # rows of before the keys were kept do not distinguish readings of one time
        is_new = bool(key) and int(self._table.identities[slot]) > 1
        newest = self._grid.newest(slot)
        if reading.partial:
            taken = self._grid.take_part(slot, time, row, is_new)
        else:
            taken = self._grid.take(slot, time, _without_absent(row), is_new)
        if taken.fate:
            where = f"{newest - time:.1f} s before" if time < newest else "at"
            self._drop(slot, taken.fate, f"it lies {where} the stream's newest one, and a grid takes only newer ones")
        return taken.samples

    def _joins(self, slots: Sequence[int]) -> bool:
        """Whether one of these slots has an incomplete sample."""
        return self._table.any_partial and not np.isnan(self._table.partial_values[slots]).all()

    def _sequences(self, reading: Reading) -> Sequences:
        """The key and number of one reading with a sequence."""
        assert reading.sequence is not None
        row = self._joiner.row(reading.values)
        given = np.array([row if reading.partial else _without_absent(row)], self._value_type)
        ids, times = np.array([sequence_id(reading.sequence)], np.uint64), np.array([reading.time])
        return sequences_of([reading.sequence], ids, times, given[:, self._identifying], [reading.arrived])

    def _is_repeated(self, slot: int, key: int) -> bool:
        """Whether the stream has received a reading of this key."""
        table = self._table
        return table.seen.shape[1] > 0 and is_known(key, table.seen[slot], int(table.identities[slot]))

    def note_sequences(self, slots: Slots, sequences: Sequences) -> None:
        """Keep the keys of new readings of these slots (n,); log where a device's counter wrapped or began again."""
        table, (keys, numbers, arrived) = self._table, sequences
        if not table.seen.shape[1] or not len(slots):
            return
        table.note_keys(slots, keys)
        last = table.last_number[slots]
        fell = (numbers >= 0) & (numbers < last)
        again = fell & arrived & (last - numbers <= UNDER_WAY)  # sent again, or overtaken by later ones
        for index in np.flatnonzero(fell & ~again).tolist():
            before, number = int(last[index]), int(numbers[index])
            self._watch.number_fell(table.name(int(slots[index])), before, number, wrapped_bits(before, number))
        table.last_number[slots] = np.where((numbers >= 0) & ~again, numbers, last)

    def _drop(self, slot: int, fate: str, reason: str) -> None:
        self._watch.dropped(self._table.name(slot), fate, reason, int(self._table.current["step"][slot]))

    def _without_sentinels(self, reading: Reading) -> Reading:
        """The reading, with NaN for each value that the contract declares missing."""
        values = reading.values
        missing = {
            n: math.nan for n, measured in self._is_measurement.items() if n in values and not measured(values[n])
        }
        return reading._replace(values={**values, **missing}) if missing else reading

    def late_or_repeated(self, one: Round) -> Flags:
        """Whether each sample is not newer than the last one of its stream, or its sequence was seen before. (n,)"""
        table = self._table
        behind: Flags = one.times <= table.current["time"][one.rows]  # False for NaN, the time before the first sample
        if one.sequences is not None:
            keys = one.sequences.keys
            behind |= (table.seen[one.slots] == keys[:, None]).any(axis=1) & (keys > 0)
        return behind

    def complete(self, one: Round) -> Samples:
        """The round's complete samples. Restarts streams after gaps, and stores times and values in the table."""
        current, slots, rows = self._table.current, one.slots, one.rows
        since = one.times - current["time"][rows]  # NaN at the first sample, for which no comparison is true
        gap = since > self._max_gap_s
        if np.count_nonzero(gap):  # takes a tenth of the time of any()
            self.gaps += 0 if self._watch.is_repeating else int(gap.sum())
            self._table.restart(slots[gap])
            steps = current["step"][slots[gap]].tolist()
            columns = (slots[gap].tolist(), steps, one.times[gap].tolist(), since[gap].tolist())
            for slot, step, time, silence in zip(*columns, strict=True):
                self._watch.restarted(self._table.name(slot), step, time, silence)
        given = self._increases(one, gap) if self._counters else one.given
        complete = squares_below(given, self._least_limit_squared)  # the usual case
        missing = np.zeros(given.shape, np.bool_) if complete else ~(np.abs(given) <= self._limits)
        values = given
        if not complete and (held := int(np.count_nonzero(missing))):  # int(): json refuses NumPy's
            self.missing += held
            values = np.where(missing, current["held"][rows], given)
        current["held"][rows] = values
        current["time"][rows] = one.times
        return Samples(values, missing, since, gap)

    def _increases(self, one: Round, gap: Flags) -> Floats:
        """The samples (n, features) with increases in place of counters, which are updated in the table."""
        assert self._counters is not None  # the caller checks it
        columns, current = self._counted, self._table.current
        forget = gap | np.isnan(current["time"][one.rows])
        readings = one.given[:, columns]
        found, memory = self._counters.increases(current["counted"][one.slots], readings, forget)
        current["counted"][one.slots] = memory
        given = one.given.astype(np.float32)
        given[:, columns] = found
        return given


def _measurement_test(feature: Feature) -> Callable[[float], bool] | None:
    """A test whether a value is a measurement, by the rules for recordings; None: every value is one."""
    if not feature.sentinels and feature.least is None and feature.most is None:
        return None
    # compared in float32, as in a recording: -273.2 becomes -273.20001
    codes = frozenset(np.array(feature.sentinels, np.float32).tolist())
    least = -FLOAT32_MAX if feature.least is None else feature.least
    most = FLOAT32_MAX if feature.most is None else feature.most
    return lambda value: least <= value <= most and float(np.float32(value)) not in codes


def limit_of(feature: Feature) -> float:
    """The largest magnitude of a measurement. A larger one counts as missing: averages would carry it for long."""
    unknown = math.isnan(feature.mean) or (feature.mean, feature.scale) == (0.0, 1.0)  # a model without statistics
    return FLOAT32_MAX if unknown else min(abs(feature.mean) + _MAX_DEVIATIONS * feature.scale, FLOAT32_MAX)


def _split_at_restarts(readings: Sequence[Reading]) -> Iterator[tuple[int, Sequence[Reading]]]:
    """The readings in parts, each with the index of its first one. In its part, a restart is its stream's first."""
    begin = 0
    streams: set[str] = set()
    for index, reading in enumerate(readings):
        if reading.restart and reading.stream in streams:
            yield begin, readings[begin:index]
            begin, streams = index, set()
        streams.add(reading.stream)
    yield begin, readings[begin:]


def _counted_from(begin: int, one: Round) -> Round:
    """The round of a part of the readings, with indexes among all readings."""
    return one._replace(order=[begin + index for index in one.order])


def _without_absent(row: list[float]) -> list[float]:
    """The values of a reading that is a whole sample: an absent one is missing."""
    return [math.nan if value == ABSENT else value for value in row]


def _sort_into_rounds(slots: Slots) -> tuple[Slots, list[int]]:
    """The indexes of the samples of `slots` (n,) round by round, in a round by arrival, and the sizes of the rounds."""
    by_slot = np.argsort(slots, kind="stable")
    begins = np.flatnonzero(np.diff(slots[by_slot], prepend=-1))
    number = np.empty(len(slots), np.intp)  # its number among its stream's samples; bincount takes no wider type
    number[by_slot] = np.arange(len(slots)) - np.repeat(begins, np.diff(begins, append=len(slots)))
    return np.argsort(number, kind="stable"), np.bincount(number).tolist()
