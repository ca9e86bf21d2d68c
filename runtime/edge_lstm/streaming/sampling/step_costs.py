"""How many steps readings cause, before any of them is stepped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Doubles
from edge_lstm.streaming.reading import Reading
from edge_lstm.streaming.stream_table import StreamTable

_stream_of, _time_of = itemgetter(0), itemgetter(1)  # faster than the names of the fields
_USUAL = 2  # steps, at most: a reading may end an incomplete sample and bring one of its own


class StepCosts:
    """Counts the steps of readings from above. A reading that steps nothing counts as one step: it takes time too."""

    def __init__(self, contract: Contract, table: StreamTable, max_steps: int = 0) -> None:
        """`max_steps`: a reading that causes more on a grid is dropped; 0: none is."""
        self._table, self._max_steps = table, max_steps
        sampling = contract.sampling
        self._interval_s = sampling.interval_s if sampling.grid else None
        self._max_gap_s = sampling.max_gap_s or math.inf
        self._again = 2 * table.depth + 1  # a whole trail, with one sample more

    def affordable(self, readings: Sequence[Reading], most: int) -> int:
        """How many of the readings, from the first on, cause at most `most` steps; at least one, if there is one."""
        count = len(readings)
        if self._interval_s is not None:
            return self._on_grid(readings, most, self._interval_s)
        if count * max(_USUAL, 2 * self._again) <= most:
            return count
        slots = self._table.slots(list(map(_stream_of, readings)))
        times = np.fromiter(map(_time_of, readings), np.float64, count)
        if _USUAL * count <= most and self._are_new(slots, times):
            return count
        return self._of_samples(readings, slots, most)

    def _are_new(self, slots: Sequence[int], times: Doubles) -> bool:
        """Whether each time (n,) is later than all before it in its stream."""
        places = np.array(slots, np.int64)
        if np.count_nonzero(times <= self._table.current["time"][places]):  # False for NaN, of a new stream
            return False
        if len(set(slots)) == len(slots):
            return True
        order = np.argsort(places, kind="stable")
        same, later = np.diff(places[order]) == 0, np.diff(times[order]) > 0
        return bool(later[same].all())

    def _of_samples(self, readings: Sequence[Reading], slots: Sequence[int], most: int) -> int:
        """`affordable` without a grid."""
        table, depth, again = self._table, self._table.depth, self._again
        newest: dict[int, float] = {}
        lengths: dict[int, int] = {}  # of the trails
        changed: set[int] = set()  # slots whose trail has to be stepped again anyway
        total = 0
        for index, (slot, reading) in enumerate(zip(slots, readings, strict=True)):
            if slot not in newest:
                newest[slot], lengths[slot] = float(table.current["time"][slot]), int(table.trail_length[slot])
            is_full = depth > 0 and lengths[slot] >= 2 * depth
            if reading.restart:
                steps, lengths[slot], newest[slot] = _USUAL, 1, reading.time
                changed.discard(slot)
            elif not reading.time <= newest[slot]:
                steps, newest[slot] = _USUAL if reading.partial else 1, reading.time
                lengths[slot] = depth + 1 if is_full else lengths[slot] + 1
                changed.discard(slot)
            elif not depth:
                steps = 1
            else:
                steps = 1 if slot in changed and not is_full else again
                if is_full:  # stepped again at once, after what was changed before
                    steps += again if slot in changed else 0
                    lengths[slot] = depth + 1
                    changed.discard(slot)
                else:
                    lengths[slot] += 1
                    changed.add(slot)
            total += steps
            if total > most and index:
                return index
        return len(readings)

    def _on_grid(self, readings: Sequence[Reading], most: int, interval_s: float) -> int:
        """`affordable` on a grid."""
        numbers: dict[str, float] = {}  # of the open intervals
        total = 0
        for index, reading in enumerate(readings):
            begun = numbers.get(reading.stream)
            if begun is None:
                slot = self._table.slot(reading.stream)  # first: the table may grow
                begun = float(self._table.open_interval["interval"][slot])
            number = math.floor(reading.time / interval_s)
            steps = self.closed(begun, number)
            if steps is not None:
                numbers[reading.stream] = number if math.isnan(begun) or reading.restart else max(number, begun)
            total += max(steps or 1, 1)
            if total > most and index:
                return index
        return len(readings)

    def closed(self, begun: float, number: int) -> int | None:
        """How many samples an interval `number` closes after the open one; None: more than are allowed."""
        if math.isnan(begun) or number <= begun:
            return 0
        assert self._interval_s is not None  # the caller has a grid
        steps = int(number - begun)
        if steps * self._interval_s > self._max_gap_s:
            return 1
        return steps if not self._max_steps or steps <= self._max_steps else None
