"""Joins the values of a sample that come in separate readings.

Parts belong to one sample if their times are at most a window apart. A complete sample goes out at once. A part that is
too new for an incomplete sample closes it: it goes out with the values that it has. No clock is read, so a replay gives
the same samples. Every later part finds its sample in the stream's trail, by its time (see `belonging`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Floats, Records
from edge_lstm.foundation.numbers import FLOAT32_MAX
from edge_lstm.streaming.stream_table import StreamTable

ABSENT = math.inf  # in a sample: a value that has not arrived. NaN: one that arrived as missing
_OWN_TIMES_S = 2.0  # apart, at most: a device takes the values of a sample one after the other
_RESOLUTION_S = 1e-6  # of times


def part_spans(contract: Contract, within_s: float | None) -> tuple[float, float]:
    """How far apart the parts of a sample may be, in seconds: by a device's own times, and by times of arrival.

    `within_s`: for both. None: for times of arrival half of the contract's interval, and for a device's own times no
    more than 2 s. So parts of different samples do not meet where one of them got lost.
    """
    half = contract.sampling.interval_s / 2 if contract.sampling.interval_s else _OWN_TIMES_S
    own_s, arrival_s = (min(half, _OWN_TIMES_S), half) if within_s is None else (within_s, within_s)
    return own_s + _RESOLUTION_S, arrival_s + _RESOLUTION_S


class Joined(NamedTuple):
    """The result of a partial reading."""

    samples: Sequence[tuple[float, list[float]]]  # (time, values) to step, oldest first
    is_used: bool = True  # False: it brings nothing new


class Joiner:
    """The incomplete samples of the streams, in the table's columns `partial_values` and `partial_times`.

    In `partial_values`, NaN is a value that has not arrived, and infinity one that arrived as missing.
    """

    def __init__(self, contract: Contract, table: StreamTable, within_s: float | None) -> None:
        """`within_s`: as of `part_spans`."""
        self.within_s, self._arrival_s = part_spans(contract, within_s)
        self._names = [feature.name for feature in contract.features]
        self._ahead = set(contract.ahead_columns)
        self._table = table
        self._newest: dict[int, float] = {}  # by slot, in the present batch: the time of the last sample

    def begin_batch(self) -> None:
        """All samples so far are stepped."""
        self._newest.clear()

    def is_newest(self, slot: int, time: float) -> bool:
        """Whether a reading of this time is newer than all samples of its stream."""
        return not time <= self._newest_of(slot)

    def row(self, values: Mapping[str, float]) -> list[float]:
        """The values by feature; ABSENT where the reading has none."""
        found = [values.get(name, ABSENT) for name in self._names]
        return [
            value if abs(value) <= FLOAT32_MAX or name not in values else math.nan
            for name, value in zip(self._names, found, strict=True)
        ]

    def take_whole(
        self, slot: int, time: float, values: list[float], arrived: bool
    ) -> Sequence[tuple[float, list[float]]]:
        """The samples that a reading with all values gives: its own, after an incomplete one that it closes."""
        within_s = self._arrival_s if arrived else self.within_s
        samples: list[tuple[float, list[float]]] = []
        first, last = self._span(slot)
        if last is not None and not time <= self._newest_of(slot):
            if time > first + within_s:
                samples.append(self._close(slot))
            elif not time < last - within_s:
                self._clear(slot)  # of the same sample, of which this has every value
        samples.append((time, values))
        self._note(slot, time)
        return samples

    def take(self, slot: int, time: float, part: list[float], arrived: bool) -> Joined:
        """Add a part (one value a feature, ABSENT where it has none) to its sample.

        A part that is not newer than the stream's last sample is given back as a sample of its own: the predictor
        finds the one that it belongs to.
        """
        within_s = self._arrival_s if arrived else self.within_s
        if time <= self._newest_of(slot):
            return Joined([(time, part)])
        samples = []
        first, last = self._span(slot)
        if last is not None:
            if time > first + within_s:
                samples.append(self._close(slot))
            elif time < last - within_s:
                newest = self._newest_of(slot)
                if time - newest <= within_s:  # of the last sample: as a late part it finds that sample
                    return Joined([(math.nextafter(newest, -math.inf), part)])
                self._note(slot, time)
                return Joined([(time, part)])
        is_used = self._add(slot, time, part)
        if not np.isnan(self._table.partial_values[slot]).any():
            samples.append(self._close(slot))
        return Joined(samples, is_used)

    def _add(self, slot: int, time: float, part: list[float]) -> bool:
        """Write the values of a part, except those of which the sample has newer ones. Whether one was written."""
        waiting, times = self._table.partial_values[slot], self._table.partial_times[slot]
        self._table.any_partial = True
        is_used = False
        for index, value in enumerate(part):
            if value == ABSENT or time < times[index]:  # False for NaN: a value without a known time
                continue
            if index in self._ahead and time == times[index]:  # a part that came again, with another forecast
                continue
            kept = waiting.dtype.type(math.inf if math.isnan(value) else value)
            is_used |= not (time == times[index] and kept == waiting[index])
            waiting[index], times[index] = kept, time
        return is_used

    def _span(self, slot: int) -> tuple[float, float | None]:
        """The times of the first and last part that wait; (NaN, None) if none waits.

        Parts of release 0.1.0 have no times. They belong to whatever comes next.
        """
        if np.isnan(self._table.partial_values[slot]).all():
            return math.nan, None
        times = self._table.partial_times[slot]
        known = times[~np.isnan(times)]
        return (float(known.min()), float(known.max())) if len(known) else (math.nan, math.nan)

    def _close(self, slot: int) -> tuple[float, list[float]]:
        """The sample that waits, complete or not. Its time is that of its last part."""
        waiting = self._table.partial_values[slot]
        sample = [
            ABSENT if math.isnan(value) else math.nan if math.isinf(value) else value for value in waiting.tolist()
        ]
        time = float(np.nanmax(self._table.partial_times[slot]))
        self._clear(slot)
        self._note(slot, time)
        return time, sample

    def take_waiting(self, slot: int) -> tuple[float, list[float]]:
        """The incomplete sample (time, values), which waits no longer; its time is NaN if there is none.

        Parts of release 0.1.0 have no times, so they are none.
        """
        if np.isnan(self._table.partial_times[slot]).all():
            return math.nan, []
        return self._close(slot)

    def _clear(self, slot: int) -> None:
        self._table.partial_values[slot] = self._table.partial_times[slot] = math.nan

    def _newest_of(self, slot: int) -> float:
        found = self._newest.get(slot)
        return float(self._table.current["time"][slot]) if found is None else found

    def _note(self, slot: int, time: float) -> None:
        newest = self._newest_of(slot)
        self._newest[slot] = time if math.isnan(newest) else max(time, newest)


def belonging(trail: Records, time: float, within_s: float) -> int | None:
    """The index of the sample in the trail (n,) to which a part of this time belongs; None: to none of them."""
    apart = np.abs(trail["time"] - time)
    if not len(apart) or apart.min() > within_s:
        return None
    return int(len(apart) - 1 - np.argmin(apart[::-1]))  # of equally near ones the newest


def completed(
    given: Floats, sample_time: float, part: Floats, time: float, is_part: bool = True, ahead: Sequence[int] = ()
) -> Floats | None:
    """A sample's values (features,) with those of a late reading. None: it brings nothing new.

    It fills values that have not arrived. A part of exactly the sample's time also corrects others, but not those that
    were known `ahead` (indices): what was known at that time stays.
    """
    corrects = np.full(len(given), is_part and time == sample_time)
    corrects[list(ahead)] = False
    takes = ~np.isinf(part) & (np.isinf(given) | corrects)
    merged = np.where(takes, part, given)
    return None if np.array_equal(merged, given, equal_nan=True) else merged
