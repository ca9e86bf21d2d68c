"""The migration of a state database of form 1 (release 0.1.0) to form 2, after a copy of it."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.permissions import PRIVATE
from edge_lstm.service.database.checksums import (
    batch_checksum,
    layout_seed,
    message_checksum,
    name_checksum,
    row_checksum,
    span_checksum,
)
from edge_lstm.service.database.schema import FORM, TABLES, transaction
from edge_lstm.service.database.spans import SteppingRules, rules_text

log = logging.getLogger(__name__)

_FORM_1 = (  # builds before 0.1.0 lack some of them
    "create table if not exists unsent (batch integer primary key, messages blob not null)",
    "create table if not exists unacknowledged (message text primary key, batch integer not null) without rowid",
    "create table if not exists history (batch integer primary key, count integer not null, readings text not null)",
    """create table if not exists spans (
        since integer primary key, bundle text not null, max_rewind integer not null, window integer not null
    )""",
    "create table if not exists subscribed (filter text primary key) without rowid",
)
_MOVED = ("bundle", "streams", "unsent", "unacknowledged", "history", "spans", "subscribed")


def migrate(database: sqlite3.Connection, path: Path, form: int) -> None:
    """Copy the database to PATH.form-1, then bring it to form 2 in one transaction.

    Raises EdgeLstmError if the disk refuses one of the two: the file is unchanged then, and 0.1.0 can still use it.
    """
    copy = path.with_name(f"{path.name}.form-{form}")
    try:
        _copy(database, copy)
        _add_functions(database)
        with transaction(database):
            for statement in _statements():
                database.execute(statement)
    except (sqlite3.OperationalError, OSError) as error:
        size_mb = path.stat().st_size / 1e6
        raise EdgeLstmError(
            f"expected to copy the state database at {path} and to bring it to form {FORM}, found: {error}",
            f"free {max(4 * size_mb, 1):,.0f} MB on its disk, and start again; "
            "the file is unchanged, and the release that wrote it can still use it",
        ) from None
    log.warning("state database has form %d now, its former one is kept copy=%s", FORM, copy)


def _copy(database: sqlite3.Connection, copy: Path) -> None:
    """Write a consistent copy of the database. A kill at any moment leaves no part of one under this name."""
    part = copy.with_name(copy.name + ".part")
    part.unlink(missing_ok=True)  # of a migration that was killed
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))
    try:
        target = sqlite3.connect(part, isolation_level=None)
        try:
            target.execute("pragma synchronous = off")  # fsync follows
            database.backup(target)
        finally:
            target.close()
        _fsync(part)
        part.replace(copy)
        _fsync(copy.parent)
    except BaseException:
        for ending in ("", "-wal", "-shm", "-journal"):
            part.with_name(part.name + ending).unlink(missing_ok=True)
        raise


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _statements() -> Iterator[str]:
    yield from _FORM_1
    yield "drop trigger if exists drop_layouts"
    yield "drop table if exists layouts"  # of builds after 0.1.0; their rows are those of 0.1.0
    for table in _MOVED:
        yield f"alter table {table} rename to former_{table}"
    yield from TABLES
    yield "insert into bundle select id from former_bundle"
    yield "insert into layouts values (1, '')"
    yield """
        insert into streams
        select stream, 1, row_checksum(cast(stream as blob), row), 0, 0, 0, 0, row from former_streams"""
    yield "insert into unsent select batch, batch_checksum(batch, messages), null, messages from former_unsent"
    yield """
        insert into unacknowledged select message, batch, message_checksum(message, batch) from former_unacknowledged"""
    yield """
        insert into history
        select batch, count, 0, batch_checksum(batch, cast(readings as blob)), null, cast(readings as blob)
        from former_history"""
    yield """
        insert into spans
        select since, bundle, rules_text(max_rewind, window),
            span_checksum(since, bundle, rules_text(max_rewind, window))
        from former_spans"""
    yield "insert into subscribed select filter from former_subscribed"
    for table in _MOVED:
        yield f"drop table former_{table}"
    yield f"pragma user_version = {FORM}"


def _add_functions(database: sqlite3.Connection) -> None:
    seed = layout_seed(1, "")

    def of_row(stream: bytes, row: object) -> int:
        """0 for a damaged row: it is set aside when the database is opened."""
        begun = name_checksum(stream.decode(errors="replace"), seed)
        return row_checksum(begun, row) if isinstance(row, bytes) else 0

    def of_batch(batch: int, content: object) -> int:
        return batch_checksum(batch, None, content) if isinstance(content, bytes) else 0

    database.create_function("row_checksum", 2, of_row)
    database.create_function("batch_checksum", 2, of_batch)
    database.create_function("message_checksum", 2, message_checksum)
    database.create_function("span_checksum", 3, span_checksum)

    def of_rules(max_rewind: int, window: int) -> str:
        return rules_text(SteppingRules(max_rewind, window), "0.1.0")

    database.create_function("rules_text", 2, of_rules)
