"""The tables of the state database in form 2, and which files are one. Only its owner may read them."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.permissions import PRIVATE, make_private
from edge_lstm.hardware.boards import Sync

log = logging.getLogger(__name__)

FORM = 2  # of the tables, kept as user_version; release 0.1.0 wrote form 1, builds before it left 0
PAGE_BYTES = 4096
_BESIDE = ("-wal", "-shm", "-journal", ".form-", ".damaged-")  # its log, the copy before a migration, damaged ones
_CACHE_KIB = 512  # page cache; a page is seldom read twice

# Tables have row ids where rows are long: a table without them stores rows over 1,002 bytes on pages of their own.
# Short columns come before long ones: SQLite then finds them without reading the long ones.
TABLES = (
    "create table bundle (id text not null)",
    # of the rows in `streams`; the description is empty for rows that 0.1.0 wrote
    "create table layouts (id integer primary key, description text not null unique)",
    # young: see `StreamRows`; since, last_used: of the first and the last reading, in seconds since 1970, 0: unknown
    """create table streams (
        stream text primary key, layout integer not null, checksum integer not null, young integer not null,
        readings integer not null, since integer not null, last_used integer not null, row blob not null
    )""",
    "create table unsent (batch integer primary key, checksum integer not null, facts text, messages blob not null)",
    """create table unacknowledged (
        message text primary key, batch integer not null, checksum integer not null
    ) without rowid""",
    # one row a batch, until a chunk has its readings; time: of the commit, in seconds since 1970
    """create table history (
        batch integer primary key, count integer not null, time integer not null, checksum integer not null,
        facts text, readings blob not null
    )""",
    # readings of one stream from several batches; stream null: a batch that was found damaged
    """create table chunks (
        id integer primary key, stream text, since integer not null, until integer not null, count integer not null,
        size integer not null, time integer not null, checksum integer not null, readings blob not null
    )""",
    "create index chunks_by_stream on chunks (stream, until, count, size)",
    """create table spans (
        since integer primary key, bundle text not null, rules text not null, checksum integer not null
    )""",
    "create table subscribed (filter text primary key) without rowid",
    "create table service (key text primary key, value text not null, checksum integer not null) without rowid",
    # the newest forecasts, as JSON; stream empty: of all streams
    """create table forecasts (
        quantity text not null, stream text not null, checksum integer not null, content text not null,
        primary key (quantity, stream)
    )""",
    # of operators, by id; command: JSON, null: it was refused
    """create table commands (
        id text primary key, batch integer not null, checksum integer not null, command text, answer text not null
    ) without rowid""",
    "create table poison (message blob not null, reason text not null, time integer not null)",
    # what was found damaged; kind: row or unsent
    """create table damaged (
        id integer primary key, kind text not null, name text not null, time integer not null, content blob
    )""",
)


def connect(path: Path, sync: Sync) -> tuple[sqlite3.Connection, int]:
    """Open or make the file, and own it. Returns the form of its tables; FORM for an empty file, which gets them.

    Raises sqlite3.DatabaseError if the file is damaged, EdgeLstmError if it is another program's or has a later form.
    """
    if not path.exists():  # os.open raises OSError where sqlite3 raises OperationalError: no folder, or not writable
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE))
    database = sqlite3.connect(path, isolation_level=None, timeout=1.0)
    database.text_factory = _text
    try:
        with readable_errors():
            return database, _opened(database, path, sync)
    except (sqlite3.Error, EdgeLstmError):
        database.close()
        raise


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Raise sqlite3.DatabaseError where SQLite's own error quotes damaged bytes, which Python cannot read as a text."""
    try:
        yield
    except UnicodeDecodeError:
        raise sqlite3.DatabaseError("malformed database schema") from None


def _opened(database: sqlite3.Connection, path: Path, sync: Sync) -> int:
    """Own the database; the form of its tables, as `connect` returns it."""
    database.execute("pragma locking_mode = exclusive")  # a second service gets an error
    database.execute("pragma journal_mode = wal")
    database.execute(f"pragma synchronous = {sync}")
    database.execute(f"pragma cache_size = -{_CACHE_KIB}")
    form = form_of(database, path)
    _close_to_others(path)
    if form is None:
        with transaction(database):
            for table in TABLES:
                database.execute(table)
            database.execute(f"pragma user_version = {FORM}")
        return FORM
    _check(database, path)
    if form == FORM:
        _check_columns(database)
    return form


def _check(database: sqlite3.Connection, path: Path) -> None:
    """Raise sqlite3.DatabaseError if the file is damaged. A damaged index is made again from its table.

    `quick_check` would compare no index with its table: a stream would not be found, or each commit would fail.
    """
    check = "pragma integrity_check(1)"
    (verdict,) = database.execute(check).fetchone()
    if verdict == "ok":
        return
    database.execute("reindex")
    if database.execute(check).fetchone() != ("ok",):
        raise sqlite3.DatabaseError(verdict)
    log.error("an index of the state database was damaged, it was made again path=%s found=%s", path, verdict)


def _check_columns(database: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError if a column is missing: SQLite checks the texts that define tables for syntax only.

    Each commit would fail then, as it does on a full disk.
    """
    whole = sqlite3.connect(":memory:")
    try:
        for statement in TABLES:
            whole.execute(statement)
        missing = _columns(whole) - _columns(database)
    finally:
        whole.close()
    if missing:
        names = ", ".join(f"{table}.{column}" for table, column in sorted(missing)[:3])
        raise sqlite3.DatabaseError(f"the definition of its tables lacks {names}")


def _columns(database: sqlite3.Connection) -> set[tuple[str, str]]:
    """(table, column) of all tables."""
    query = "select tables.name, columns.name from sqlite_master as tables, pragma_table_info(tables.name) as columns"
    return set(database.execute(query))


def _close_to_others(path: Path) -> None:
    """Close the file, its log and its copies to other users: release 0.1.0 left them open. Logged where needed.

    SQLite gives a new log the permissions of its file.
    """
    begins = tuple(f"{path.name}{ending}" for ending in _BESIDE)
    beside = [one for one in path.parent.iterdir() if one.name.startswith(begins) and one.is_file()]
    if repaired := [one.name for one in (path, *beside) if make_private(one)]:
        log.warning("state database closed to other users files=%s", ", ".join(sorted(repaired)))


def form_of(database: sqlite3.Connection, path: Path) -> int | None:
    """The form of the tables, None in an empty file. Raises EdgeLstmError if they are not ours or of a later form."""
    (form,) = database.execute("pragma user_version").fetchone()
    tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
    if tables and "bundle" not in tables:
        raise EdgeLstmError(
            f"expected a state database at {path}, found one with other tables ({', '.join(tables[:3])})",
            "name another path under state",
        )
    if form > FORM:
        raise EdgeLstmError(
            f"expected a state database of schema version {FORM} at {path}, found version {form}",
            "run the later edge-lstm that wrote it, or name another path under state",
        )
    return int(form) if tables else None


def _text(content: bytes) -> str:
    """A text of the database; damaged characters are replaced, and its checksum is wrong then."""
    return content.decode(errors="replace")


def blob(content: bytes) -> bytearray:
    """A parameter of a statement that runs often: of bytes, sqlite3 looks for an adapter, which takes longer."""
    return bytearray(content)


def transaction(database: sqlite3.Connection) -> sqlite3.Connection:
    """A context: begins a transaction, commits it at the end, rolls it back on an exception."""
    database.execute("begin immediate")
    return database
