"""The rows of the streams: stored with a checksum each, and with a count and a sum of checksums of all."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple
from zlib import crc32

from edge_lstm.service.database.checksums import (
    BITS,
    TOP_BIT,
    layout_seed,
    name_checksum,
    row_checksum,
    young_checksum,
)
from edge_lstm.service.database.damage import set_aside
from edge_lstm.service.database.schema import blob
from edge_lstm.service.database.service_values import ROWS, ROWS_CHECKSUM
from edge_lstm.streaming.row_format import StoredRow

log = logging.getLogger(__name__)

# An update in place: `insert or replace` would free a page, take another one, and write both page lists.
_UPDATE = """
    update streams set layout = ?, checksum = ?, young = ?, readings = readings + ?, last_used = ?, row = ?
    where rowid = ?
"""
_INSERT = """
    insert into streams (stream, layout, checksum, young, readings, since, last_used, row)
    values (?, ?, ?, ?, ?, ?, ?, ?)
"""
_MOST_RECENT = 10_000  # streams, about 1.5 MB
_MOST_NAMED = 20  # damaged rows in the log, at once


class Totals(NamedTuple):
    """Of all rows: how many, and the sum of their checksums."""

    rows: int = 0
    checksum: int = 0

    @property
    def values(self) -> dict[str, str]:
        """As values of the service."""
        return {ROWS: str(self.rows), ROWS_CHECKSUM: str(self.checksum)}


class NameChanges(NamedTuple):
    """What a commit changes besides the rows themselves."""

    readings: Mapping[str, int] = {}  # by stream: how many came since the last commit
    young: Mapping[str, int] = {}  # the marks of all streams that have few readings, see `StreamRows`
    forgotten: Collection[str] = ()  # streams whose former rows are deleted first


NO_CHANGES = NameChanges()


class _Damaged(NamedTuple):
    place: int  # row id
    stream: str
    checksum: object
    row: object


class StreamRows:
    """The tables `streams` and `layouts` of a database.

    The row of a stream with few readings has a mark in `young`, which its checksum covers; others have 0 there.
    `service.intake.name_limit` knows what the mark means.
    """

    def __init__(self, database: sqlite3.Connection, layout: str) -> None:
        """`layout`: of the rows that are written."""
        self._database = database
        self.damaged = 0  # rows that were found damaged
        self.young: dict[str, int] = {}  # the marks that were found when all rows were checked
        self.totals = Totals()
        # of rows that were written last, for most streams step again soon: row id, checksum, checksum of the name
        self._recent: dict[str, tuple[int, int, int]] = {}
        self._layouts: dict[int, str] = {}
        self._seeds: dict[int, int] = {}  # of the checksums of their rows
        self._layout = layout
        self._number = 0  # of that layout
        self._used_layouts: set[object] = set()  # by rows, when they were checked

    def check(self, values: Mapping[str, str]) -> None:
        """Check every row, and compare their count and checksums with those of the last commit."""
        self._read_layouts()
        count = checksum = 0
        used, damaged = set(), []
        rows = self._database.execute("select rowid, stream, layout, checksum, young, row from streams")
        for place, stream, layout, kept, young, row in rows:
            if not self._is_right(stream, layout, kept, young, row):
                damaged.append(_Damaged(place, str(stream), kept, row))
            elif young:
                self.young[stream] = young
            count += 1
            checksum += kept if isinstance(kept, int) else 0
            used.add(layout)
        self.totals, self._used_layouts = Totals(count, checksum), used
        if ROWS in values and self.totals.values.items() - values.items():
            log.error(
                "streams were lost or changed outside of a commit, lost ones start cold expected=%s found=%d",
                values[ROWS],
                count,
            )
        self._set_aside(damaged)

    def _read_layouts(self) -> None:
        self._layouts = dict(self._database.execute("select id, description from layouts"))
        self._seeds = {number: layout_seed(number, text) for number, text in self._layouts.items()}

    def open_layouts(self) -> None:
        """Record the layout of new rows, and drop those that no row has. Runs inside a transaction."""
        for number, text in self._layouts.items():
            if number not in self._used_layouts and text != self._layout:
                self._database.execute("delete from layouts where id = ?", (number,))
        self._database.execute("insert or ignore into layouts (description) values (?)", (self._layout,))
        self._read_layouts()
        self._number = next(number for number, text in self._layouts.items() if text == self._layout)

    def delete_all(self) -> None:
        """Delete every row. Runs inside a transaction."""
        self._database.execute("delete from streams")
        self._recent.clear()
        self.young = {}
        self.totals, self._used_layouts = Totals(), set()

    def read(self, stream: str) -> StoredRow | None:
        """The row of the stream. None: a new stream, or one whose row is damaged; that is logged."""
        query = "select rowid, layout, checksum, young, row from streams where stream = ?"
        found = self._database.execute(query, (stream,)).fetchone()
        if found is None:
            return None
        place, layout, kept, young, row = found
        if not self._is_right(stream, layout, kept, young, row):
            self._set_aside([_Damaged(place, stream, kept, row)])
            return None
        return StoredRow(row, self._layouts[layout])

    def known(self, streams: Collection[str]) -> set[str]:
        """Those of the streams that have a row."""
        query = "select stream from streams where stream in (select value from json_each(?))"
        return {stream for (stream,) in self._database.execute(query, (json.dumps([*streams]),))}

    def idle(self, before: int, most: int) -> list[str]:
        """At most `most` streams whose last reading came before that moment (seconds since 1970), the oldest first."""
        query = "select stream from streams where last_used < ? order by last_used, rowid limit ?"
        return [stream for (stream,) in self._database.execute(query, (before, most))]

    def begin_idleness(self, unknown_before: int) -> None:
        """Let the idleness of streams begin now whose last reading came at an unknown moment, or by a clock not set."""
        self._database.execute(
            "update streams set last_used = ? where last_used < ?", (int(time.time()), unknown_before)
        )

    def _is_right(self, stream: object, layout: object, kept: object, young: object, row: object) -> bool:
        seed = self._seeds.get(layout) if isinstance(layout, int) else None
        if seed is None or not (isinstance(stream, str) and isinstance(row, bytes) and isinstance(young, int)):
            return False
        return row_checksum(young_checksum(name_checksum(stream, seed), young), row) == kept

    def _set_aside(self, damaged: Sequence[_Damaged]) -> None:
        """Move damaged rows to the table `damaged`. If the disk refuses, the next step overwrites them."""
        if not damaged:
            return
        for one in damaged[:_MOST_NAMED]:
            log.error("row of a stream damaged, it starts cold stream=%s", one.stream)
        self.damaged += len(damaged)
        self._recent.clear()
        places, found = [one.place for one in damaged], [(one.stream, one.row) for one in damaged]
        if set_aside(self._database, "row", found, "delete from streams where rowid = ?", places):
            known = sum(one.checksum for one in damaged if isinstance(one.checksum, int))
            self.totals = Totals(self.totals.rows - len(damaged), self.totals.checksum - known)

    def write(self, rows: Sequence[tuple[str, bytes]], changes: NameChanges = NO_CHANGES) -> Totals:
        """Write the rows of different streams. Returns the totals, which hold once this is committed."""
        count, checksum = self._delete(changes.forgotten) if changes.forgotten else self.totals
        self._look_up(rows)
        recent, number, now = self._recent, self._number, int(time.time())
        readings, marks = changes.readings.get, changes.young
        mark = 0
        updated, inserted = [], []
        for stream, row in rows:  # no call for each row but the checksum: this is a part of every commit
            known = recent.get(stream)
            if marks:
                mark = marks.get(stream, 0)
            if known is None:
                begun = young_checksum(name_checksum(stream, self._seeds[number]), mark)
                found = row_checksum(begun, row)
                inserted.append((stream, number, found, mark, readings(stream, 0), now, now, blob(row)))
                checksum += found
            else:
                place, former, begun = known
                found = crc32(row, young_checksum(begun, mark) if mark else begun) & BITS | TOP_BIT
                recent[stream] = place, found, begun
                # see `blob`, without a call
                updated.append((number, found, mark, readings(stream, 0), now, bytearray(row), place))
                checksum += found - former
        self._database.executemany(_UPDATE, updated)
        if inserted:  # seldom
            self._database.executemany(_INSERT, inserted)
        return Totals(count + len(inserted), checksum)

    def _delete(self, streams: Collection[str]) -> Totals:
        """Delete the rows of streams. Returns the totals without them."""
        query = "select rowid, checksum from streams where stream in (select value from json_each(?))"
        found = self._database.execute(query, (json.dumps([*streams]),)).fetchall()
        self._database.executemany("delete from streams where rowid = ?", [(place,) for place, _ in found])
        for stream in streams:
            self._recent.pop(stream, None)
        gone = sum(checksum for _, checksum in found if isinstance(checksum, int))
        return Totals(self.totals.rows - len(found), self.totals.checksum - gone)

    def _look_up(self, rows: Sequence[tuple[str, bytes]]) -> None:
        """Have all of these streams that have a row in `_recent`."""
        recent, seed = self._recent, self._seeds[self._number]
        if not (unknown := [stream for stream, _ in rows if stream not in recent]):
            return
        if len(recent) > _MOST_RECENT:
            recent.clear()
            unknown = [stream for stream, _ in rows]
        query = """
            select stream, rowid, checksum from streams where stream in (select value from json_each(?))
        """
        for stream, place, checksum in self._database.execute(query, (json.dumps(unknown),)):
            known = checksum if isinstance(checksum, int) else 0  # 0: as `check` counts it
            recent[stream] = place, known, name_checksum(stream, seed)

    def rolled_back(self) -> None:
        """Note that what was written is not stored."""
        self._recent.clear()
