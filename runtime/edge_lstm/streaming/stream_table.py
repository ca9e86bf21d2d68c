"""The stream table: all values that are carried for each stream, one array per column.

It knows stream names and array shapes, and does not know what the numbers mean.
"""

from __future__ import annotations

import logging
import math
import mmap
from collections.abc import Callable, Iterable, KeysView, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.decider import count_bounds
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.foundation.arguments import described, quoted
from edge_lstm.foundation.arrays import Doubles, Floats, Integers, Records, Slots
from edge_lstm.foundation.errors import ReadingError
from edge_lstm.streaming.columns import columns_of
from edge_lstm.streaming.row_format import RowFormat, StoredRow

log = logging.getLogger(__name__)

FetchRow = Callable[[str], "StoredRow | bytes | None"]

MOST_STEPS = 10**15  # of a stream
_NO_RULES = DecisionRules()
_LARGE_BYTES = 1 << 20


def rows_of(slots: Slots) -> Slots | slice:
    """The index of these slots (n,) in a column. For one slot a slice: faster, and a view instead of a copy."""
    if len(slots) != 1:
        return slots
    slot = slots.item()
    return slice(slot, slot + 1)


class StreamTable:
    """Streams by name. Each has a slot, an index into every array; `columns_of` lists the arrays.

    `partial_values` holds the values of an incomplete sample, NaN for a value that has not arrived, and `partial_times`
    their times; on a grid, `partial_times` holds the time of the newest value of each feature. `last_published` is NaN
    before anything was published. `announced` is the alarm event that subscribers know of, with the power of two of its
    peak; a `since` of 0: none. `calibration` holds the residuals for the calibration of an anomaly detector;
    `current["calibrated"]` counts them.

    The trail holds a stream's last samples, so that a late reading can be inserted. `trail_length` counts them.
    `snapshot_old` is the stream's record before the first of them, `snapshot_mid` before sample number `depth`.

    `seen` holds the keys of the last readings with a sequence; `identities` counts all of them.
    """

    current: Records  # (slots,): time of the last sample (NaN before the first), counts of steps, states, decisions
    partial_values: Floats  # (slots, features)
    partial_times: Doubles  # (slots, features): seconds since 1970
    last_published: Floats  # (slots, outputs)
    open_interval: Records  # (slots,): on a grid, the interval that has not ended
    announced: Records  # (slots,): since and band of the last event that was published and has not ended
    reported_faults: NDArray[np.uint8]  # (slots, features): of the sensors, what subscribers know
    trail_length: Integers  # (slots,)
    trail: Records  # (slots, 2 * depth): time, identity, values and revision of a sample
    snapshot_old: Records  # (slots,)
    snapshot_mid: Records  # (slots,)
    seen: NDArray[np.uint64]  # (slots, window): identities of readings
    identities: Integers  # (slots,)
    last_number: Integers  # (slots,): of the device's sequence; -1: none yet
    calibration: Floats  # (slots, calibrate_steps, targets)
    used: Integers  # (slots,): the last round that touched the slot
    states: list[Floats]  # views of the state tensors in `current`, (slots, *shape) each

    def __init__(
        self,
        contract: Contract,
        depth: int = 0,
        window: int = 0,
        fetch: FetchRow = lambda stream: None,
        rules: DecisionRules = _NO_RULES,
    ) -> None:
        """`depth`: least number of samples in a full trail (0: no trail); `window`: number of identities remembered.

        `fetch` returns the stored row of a stream that is not in the table, or None for a new stream. `rules`: what
        decisions carry depends on them.
        """
        self.depth = depth
        self.any_partial = False  # whether a stream has had an incomplete sample
        self._columns = columns_of(contract, depth, window, rules)
        self._start = self._columns[0].start  # of `current`
        self.state_fields = [f"state{index}" for index in range(len(contract.states))]
        bounds = {"step": (0, MOST_STEPS), "warm_steps": (0, MOST_STEPS), **count_bounds(contract, rules)}
        self._format = RowFormat(self._columns, depth, window, bounds)
        self.layout = self._format.layout
        self._fetch = fetch
        self._slots: dict[str, int] = {}
        self._names: list[str | None] = []
        self._free: list[int] = []
        for column in self._columns:
            setattr(self, column.name, np.zeros((0, *column.shape), column.dtype))
        self._refresh_views()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def names(self) -> KeysView[str]:
        """The streams in the table."""
        return self._slots.keys()

    def name(self, slot: int) -> str:
        """The stream in a slot."""
        name = self._names[slot]
        assert name is not None
        return name

    def slot(self, stream: str) -> int:
        """The slot of `stream`. A stream that is not in the table gets one, with its stored row or start values."""
        slot = self._slots.get(stream)
        # fetched first: a store that fails leaves the table as it was
        return slot if slot is not None else self._admit(stream, self._fetch(stream))

    def slots(self, streams: Sequence[str]) -> list[int]:
        """`slot` of each; without a call for each stream that is in the table."""
        found = list(map(self._slots.get, streams))
        return [self.slot(stream) for stream in streams] if None in found else found  # type: ignore[return-value]

    def _admit(self, stream: str, row: StoredRow | bytes | None) -> int:
        stored = StoredRow(row) if isinstance(row, bytes) else row
        if stored is not None and not isinstance(stored, StoredRow):
            raise ReadingError(
                f"stream {quoted(stream)}: expected fetch to return bytes or None, found {described(row)}",
                "return the row as it was stored",
            )
        if self._free:
            slot = self._free.pop()
            self._names[slot] = stream
        else:
            slot = len(self._names)
            self._names.append(stream)
            if slot == len(self.current):
                self._grow(max(16, slot))
        self._slots[stream] = slot
        for array, start in self._starts:
            array[slot] = start
        if stored is not None:
            self._restore(stream, stored)
        return slot

    def _restore(self, stream: str, row: StoredRow) -> None:
        try:
            self.put_row(stream, *row)
        except ValueError as error:
            log.error("stream starts cold, its stored row does not fit stream=%s error=%s", stream, error)
            self.current[self._slots[stream]] = self._start

    def last_time(self, stream: str) -> float:
        """The time of the stream's last sample, on a grid of its newest reading; NaN for a new stream.

        A new stream gets no slot.
        """
        slot = self._slots.get(stream)
        if slot is None:
            if (row := self._fetch(stream)) is None:
                return math.nan
            slot = self._admit(stream, row)  # first: the table may grow
        return float(self._last_times[slot])

    def newest_time(self) -> float:
        """The latest `last_time` of all streams in the table; -inf if there is none."""
        times = self._last_times[list(self._slots.values())]
        return float(np.max(times, initial=-np.inf, where=~np.isnan(times)))

    def in_alarm(self) -> int:
        """How many streams in the table are in an alarm; for an anomaly detector."""
        return int(self.current["alarm"][list(self._slots.values())].sum())

    def evict(self, stream: str) -> None:
        """Remove the stream from the table; the caller has stored its row."""
        slot = self._slots.pop(stream)
        self._names[slot] = None
        self._free.append(slot)

    @property
    def row_bytes(self) -> int:
        """The memory of a stream; its stored row is smaller."""
        return sum(column.bytes for column in self._columns)

    def least_recently_used(self, count: int) -> list[str]:
        """The `count` streams whose last round is longest ago."""
        slots = np.fromiter(self._slots.values(), np.int64, len(self._slots))
        oldest = slots[np.argsort(self.used[slots], kind="stable")[:count]]
        return [self.name(slot) for slot in oldest.tolist()]

    def restart(self, slots: Slots) -> None:
        """Reset the states of these slots (n,) to their start values. Step counts and last values stay."""
        self.current["warm_steps"][slots] = 0
        for state, field in zip(self.states, self.state_fields, strict=True):
            state[slots] = self._start[field]

    def begin_again(self, slots: Slots) -> None:
        """Restart these slots (n,) in another time: without a last sample, a trail and an incomplete sample.

        The caller has stepped the incomplete sample.
        """
        self.restart(slots)
        self.current["time"][slots] = np.nan
        self.trail_length[slots] = 0
        for column in self._columns:
            if column.name in ("partial_values", "partial_times", "open_interval") and column.start is not None:
                getattr(self, column.name)[slots] = column.start

    def row(self, stream: str) -> bytes:
        """All stored columns of `stream`, as bytes for `put_row`."""
        (row,) = self.rows([stream])
        return row

    def rows(self, streams: Iterable[str]) -> list[bytes]:
        """`row` of each."""
        slots = [self._slots[stream] for stream in streams]
        if not slots:
            return []
        # one array of bytes, which is faster to cut into rows than every column for every stream
        parts = [column.view(np.uint8).reshape(len(column), -1).take(slots, axis=0) for column in self._stored]
        together = np.concatenate(parts, axis=1)
        size, content = together.shape[1], together.tobytes()
        rows = [content[start : start + size] for start in range(0, len(content), size)]
        if not self.calibration.shape[1]:
            return rows
        counts = self._format.residual_count(
            {column.name: getattr(self, column.name)[slots] for column in self._format.columns}
        )
        return [
            row + self.calibration[slot, :count].tobytes()
            for row, slot, count in zip(rows, slots, counts.tolist(), strict=True)
        ]

    def put_row(self, stream: str, row: bytes, layout: str = "") -> None:
        """Restore the stream from a row that `row` returned, of a table with this layout.

        A row of a table with another depth or window restores all but trail and identities. Raises ValueError if the
        row does not fit its layout or the contract; nothing has changed then.
        """
        values = self._format.read(StoredRow(row, layout))
        slot = self._slots.get(stream)
        if slot is None:
            slot = self._admit(stream, self._fetch(stream))
        self.calibration[slot, : len(values.residuals)] = values.residuals
        for column in self._format.columns:
            found = values.columns.get(column.name, column.start)
            if found is not None:
                getattr(self, column.name)[slot] = found
        self.any_partial = self.any_partial or not np.isnan(self.partial_values[slot]).all()

    def remember(
        self,
        slots: Slots,
        times: Doubles,
        ids: NDArray[np.uint64],
        given: NDArray[Any],
        revisions: NDArray[np.uint64],
    ) -> None:
        """Append a sample of each slot (n,) to its trail, before the slots step."""
        depth = self.depth
        if not depth:
            return
        length = self.trail_length[slots]
        if np.count_nonzero(due := length % depth == 0):
            self._take_snapshots(slots[due], length[due])
            length = self.trail_length[slots]
        if len(slots) == 1:  # making an array of records would take longer than all the rest
            self.trail[slots.item(), length.item()] = times.item(), ids.item(), given[0], revisions.item()
        else:
            entries = np.empty(len(slots), self.trail.dtype)
            entries["time"], entries["id"], entries["given"], entries["revision"] = times, ids, given, revisions
            _without_fields(self.trail)[slots, length] = _without_fields(entries)
        self.trail_length[slots] = length + 1

    def note_keys(self, slots: Slots, keys: NDArray[np.uint64]) -> None:
        """Add the key of a reading (`sequences.Sequences`) of each slot (n,) to those seen; 0: it has none."""
        if not keys.all():
            slots, keys = slots[keys > 0], keys[keys > 0]
        self.seen[slots, self.identities[slots] % self.seen.shape[1]] = keys
        self.identities[slots] += 1

    def _take_snapshots(self, slots: Slots, length: Integers) -> None:
        """Snapshot the slots (n,) whose trail has `length` 0, depth or 2 * depth. A full trail drops its older half."""
        depth = self.depth
        arrays = (self.current, self.snapshot_old, self.snapshot_mid)
        current, snapshot_old, snapshot_mid = map(_without_fields, arrays)
        empty, full = slots[length == 0], slots[length == 2 * depth]
        snapshot_old[empty] = current[empty]
        halves = self.trail.view(f"V{depth * self.trail.dtype.itemsize}")  # (slots, 2)
        halves[full, 0] = halves[full, 1]
        snapshot_old[full] = snapshot_mid[full]
        self.trail_length[full] = depth
        halfway = slots[length > 0]
        snapshot_mid[halfway] = current[halfway]

    def rewind_begin(self, position: int, length: int) -> int:
        """The number of the sample from which on a trail of `length` samples steps again for one at `position`."""
        return self.depth if length > self.depth and position >= self.depth else 0

    def rewind(self, slot: int, position: int) -> Records:
        """Restore the latest snapshot before sample number `position` of the trail.

        Returns copies of the trail's samples after the snapshot (n,), to be stepped again.
        """
        length = int(self.trail_length[slot])
        begin = self.rewind_begin(position, length)
        self.current[slot] = (self.snapshot_mid if begin else self.snapshot_old)[slot]
        self.trail_length[slot] = begin
        return self.trail[slot, begin:length].copy()

    def _grow(self, more: int) -> None:
        for column in self._columns:
            array = getattr(self, column.name)
            grown = _zeros((len(array) + more, *column.shape), column.dtype)
            grown[: len(array)] = array  # no further: memory is taken when it is written
            setattr(self, column.name, grown)
        self._refresh_views()

    def _refresh_views(self) -> None:
        """Take the views and lists of arrays from the arrays that the table has now."""
        self.states = [self.current[field] for field in self.state_fields]
        on_grid = bool(self.open_interval.dtype.names)
        self._last_times: Doubles = self.open_interval["newest"] if on_grid else self.current["time"]
        self._stored: list[NDArray[np.generic]] = [getattr(self, column.name) for column in self._format.columns]
        self._starts: list[tuple[NDArray[Any], Any]] = [
            (getattr(self, column.name), column.start) for column in self._columns if column.start is not None
        ]


def _zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """As np.zeros, in memory of normal pages: NumPy asks for huge pages, of which the last stays mostly empty."""
    size = dtype.itemsize * int(np.prod(shape))
    if size < _LARGE_BYTES or not hasattr(mmap, "MAP_PRIVATE"):
        return np.zeros(shape, dtype)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(pages, dtype, int(np.prod(shape))).reshape(shape)


def _without_fields(records: Records) -> Records:
    """The same memory without its fields: NumPy copies such records at once, and others field by field."""
    return records.view(f"V{records.dtype.itemsize}")
