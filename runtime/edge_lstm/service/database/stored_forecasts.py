"""The rows of the newest forecasts, by quantity and stream."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from typing import NamedTuple

from edge_lstm.service.database.checksums import value_checksum

log = logging.getLogger(__name__)

_FOR_ALL = ""  # in the column of streams; no stream has an empty name


class ForecastKey(NamedTuple):
    """What a forecast is of."""

    quantity: str
    stream: str | None  # None: of all streams


def read_forecasts(database: sqlite3.Connection) -> list[tuple[ForecastKey, str]]:
    """The content of each row, the one that was written last at the end. Damaged ones are logged and left out."""
    found = []
    for quantity, stream, content, kept in database.execute(
        "select quantity, stream, content, checksum from forecasts order by rowid"
    ):
        if value_checksum(_checked_name(quantity, stream), content) == kept:
            found.append((ForecastKey(quantity, stream or None), content))
        else:
            log.error("a forecast in the state database is damaged, it is not used quantity=%s", quantity)
    return found


def write_forecasts(database: sqlite3.Connection, changes: Mapping[ForecastKey, str | None]) -> None:
    """Write these rows; None: delete it."""
    for (quantity, of_stream), content in changes.items():
        stream = of_stream or _FOR_ALL
        if content is None:
            database.execute("delete from forecasts where quantity = ? and stream = ?", (quantity, stream))
            continue
        row = quantity, stream, value_checksum(_checked_name(quantity, stream), content), content
        database.execute("insert or replace into forecasts values (?, ?, ?, ?)", row)


def forget_forecasts(database: sqlite3.Connection, stream: str) -> None:
    """Delete the forecasts of a stream."""
    database.execute("delete from forecasts where stream = ?", (stream,))


def _checked_name(quantity: str, stream: str) -> str:
    return f"{quantity}\n{stream}"
