"""The streams in the state database of a stopped service: lists them, and forgets some."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.times.text import CLOCK_UNSET_BEFORE
from edge_lstm.service.database.checksums import batch_checksum
from edge_lstm.service.database.readings_json import records_text
from edge_lstm.service.database.schema import FORM, blob, connect, transaction
from edge_lstm.service.database.service_values import (
    BATCH,
    HISTORY,
    LOG,
    ROWS,
    ROWS_CHECKSUM,
    kept_readings,
    read_values,
    write_values,
)
from edge_lstm.service.database.stored_forecasts import forget_forecasts
from edge_lstm.service.database.write_ahead_log import log_bytes
from edge_lstm.streaming.reading import Forgotten

_MOST_NAMED = 5


class StoredStream(NamedTuple):
    """A stream, how many readings came, and when the first and the last did, in seconds since 1970 (None: unknown).

    Readings are counted since release 0.2.0.
    """

    name: str
    readings: int
    first: float | None
    last: float | None


def list_streams(path: Path) -> list[StoredStream]:
    """The streams, the one with the latest reading first. Raises EdgeLstmError as `forget_streams` does."""
    with opened(path) as database:
        return _streams(database)


def forget_streams(path: Path, names: Sequence[str] = (), idle_s: float | None = None) -> list[str]:
    """Delete the states and readings of these streams, or of all that had no reading for `idle_s` seconds; which ones.

    A stream of which it is not known when it had its last reading is not idle. Raises EdgeLstmError if a name is not
    there, or if it is no state database, has another form, or a running service owns it. Nothing is changed then.
    """
    with opened(path) as database:
        found = _streams(database)
        if idle_s is not None:
            before = time.time() - idle_s
            chosen = [one.name for one in found if one.last is not None and one.last < before]
        else:
            chosen = list(dict.fromkeys(names))
            known = {one.name for one in found}
            if unknown := [name for name in chosen if name not in known]:
                raise EdgeLstmError(
                    f"expected streams of {path}, found no stream {', '.join(unknown[:_MOST_NAMED])}",
                    "edge-lstm streams list shows their names",
                )
        if chosen:
            _forget(database, chosen)
        return chosen


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The database of a stopped service. Raises EdgeLstmError if there is none, or a running service owns it."""
    if not path.is_file():
        raise EdgeLstmError(
            f"expected a state database at {path}, found none",
            "start the service once; one of systemd has its database in a folder of /var/lib: name it with --state",
        )
    try:
        length = log_bytes(path)
        database, form = connect(path, "full")
        with contextlib.closing(database):
            if form < FORM:
                raise EdgeLstmError(
                    f"expected a state database of form {FORM} at {path}, found form {form}",
                    "start the service once with this release, which brings it to this form",
                )
            if length >= int(read_values(database).get(LOG, 0)):  # it was whole, and ends with this connection
                database.execute("delete from service where key = ?", (LOG,))
            yield database
    except sqlite3.Error as error:
        is_owned = "locked" in str(error)
        raise EdgeLstmError(
            f"expected a state database of a stopped service at {path}, found: {error}",
            "the running service owns it: stop the service (systemctl stop), do this again, and start it"
            if is_owned
            else "start the service: it repairs the file, or moves it aside",
        ) from None


def _streams(database: sqlite3.Connection) -> list[StoredStream]:
    rows = database.execute("select stream, readings, since, last_used from streams order by last_used desc, stream")
    return [StoredStream(name, count, _moment(first), _moment(last)) for name, count, first, last in rows]


def _moment(seconds: int) -> float | None:
    """None: before the column was written, or by a clock that was not set."""
    return float(seconds) if seconds >= CLOCK_UNSET_BEFORE else None


def _forget(database: sqlite3.Connection, names: Sequence[str]) -> None:
    """Delete the rows and chunks of the streams, and note in the history that their readings before are of no use."""
    values = read_values(database)
    (last,) = database.execute(
        "select max(batch) from (select batch from history union all select batch from unsent)"
    ).fetchone()
    batch = max(int(values.get(BATCH, 0)), last or 0) + 1
    kept = kept_readings(database)
    with transaction(database):
        for name in names:
            database.execute("delete from streams where stream = ?", (name,))
            database.execute("delete from chunks where stream = ?", (name,))
            forget_forecasts(database, name)
        count, checksum = database.execute("select count(*), total(checksum) from streams").fetchone()
        if database.execute("select 1 from history limit 1").fetchone() is not None:
            content = records_text(map(Forgotten, names))
            stored = batch, len(names), int(time.time()), batch_checksum(batch, None, content), None, blob(content)
            database.execute("insert into history values (?, ?, ?, ?, ?, ?)", stored)
        totals = {ROWS: str(count), ROWS_CHECKSUM: str(int(checksum))}
        if HISTORY in values:
            totals[HISTORY] = str(int(values[HISTORY]) + kept_readings(database) - kept)
        values.pop(LOG, None)
        write_values(database, {**values, **totals, BATCH: str(batch)})
