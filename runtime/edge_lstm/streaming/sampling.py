"""Readings to samples in rounds: joins partial readings, fills a grid, counts, holds missing values, sees gaps.

A round holds at most one sample of each stream, as arrays. One reading and a thousand take the same path.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_lstm.bundle.contract import Contract, Feature
from edge_lstm.decisions.angles import position, sine_and_cosine
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Slots
from edge_lstm.foundation.hashing import blake2b
from edge_lstm.foundation.numbers import FLOAT32_MAX
from edge_lstm.streaming.bounds import squares_below
from edge_lstm.streaming.counters import Counters, counter_columns, value_type
from edge_lstm.streaming.reading import Reading
from edge_lstm.streaming.stream_table import StreamTable, rows_of

log = logging.getLogger(__name__)

_OPPOSED = 1e-9  # length of a mean direction that is none: readings from all sides cancel
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
    revisions: NDArray[np.uint16]  # (n,): how many predictions the sample had before

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
        )


class _SampleList(NamedTuple):
    """Samples in the order of arrival. A stream may have several."""

    order: Sequence[int]  # index of the reading that brought the sample
    slots: Sequence[int]
    times: Sequence[float]
    ids: Sequence[int]
    given: NDArray[Any]  # (n, features)


class Samples(NamedTuple):
    """The complete samples of a round."""

    values: Floats  # (n, features): missing ones replaced by the last value
    missing: Flags  # (n, features)
    since: Doubles  # (n,): seconds since the previous sample, NaN at the first one
    restart: Flags  # (n,): whether the state was restarted


class Sampler:
    """Turns readings into rounds, and rounds into complete samples."""

    def __init__(self, contract: Contract, table: StreamTable) -> None:
        self._names = [feature.name for feature in contract.features]
        self._limits = np.array([_limit(feature) for feature in contract.features], np.float32)
        self._least_limit_squared = float(self._limits.min()) ** 2
        tests = {feature.name: _measurement_test(feature) for feature in contract.features}
        self._is_measurement = {name: test for name, test in tests.items() if test is not None}
        self._max_gap_s = contract.sampling.max_gap_s or math.inf
        self._table = table
        self._value_type = value_type(contract)
        self._counted = counter_columns(contract)
        self._counters = None if contract.sampling.grid else Counters.of(contract)  # a grid counts by itself
        self._grid = Grid(contract, table) if contract.sampling.grid else None
        self.gaps = 0  # silences longer than `max_gap_s`
        self.missing = 0  # values replaced by the last one

    @property
    def totals(self) -> dict[str, int]:
        """Counts of gaps and missing values; on a grid, of duplicate and late readings."""
        grid = {} if self._grid is None else {"duplicate": self._grid.duplicate, "late": self._grid.late}
        return {"gaps": self.gaps, "missing": self.missing, **grid}

    def rounds(self, readings: Iterable[Reading]) -> Iterator[Round]:
        """The samples in rounds: a stream's first sample is in the first round, its second one in the second.

        A partial reading adds a sample only when it completes one. On a grid, a reading adds the samples of the
        intervals that ended before it.
        """
        taken = self._sample_list(readings if isinstance(readings, Sequence) else list(readings))
        order, count = taken.order, len(taken.order)
        if not count:
            return
        slots, times = np.array(taken.slots, np.int64), np.array(taken.times, np.float64)
        ids, given, revisions = np.array(taken.ids, np.uint64), taken.given, np.zeros(count, np.uint16)
        sizes = [count]
        if len(set(taken.slots)) < count:
            places, sizes = _sort_into_rounds(slots)
            order = [order[place] for place in places.tolist()]
            slots, times, ids, given = slots[places], times[places], ids[places], given[places]
        start = 0
        for size in sizes:  # views: a round may be as small as one sample
            at = slice(start, start + size)
            yield Round(order[at], slots[at], rows_of(slots[at]), times[at], ids[at], given[at], revisions[at])
            start += size

    def _sample_list(self, readings: Sequence[Reading]) -> _SampleList:
        """The samples of the readings, in their order."""
        names, slot_of = self._names, self._table.slot
        if not readings:
            return _SampleList([], [], [], [], np.zeros((0, len(names)), self._value_type))
        if self._is_measurement:
            readings = [self._without_sentinels(reading) for reading in readings]
        streams, times, values, sequences, partials = zip(*readings, strict=True)
        if self._grid is None and not any(partials):  # every reading is a sample
            ids = [0 if sequence is None else sequence_id(sequence) for sequence in sequences]
            given = np.empty((len(readings), len(names)), self._value_type)
            for column, name in enumerate(names):
                given[:, column] = [one.get(name, math.nan) for one in values]
            return _SampleList(range(len(readings)), [slot_of(stream) for stream in streams], times, ids, given)
        order, slots, moments, ids, rows = [], [], [], [], []
        known = [slot_of(stream) for stream in streams]  # first: a store that fails leaves every sample as it was
        for index, (slot, reading) in enumerate(zip(known, readings, strict=True)):
            if reading.partial:
                row = self._join_partial(slot, reading)
            else:
                row = [reading.values.get(name, math.nan) for name in names]
            if row is None:
                continue
            found = [(reading.time, row)] if self._grid is None else self._grid.take(slot, reading.time, row)
            for moment, sample in found:
                order.append(index)
                slots.append(slot)
                moments.append(moment)
                ids.append(0 if reading.sequence is None or self._grid else sequence_id(reading.sequence))
                rows.append(sample)
        return _SampleList(order, slots, moments, ids, np.array(rows, self._value_type).reshape(-1, len(names)))

    def _without_sentinels(self, reading: Reading) -> Reading:
        """The reading, with NaN for each value that the contract declares missing."""
        values = reading.values
        missing = {
            n: math.nan for n, measured in self._is_measurement.items() if n in values and not measured(values[n])
        }
        return reading._replace(values={**values, **missing}) if missing else reading

    def _join_partial(self, slot: int, reading: Reading) -> list[float] | None:
        """The complete sample if the reading completes it, else None.

        In `partial_values`, NaN is a value that has not arrived, and infinity one that arrived as missing.
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
        """Whether each sample is not newer than the last one of its stream, or its identity was seen before. (n,)"""
        table = self._table
        behind: Flags = one.times <= table.current["time"][one.rows]  # False for NaN, the time before the first sample
        if table.seen.shape[1] and one.ids.any():
            behind |= (table.seen[one.slots] == one.ids[:, None]).any(axis=1) & (one.ids > 0)
        return behind

    def complete(self, one: Round) -> Samples:
        """The round's complete samples. Restarts streams after gaps, and stores times and values in the table."""
        current, slots, rows = self._table.current, one.slots, one.rows
        since = one.times - current["time"][rows]  # NaN at the first sample, for which no comparison is true
        gap = since > self._max_gap_s
        if np.count_nonzero(gap):  # takes a tenth of the time of any()
            self.gaps += int(gap.sum())
            self._table.restart(slots[gap])
            for slot, silence in zip(slots[gap].tolist(), since[gap].tolist(), strict=True):
                log.info("stream restarts stream=%s gap_s=%.1f", self._table.name(slot), silence)
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


class Grid:
    """Turns readings into one sample an interval, with missing values for an interval without readings.

    The first reading after an interval closes it. No clock is read, so a recording and the service give the same
    samples. A sample has the time of its interval's end. A reading that is not newer than the newest one of its stream
    is dropped and counted: it could be in the interval's sum already. After a silence longer than `max_gap_s` the
    intervals between get no samples, and the state restarts.
    """

    def __init__(self, contract: Contract, table: StreamTable) -> None:
        assert contract.sampling.interval_s is not None  # checked by Sampling.faults
        assert contract.sampling.max_gap_s is not None
        self._interval_s = contract.sampling.interval_s
        self._max_gap_s = contract.sampling.max_gap_s
        self._aggregates = ["sum" if feature.counter else feature.aggregate for feature in contract.features]
        circles = [index for index, feature in enumerate(contract.features) if feature.period is not None]
        self._circles = {
            column: (place, float(contract.features[column].period or 0.0))
            for place, column in enumerate(circles)
            if self._aggregates[column] == "mean"
        }
        self._counted, self._counters = counter_columns(contract), Counters.of(contract)
        self._categorical = [bool(feature.categories) for feature in contract.features]
        self._table = table
        self.duplicate = 0
        self.late = 0

    def take(self, slot: int, time: float, values: list[float]) -> list[tuple[float, list[float]]]:
        """The samples (time, values) of the intervals that this reading closes, oldest first."""
        open_interval = self._table.open_interval[slot]
        newest = float(open_interval["newest"])
        if time <= newest:  # False for NaN, the time before the first reading
            self.duplicate += time == newest
            self.late += time < newest
            return []
        number = math.floor(time / self._interval_s)
        begun = float(open_interval["interval"])
        closed: list[tuple[float, list[float]]] = []
        if self._counters:
            gap = math.isnan(begun) or (number - begun) * self._interval_s > self._max_gap_s
            values = self._increases(open_interval, values, gap)
        if not math.isnan(begun) and number > begun:
            closed.append(((begun + 1) * self._interval_s, self._sample(open_interval)))
            if (number - begun) * self._interval_s <= self._max_gap_s:
                empty = [math.nan] * len(values)
                closed += [((skipped + 1) * self._interval_s, empty) for skipped in range(int(begun) + 1, number)]
        if math.isnan(begun) or number > begun:
            open_interval["interval"], open_interval["count"], open_interval["value"] = number, 0, 0.0
            if self._circles:
                open_interval["cosine"] = 0.0
        open_interval["newest"] = time
        for column, value in enumerate(values):
            if math.isfinite(value):
                self._aggregate(open_interval, column, value)
        return closed

    def _increases(self, open_interval: np.void, values: list[float], gap: bool) -> list[float]:
        """The values with the increases since the reading before in place of counters."""
        assert self._counters is not None  # the caller checks it
        columns, values = self._counted, list(values)
        readings = np.array([[values[column] for column in columns]])
        found, memory = self._counters.increases(open_interval["counted"][None], readings, np.array([gap]))
        open_interval["counted"] = memory[0]
        for column, increase in zip(columns, found[0].tolist(), strict=True):
            values[column] = increase
        return values

    def _aggregate(self, open_interval: np.void, column: int, value: float) -> None:
        if column in self._circles:
            place, period = self._circles[column]
            sine, cosine = sine_and_cosine(np.array(value % period), period)
            open_interval["value"][column] += sine
            open_interval["cosine"][place] += cosine
            open_interval["count"][column] += 1
            return
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
        for column, (place, period) in self._circles.items():
            sine, cosine = open_interval["value"][column], open_interval["cosine"][place]
            opposed = math.hypot(sine, cosine) <= _OPPOSED * max(1, open_interval["count"][column])
            sample[column] = math.nan if opposed else float(position(sine, cosine, period))
        return sample


def _measurement_test(feature: Feature) -> Callable[[float], bool] | None:
    """A test whether a value is a measurement, by the rules for recordings; None: every value is one."""
    if not feature.sentinels and feature.least is None and feature.most is None:
        return None
    # compared in float32, as in a recording: -273.2 becomes -273.20001
    codes = frozenset(np.array(feature.sentinels, np.float32).tolist())
    least = -FLOAT32_MAX if feature.least is None else feature.least
    most = FLOAT32_MAX if feature.most is None else feature.most
    return lambda value: least <= value <= most and float(np.float32(value)) not in codes


def _limit(feature: Feature) -> float:
    """The largest magnitude of a measurement. A larger one counts as missing: averages would carry it for long."""
    unknown = math.isnan(feature.mean) or (feature.mean, feature.scale) == (0.0, 1.0)  # a model without statistics
    return FLOAT32_MAX if unknown else min(abs(feature.mean) + _MAX_DEVIATIONS * feature.scale, FLOAT32_MAX)


def _sort_into_rounds(slots: Slots) -> tuple[Slots, list[int]]:
    """The indexes of the samples of `slots` (n,) round by round, in a round by arrival, and the sizes of the rounds."""
    by_slot = np.argsort(slots, kind="stable")
    begins = np.flatnonzero(np.diff(slots[by_slot], prepend=-1))
    number = np.empty(len(slots), np.intp)  # its number among its stream's samples; bincount takes no wider type
    number[by_slot] = np.arange(len(slots)) - np.repeat(begins, np.diff(begins, append=len(slots)))
    return np.argsort(number, kind="stable"), np.bincount(number).tolist()


def sequence_id(sequence: str) -> int:
    """64 bits for a device's sequence number or id. Never 0, which means that the time identifies the sample."""
    return int.from_bytes(blake2b(sequence.encode(errors="surrogatepass"), digest_size=8).digest(), "big") or 1
