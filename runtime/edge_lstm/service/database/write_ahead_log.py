"""The write-ahead log of the database (-wal): its length, and when it is moved into the database."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import struct
from pathlib import Path

from edge_lstm.service.database.schema import PAGE_BYTES

SHORT_LOG_PAGES = 256  # 1 MB, on small disks
_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24  # https://sqlite.org/fileformat2.html, 4.1
_MOST_USES = 1 << 24  # of a log between two starts
_LOG_PAGES = 1000  # 4 MB on others: a checkpoint takes several fsyncs, and one commit in hundreds waits for it


def log_of(path: Path) -> Path:
    """The write-ahead log of a database."""
    return path.with_name(f"{path.name}-wal")


def log_bytes(path: Path) -> int:
    """The length of the log; 0: there is none."""
    return log_of(path).stat().st_size if log_of(path).exists() else 0


def preallocate(database: sqlite3.Connection, path: Path) -> bool:
    """Use a long write-ahead log if the disk has space, and make it long by a transaction that is rolled back.

    A commit that makes the file longer also waits for the file system's journal. That takes several times as long,
    and waits for the writes of other programs. Returns whether the log is long. The caller commits, and begins the log
    again (`checkpoint_all`): what was rolled back then counts as an earlier use.
    """
    size = _LOG_PAGES * PAGE_BYTES
    if shutil.disk_usage(path.parent).free < 8 * size:
        return False
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
    return taken


def lost_commits(database: sqlite3.Connection, path: Path) -> int:
    """How many commits the log has behind a damaged place, at least. SQLite takes such a place for the end of the log.

    The first frame behind the end is of an earlier use of the log, or there is none. Any other one was being written,
    or is damaged, and so is a log whose header is.
    """
    log_file = log_of(path)
    _, valid, _ = database.execute("pragma wal_checkpoint(passive)").fetchone()
    if valid < 0 or not log_file.exists():
        return 0
    with log_file.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES:
            return int(any(header))
        if not _is_right(header):
            frames = [file.read(_FRAME_HEADER_BYTES + PAGE_BYTES) for _ in range(_LOG_PAGES)]
            lost = sum(any(frame[4:8]) and frame[8:16] == frames[0][8:16] for frame in frames)
            return max(lost, int(any(map(any, [header, *frames]))))
        salts, lost, is_damaged = header[16:24], 0, False
        frame_bytes = _FRAME_HEADER_BYTES + int.from_bytes(header[8:12], "big")
        file.seek(_HEADER_BYTES + valid * frame_bytes)
        while len(frame := file.read(frame_bytes)) >= _FRAME_HEADER_BYTES and not _is_former(frame[8:16], salts):
            is_damaged = True
            lost += any(frame[4:8]) and frame[8:16] == salts
    return max(lost, int(is_damaged))


def _is_right(header: bytes) -> bool:
    """Whether the checksum of the log's header is right (https://sqlite.org/fileformat2.html, 4.2)."""
    big = header[3] & 1
    numbers = struct.unpack(f"{'>' if big else '<'}6I", header[:24])
    first = second = 0
    for one, other in zip(numbers[::2], numbers[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    kept: tuple[int, int] = struct.unpack(">2I", header[24:])
    return (first, second) == kept


def _is_former(found: bytes, salts: bytes) -> bool:
    """Whether a frame with these salts is of an earlier use of the log: each use adds 1 to the first, and chooses the
    second one at random."""
    (first, second), (present, present_second) = struct.unpack(">2I", found), struct.unpack(">2I", salts)
    return bool(second != present_second and 0 < (present - first) & 0xFFFFFFFF < _MOST_USES)


def checkpoint_all(database: sqlite3.Connection) -> None:
    """Move the write-ahead log into the file. The next commit writes to its begin; its length stays."""
    with contextlib.suppress(sqlite3.OperationalError):
        database.execute("pragma wal_checkpoint(passive)")


def checkpoint(database: sqlite3.Connection) -> None:
    """Move the write-ahead log into the file, and truncate it: that can free space on a full disk."""
    with contextlib.suppress(sqlite3.OperationalError):
        database.execute("pragma wal_checkpoint(truncate)")
