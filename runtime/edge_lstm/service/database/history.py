"""The history of a service: appends a batch at every commit, and rearranges old batches into chunks, one per stream.

An index entry for every reading would double the pages that a commit writes. So only chunks have an index by stream.
The newest batches are not in chunks yet: some hundred readings, and more while large batches follow one another.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from edge_lstm.messages.formats.payloads import dump_json
from edge_lstm.service.database.checksums import batch_checksum, chunk_checksum
from edge_lstm.service.database.readings_json import (
    Record,
    entries_of,
    is_forgotten,
    records_text,
    stream_of,
)
from edge_lstm.service.database.schema import blob
from edge_lstm.service.database.service_values import HISTORY

log = logging.getLogger(__name__)

_MOST_COMPACTED = 512  # readings that move into chunks at once
_MOST_COMPACTED_BYTES = 1 << 17
_SLICE = 64  # readings that one call of `compact` takes; a batch of more readings is taken whole
_SLICE_BYTES = 1 << 15
_MOST_DELETED = 100  # chunks or batches, at one commit
_ENOUGH = 0.9  # of the bytes: so much is kept after a deletion
_DAY_S = 86_400


class HistoryLimits(NamedTuple):
    """What is kept at least; somewhat more is kept, so that deletions are rare. None: no limit."""

    readings: int = 0  # in all; the oldest are deleted where there are twice as many. 0: no history
    per_stream: int | None = None  # readings of one stream
    megabytes: float = 100.0  # in all; one stream gets at most half of it
    days: float | None = None  # since the commit


class History:
    """The history tables of a database. All but `compact` runs inside the transaction of a commit."""

    def __init__(self, database: sqlite3.Connection, limits: HistoryLimits) -> None:
        self._database, self.limits = database, limits
        self._compact_at_once = max(1, min(_MOST_COMPACTED, limits.readings // 4))
        self._deleting = False  # whether too much is stored, until enough is deleted
        self._ready = False  # whether the next commit writes the chunks
        self._entries: dict[str, list[tuple[int, int, object]]] = {}  # by stream: batch, place in it, entry
        self._damaged: list[tuple[int, int, object]] = []  # batch, time of its commit, content
        self._last_read, self._last_time = -1, 0  # batch, and time of its commit
        self._read_count = self._read_bytes = 0
        self._busy = False  # whether a large batch was appended just now
        self.measure()

    def measure(self) -> None:
        """Count what the tables hold: when they are opened, and after a transaction that was rolled back."""
        sums = "select total(count), total({}) from {}"
        raw = self._database.execute(sums.format("length(readings)", "history")).fetchone()
        compacted = self._database.execute(sums.format("size", "chunks")).fetchone()
        self._raw_count = int(raw[0])
        self._count, self._size = (int(one + other) for one, other in zip(raw, compacted, strict=True))

    @property
    def values(self) -> dict[str, str]:
        """As values of the service: how many readings are kept."""
        return {HISTORY: str(self._count)}

    def check(self, recorded: str | None) -> int:
        """1 if there are not as many readings as the last commit recorded, which is logged; else 0."""
        if recorded is None or recorded == self.values[HISTORY]:
            return 0
        log.error("history damaged, readings were lost outside of a commit expected=%s found=%d", recorded, self._count)
        return 1

    def append(self, batch: int, records: Sequence[Record], values: Mapping[str, str]) -> None:
        """Append what a batch was given, with values of the service, after deleting what is beyond the limits then."""
        content = records_text(records)
        self._busy = len(records) > _SLICE
        self._count += len(records)
        self._size += len(content)
        if self._ready:
            self._write_chunks()
        if self._count > 2 * self.limits.readings or self._size > self._most_bytes:
            self._deleting = True
        if self._deleting:
            self._delete_oldest()
        self._raw_count += len(records)
        facts = dump_json({**values, **self.values})
        self._database.execute(
            "insert into history values (?, ?, ?, ?, ?, ?)",
            (batch, len(records), int(time.time()), batch_checksum(batch, facts, content), facts, blob(content)),
        )

    @property
    def _most_bytes(self) -> float:
        return 1e6 * self.limits.megabytes

    def compact(self) -> None:
        """Read a part of the oldest batches, to move them into chunks. The next commit writes these, if all are read.

        A call reads about 64 readings. It does nothing while few readings are outside of chunks, and in the first call
        after a larger batch: then the service is busy. A limit that needs chunks does not wait for that.
        """
        if self._ready or not self.limits.readings or self._raw_count < 2 * self._compact_at_once:
            return
        busy, self._busy = self._busy, False
        if busy and self.limits.per_stream is None and self.limits.days is None:
            return
        rows = self._database.execute(
            "select batch, count, time, checksum, facts, readings from history where batch > ? order by batch",
            (self._last_read,),
        )
        before = self._read_count, self._read_bytes
        for batch, count, moment, kept, facts, content in rows:
            if isinstance(content, bytes) and batch_checksum(batch, facts, content) == kept:
                for place, entry in enumerate(entries_of(content)):
                    stream = stream_of(entry)
                    if is_forgotten(entry):  # what it had before is of no use any more
                        self._entries.pop(stream, None)
                    else:
                        self._entries.setdefault(stream, []).append((batch, place, entry))
            else:
                log.error("history damaged, a replay restarts every stream after it batch=%d", batch)
                self._damaged.append((batch, moment, content))
            self._last_read, self._last_time = batch, moment
            self._read_count += count
            self._read_bytes += len(content or b"")
            if self._read_count - before[0] >= _SLICE or self._read_bytes - before[1] >= _SLICE_BYTES:
                break
        rows.close()
        self._ready = self._read_count >= self._compact_at_once or self._read_bytes >= _MOST_COMPACTED_BYTES

    def _begin_segment(self) -> None:
        """Forget what was read. The batches are still in the table."""
        self._ready = False
        self._entries, self._damaged = {}, []
        self._last_read, self._last_time = -1, 0
        self._read_count = self._read_bytes = 0

    def _write_chunks(self) -> None:
        """Replace the batches that were read by chunks of their streams. A newer batch is in the table already."""
        # damaged batches are kept unchanged, with a checksum that is never right
        chunks: list[tuple[Any, ...]] = [
            (None, batch, batch, 0, 0, moment, 0, content) for batch, moment, content in self._damaged
        ]
        for stream, entries in self._entries.items():
            content = dump_json(entries).encode()
            since, until, facts = entries[0][0], entries[-1][0], (len(entries), len(content), self._last_time)
            chunks.append((stream, since, until, *facts, chunk_checksum(stream, content), content))
        columns = "(stream, since, until, count, size, time, checksum, readings)"
        self._database.executemany(f"insert into chunks {columns} values (?, ?, ?, ?, ?, ?, ?, ?)", chunks)
        self._database.execute("delete from history where batch <= ?", (self._last_read,))
        self._raw_count -= self._read_count
        self._count += sum(chunk[3] for chunk in chunks) - self._read_count
        self._size += sum(chunk[4] for chunk in chunks) - self._read_bytes
        streams = list(self._entries)
        self._begin_segment()
        if self.limits.per_stream is not None or self._size > self._most_bytes / 2:
            for stream in streams:
                self._delete_beyond_stream_limits(stream)
        if self.limits.days is not None:
            self._delete_chunks("time < ?", time.time() - _DAY_S * self.limits.days)

    def _delete_beyond_stream_limits(self, stream: str) -> None:
        most, most_bytes = self.limits.per_stream or self.limits.readings, self._most_bytes / 2
        sums = self._database.execute("select total(count), total(size) from chunks where stream = ?", (stream,))
        count, size = sums.fetchone()
        oldest_first = "select id, count, size from chunks where stream = ? order by until"
        for number, readings, length in list(self._database.execute(oldest_first, (stream,))):
            if count - readings < most and size <= most_bytes:
                return
            self._delete_chunks("id = ?", number)
            count -= readings
            size -= length

    def forget(self, streams: Collection[str]) -> None:
        """Delete the readings of streams that are forgotten in this batch, as far as they are in chunks.

        The others are deleted when they would move into chunks: an entry `Forgotten` follows them.
        """
        for stream in streams:
            self._entries.pop(stream, None)
        self._delete_chunks("stream in (select value from json_each(?))", dump_json(list(streams)))

    def _delete_chunks(self, chosen: str, value: float | str) -> None:
        sums = self._database.execute(f"select total(count), total(size) from chunks where {chosen}", (value,))
        count, size = sums.fetchone()
        self._database.execute(f"delete from chunks where {chosen}", (value,))
        self._count -= int(count)
        self._size -= int(size)

    def _delete_oldest(self) -> None:
        """Delete the oldest chunks, or else batches, a hundred at a commit, until all is within the limits."""
        left = _MOST_DELETED
        for table, number, size in (("chunks", "id", "size"), ("history", "batch", "length(readings)")):
            # never the newest one: values of the service are beside it
            chosen = f"""
                select {number}, count, {size} from {table} where {number} < (select max({number}) from {table})
                order by {number} limit {left}
            """
            for key, count, length in list(self._database.execute(chosen)):
                if self._count - count < self.limits.readings and self._size <= _ENOUGH * self._most_bytes:
                    self._deleting = False
                    return
                self._database.execute(f"delete from {table} where {number} = ?", (key,))
                self._count -= count
                self._size -= length
                left -= 1
                if table == "history":
                    self._raw_count -= count
                    self._begin_segment()  # it may hold this batch
            if not left:
                return
        self._deleting = False

    def rolled_back(self) -> None:
        """Note that the transaction was rolled back. The chunks wait for a later one: the disk may be full."""
        self._begin_segment()
        self.measure()
