"""The rows of the streams: stored with a checksum each, and with a count and a sum of checksums of all."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edge_lstm.service.database.checksums import row_checksum
from edge_lstm.service.database.damage import set_aside
from edge_lstm.service.database.service_values import ROWS, ROWS_CHECKSUM
from edge_lstm.streaming.row_format import StoredRow

log = logging.getLogger(__name__)

# An update in place: `insert or replace` would free a page, take another one, and write both page lists.
_UPSERT = """
    insert into streams (stream, layout, checksum, last_used, row) values (?, ?, ?, ?, ?) on conflict (stream) do update
    set layout = excluded.layout, checksum = excluded.checksum, last_used = excluded.last_used, row = excluded.row
"""


_MOST_NAMED = 20  # damaged rows in the log, at once


class Totals(NamedTuple):
    """Of all rows: how many, and the sum of their checksums."""

    rows: int = 0
    checksum: int = 0

    @property
    def values(self) -> dict[str, str]:
        """As values of the service."""
        return {ROWS: str(self.rows), ROWS_CHECKSUM: str(self.checksum)}


class StreamRows:
    """The tables `streams` and `layouts` of a database."""

    def __init__(self, database: sqlite3.Connection, layout: str) -> None:
        """`layout`: of the rows that are written."""
        self._database = database
        self.damaged = 0  # rows that were found damaged
        self.totals = Totals()
        self._layouts: dict[int, str] = {}
        self._layout = layout
        self._number = 0  # of that layout
        self._used_layouts: set[object] = set()  # by rows, when they were checked

    def check(self, values: Mapping[str, str]) -> None:
        """Check every row, and compare their count and checksums with those of the last commit."""
        count = checksum = 0
        used, damaged = set(), []
        for stream, layout, kept, row in self._database.execute("select stream, layout, checksum, row from streams"):
            if not _is_right(stream, layout, kept, row):
                damaged.append((stream, row))
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

    def open_layouts(self) -> None:
        """Record the layout of new rows, and drop those that no row has. Runs inside a transaction."""
        for number, text in list(self._database.execute("select id, description from layouts")):
            if number not in self._used_layouts and text != self._layout:
                self._database.execute("delete from layouts where id = ?", (number,))
        self._database.execute("insert or ignore into layouts (description) values (?)", (self._layout,))
        self._layouts = dict(self._database.execute("select id, description from layouts"))
        self._number = next(number for number, text in self._layouts.items() if text == self._layout)

    def delete_all(self) -> None:
        """Delete every row. Runs inside a transaction."""
        self._database.execute("delete from streams")
        self.totals, self._used_layouts = Totals(), set()

    def read(self, stream: str) -> StoredRow | None:
        """The row of the stream. None: a new stream, or one whose row is damaged; that is logged."""
        query = "select layout, checksum, row from streams where stream = ?"
        found = self._database.execute(query, (stream,)).fetchone()
        if found is None:
            return None
        layout, kept, row = found
        if layout not in self._layouts or not _is_right(stream, layout, kept, row):
            self._set_aside([(stream, row)])
            return None
        return StoredRow(row, self._layouts[layout])

    def _set_aside(self, damaged: Sequence[tuple[str, object]]) -> None:
        """Move damaged rows (stream, row) to the table `damaged`. If the disk refuses, they are overwritten."""
        if not damaged:
            return
        for stream, _ in damaged[:_MOST_NAMED]:
            log.error("row of a stream damaged, it starts cold stream=%s", stream)
        self.damaged += len(damaged)
        known = self._known([stream for stream, _ in damaged])
        if set_aside(self._database, "row", damaged, "delete from streams where stream = ?"):
            self.totals = Totals(self.totals.rows - known.rows, self.totals.checksum - known.checksum)

    def write(self, rows: Sequence[tuple[str, bytes]]) -> Totals:
        """Write the rows of different streams. Returns the totals, which hold once this is committed."""
        known = self._known([stream for stream, _ in rows])
        number, now = self._number, int(time.time())
        stored = [(stream, number, row_checksum(stream, number, row), now, row) for stream, row in rows]
        self._database.executemany(_UPSERT, stored)
        return Totals(
            self.totals.rows + len(stored) - known.rows,
            self.totals.checksum + sum([row[2] for row in stored]) - known.checksum,
        )

    def _known(self, streams: Sequence[str]) -> Totals:
        """The totals of the stored rows of these streams."""
        if len(streams) == 1:  # a statement of its own is faster
            found = self._database.execute("select 1, checksum from streams where stream = ?", streams).fetchone()
            return Totals(*found) if found else Totals()
        query = """
            select count(*), coalesce(sum(checksum), 0) from streams where stream in (select value from json_each(?))
        """
        return Totals(*self._database.execute(query, (json.dumps(streams),)).fetchone())


def _is_right(stream: str, layout: object, kept: object, row: object) -> bool:
    return isinstance(layout, int) and isinstance(row, bytes) and row_checksum(stream, layout, row) == kept
