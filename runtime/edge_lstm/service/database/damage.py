"""Damaged content: a file is moved aside, a row or batch is set aside, so that it can be looked at."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from edge_lstm.service.database.schema import PAGE_BYTES, transaction

log = logging.getLogger(__name__)

_MOST_KEPT = 100


def move_file_aside(path: Path, error: sqlite3.Error) -> None:
    """Rename a damaged database and its log."""
    aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
    path.rename(aside)
    for ending in ("-wal", "-shm"):
        log_file = path.with_name(path.name + ending)
        if log_file.exists():
            log_file.rename(aside.with_name(aside.name + ending))
    log.error("state database damaged, every stream starts cold kept=%s error=%s", aside, error)


def set_aside(database: sqlite3.Connection, kind: str, found: Sequence[tuple[str, object]], delete: str) -> bool:
    """Copy damaged content (name, bytes) into the table `damaged`, and delete each by the statement `delete` of a name.

    The newest 100 are kept. Returns False where the disk refuses that at present: the content then stays.
    """
    now = int(time.time())
    rows = [(kind, name, now, content) for name, content in found]
    with contextlib.suppress(sqlite3.OperationalError), transaction(database):
        database.executemany("insert into damaged (kind, name, time, content) values (?, ?, ?, ?)", rows)
        database.execute("delete from damaged where id <= (select max(id) from damaged) - ?", (_MOST_KEPT,))
        database.executemany(delete, [(name,) for name, _ in found])
        return True
    return False


def is_another_file(path: Path) -> bool:
    """Whether the file begins like a text or a zip archive (a bundle is one). Such a file is left unchanged.

    A database page that a memory card damaged is neither: it has zeros, ones, or bytes of another file.
    """
    with path.open("rb") as file:
        begin = file.read(PAGE_BYTES)
    # a text loses at most its last character, which is cut
    lost = len(begin) - len(begin.decode(errors="ignore").encode())
    return begin.startswith(b"PK") or (b"\0" not in begin and lost < 4)
