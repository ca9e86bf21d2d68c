"""The write-ahead log of the database (-wal): its length, and when it is moved into the database."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

from edge_lstm.service.database.schema import PAGE_BYTES

SHORT_LOG_PAGES = 256  # 1 MB, on small disks
_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24  # https://sqlite.org/fileformat2.html, 4.1
_LOG_PAGES = 1000  # 4 MB on others: a checkpoint takes several fsyncs, and one commit in hundreds waits for it


def preallocate(database: sqlite3.Connection, path: Path) -> None:
    """Use a long write-ahead log if the disk has space, and make it long by a transaction that is rolled back.

    A commit that makes the file longer also waits for the file system's journal. That takes several times as long,
    and waits for the writes of other programs.
    """
    size = _LOG_PAGES * PAGE_BYTES
    if shutil.disk_usage(path.parent).free < 8 * size:
        return
    checkpoint(database)  # so that the log can be shortened again in every case
    try:
        database.execute("begin immediate")
        database.execute("insert into unsent values (-1, 0, null, zeroblob(?))", (size,))
        taken = True
    except sqlite3.OperationalError:  # a quota, or another program took the space
        taken = False
    if database.in_transaction:
        database.execute("rollback")
    if taken:
        database.execute(f"pragma wal_autocheckpoint = {_LOG_PAGES}")
    else:
        checkpoint(database)


def lost_commits(database: sqlite3.Connection, path: Path) -> int:
    """How many commits the log has behind a damaged place. SQLite takes such a place for the end of the log."""
    log_file = path.with_name(f"{path.name}-wal")
    _, valid, _ = database.execute("pragma wal_checkpoint(passive)").fetchone()
    if valid < 0 or not log_file.exists():
        return 0
    lost = 0
    with log_file.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        frame_bytes = _FRAME_HEADER_BYTES + int.from_bytes(header[8:12], "big")
        for begin in range(_HEADER_BYTES + valid * frame_bytes, log_file.stat().st_size, frame_bytes):
            file.seek(begin)
            frame = file.read(_FRAME_HEADER_BYTES)
            is_commit = any(frame[4:8])
            lost += is_commit and frame[8:16] == header[16:24]  # else of an earlier use of the log
    return lost


def checkpoint(database: sqlite3.Connection) -> None:
    """Move the write-ahead log into the file, and truncate it: that can free space on a full disk."""
    with contextlib.suppress(sqlite3.OperationalError):
        database.execute("pragma wal_checkpoint(truncate)")
