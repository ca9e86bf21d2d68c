"""The state database of a service: states, history, unsent predictions and unacknowledged messages."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shutil
import sqlite3
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.hashing import sha256
from edge_lstm.hardware.boards import Sync
from edge_lstm.messages.payloads import dump_json
from edge_lstm.service.outbox import Outgoing
from edge_lstm.streaming.reading import Reading

log = logging.getLogger(__name__)

_SCHEMA_VERSION = 1  # of tables and rows, kept as user_version; builds before 0.1.0 left 0
_CACHE_KIB = 512  # page cache; a page is seldom read twice
_PAGE_BYTES = 4096
_SHORT_LOG_PAGES = 256  # 1 MB of write-ahead log, on small disks
_LOG_PAGES = 1000  # 4 MB on others: a checkpoint takes several fsyncs, and one commit in hundreds waits for it

_SCHEMA = """
create table if not exists bundle (id text not null);
create table if not exists streams (stream text primary key, row blob not null);
create table if not exists unsent (batch integer primary key, messages blob not null);
create table if not exists unacknowledged (message text primary key, batch integer not null) without rowid;
create table if not exists history (batch integer primary key, count integer not null, readings text not null);
create table if not exists spans (
    since integer primary key, bundle text not null, max_rewind integer not null, window integer not null
);
create table if not exists subscribed (filter text primary key) without rowid;
create table if not exists layouts (id text primary key, description text not null) without rowid;
create trigger if not exists drop_layouts after delete on bundle begin delete from layouts; end;
"""
# `layouts`: of the rows in `streams`, its id is the description's SHA-256. The trigger drops it together with the rows
# of another bundle, also when release 0.1.0 does that, which does not know the table.

# An update in place: `insert or replace` would free a page, take another one, and write both page lists. The table has
# row ids, since one without them stores rows over 1,002 bytes on pages of their own.
_UPSERT_ROW = "insert into streams values (?, ?) on conflict (stream) do update set row = excluded.row"


class SteppingRules(NamedTuple):
    """How late and repeated readings are stepped (arguments of `Predictor`). A replay uses those of the service."""

    max_rewind: int
    window: int
    join_within_s: float | None = None


class StoreFullError(EdgeLstmError):
    """The disk refuses a commit at present. Nothing was changed; the commit may be tried again."""


_NO_RULES = SteppingRules(0, 0)
_AFTER_ALL_BATCHES = 1 << 62  # later than any batch


class Store:
    """A database file that one service owns. A commit is on the disk when it returns (WAL, synchronous = full).

    With sync = "normal" a commit is only in the kernel: a crash of the process loses nothing, a power cut the last
    commits.
    """

    def __init__(
        self,
        path: Path,
        bundle_id: str,
        layout: str,
        history: int = 0,
        sync: Sync = "full",
        rules: SteppingRules = _NO_RULES,
    ) -> None:
        """Open or make the database. `layout` describes the rows that it stores (`StreamTable.layout`).

        `history`: how many readings are kept for a replay, at least; `rules`: how they are stepped.

        A damaged file is moved aside and states of another bundle are dropped; both are logged. Raises EdgeLstmError
        if the file belongs to another program or a later edge-lstm, if its rows have another layout, if it cannot be
        opened or written, or if a running service uses it.
        """
        self._path = path
        self._history = history
        self._sync = sync
        try:
            self._database = self._open_or_replace()
            with contextlib.ExitStack() as on_failure:  # a file that stays open cannot be opened again
                on_failure.callback(self._database.close)
                found = self._database.execute("select id from bundle").fetchone()
                if found != (bundle_id,):
                    self._change_bundle(bundle_id, found[0] if found else None)
                self._require_layout(layout)
                self._begin_span((bundle_id, rules.max_rewind, rules.window))
                self._preallocate_log()
                (counted,) = self._database.execute("select total(count) from history").fetchone()
                on_failure.pop_all()
        except (sqlite3.OperationalError, OSError) as error:
            raise EdgeLstmError(
                f"expected to open the state database at {path}, found: {error}", _hint(error)
            ) from None
        self._history_count = int(counted)

    def _open_or_replace(self) -> sqlite3.Connection:
        try:
            return self._open()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            if _is_another_file(self._path):
                raise EdgeLstmError(
                    f"expected a state database at {self._path}, found: {error}", "name another path under state"
                ) from None
            self._move_aside(error)
            return self._open()

    def _open(self) -> sqlite3.Connection:
        """Raises sqlite3.DatabaseError if the file is damaged, EdgeLstmError if it has a later schema version."""
        database = sqlite3.connect(self._path, isolation_level=None, timeout=1.0)
        try:
            database.execute("pragma locking_mode = exclusive")  # a second service gets an error
            database.execute("pragma journal_mode = wal")
            database.execute(f"pragma synchronous = {self._sync}")
            database.execute(f"pragma wal_autocheckpoint = {_SHORT_LOG_PAGES}")
            database.execute(f"pragma cache_size = -{_CACHE_KIB}")
            (version,) = database.execute("pragma user_version").fetchone()
            tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
            if tables and "bundle" not in tables:
                raise EdgeLstmError(
                    f"expected a state database at {self._path}, found one with other tables ({', '.join(tables[:3])})",
                    "name another path under state",
                )
            if version > _SCHEMA_VERSION:
                raise EdgeLstmError(
                    f"expected a state database of schema version {_SCHEMA_VERSION} at {self._path}, "
                    f"found version {version}",
                    "run the later edge-lstm that wrote it, or name another path under state",
                )
            database.executescript(_SCHEMA)
            if version < _SCHEMA_VERSION:
                database.execute(f"pragma user_version = {_SCHEMA_VERSION}")
            (verdict,) = database.execute("pragma quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
        except (sqlite3.Error, EdgeLstmError):
            database.close()
            raise
        return database

    def _move_aside(self, error: sqlite3.Error) -> None:
        aside = self._path.with_name(f"{self._path.name}.damaged-{int(time.time())}")
        self._path.rename(aside)
        for ending in ("-wal", "-shm"):
            log_file = self._path.with_name(self._path.name + ending)
            if log_file.exists():
                log_file.rename(aside.with_name(aside.name + ending))
        log.error("state database damaged, every stream starts cold kept=%s error=%s", aside, error)

    def _change_bundle(self, bundle_id: str, former: str | None) -> None:
        if former is not None:
            log.warning("states belong to another bundle, every stream starts cold was=%s is=%s", former, bundle_id)
        with self._transaction():
            for table in ("streams", "bundle"):  # unsent predictions name their bundle themselves
                self._database.execute(f"delete from {table}")
            self._database.execute("insert into bundle values (?)", (bundle_id,))

    def _require_layout(self, layout: str) -> None:
        """Record the layout of the rows, or refuse them if they have another: their bytes would give wrong numbers."""
        digest = sha256(layout.encode()).hexdigest()
        found = self._database.execute("select id, description from layouts").fetchone()
        if found is not None and found[0] == digest:
            return
        if found is not None and self.count():
            raise _other_layout(self._path, layout, digest, *found)
        with self._transaction():  # a new file, no rows, or rows of release 0.1.0, which stored no layout
            self._database.execute("delete from layouts")
            self._database.execute("insert into layouts values (?, ?)", (digest, layout))

    def _begin_span(self, stepped_by: tuple[str, int, int]) -> None:
        """Record that readings are stepped by this bundle and these rules from the next batch on."""
        last = self._database.execute("select bundle, max_rewind, window from spans order by since desc").fetchone()
        if last != stepped_by:
            (former,) = self._database.execute("select max(batch) from history").fetchone()
            with self._transaction():
                self._database.execute(
                    "insert or replace into spans values (?, ?, ?, ?)", ((former or 0) + 1, *stepped_by)
                )

    def subscribe(self, filters: Sequence[str]) -> list[str]:
        """Record the topic filters of the session at the broker; returns the former ones that are not among them."""
        known = [name for (name,) in self._database.execute("select filter from subscribed")]
        new = [(name,) for name in filters if name not in known]
        # a full disk: filters that are not recorded are not unsubscribed later
        with contextlib.suppress(sqlite3.OperationalError):
            self._database.executemany("insert into subscribed values (?)", new)
        return [name for name in known if name not in filters]

    def load(self) -> tuple[int, list[tuple[int, list[Outgoing]]], list[str]]:
        """The number of the last batch, the unsent messages by batch (oldest first), and the unacknowledged messages.

        Each batch keeps its number, by which its messages are deleted after their confirmation.
        """
        unsent = self._database.execute("select batch, messages from unsent order by batch")
        batches = [(batch, list(_unpack(messages))) for batch, messages in unsent]
        unacknowledged = [message for (message,) in self._database.execute("select message from unacknowledged")]
        (last,) = self._database.execute("select max(batch) from history").fetchone()
        return max([last or 0, *(batch for batch, _ in batches)]), batches, unacknowledged

    def row(self, stream: str) -> bytes | None:
        """The committed row of the stream; None: a new stream. Raises EdgeLstmError if the file is damaged."""
        try:
            found = self._database.execute("select row from streams where stream = ?", (stream,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise self._damaged("read", error) from None
        row: bytes | None = found[0] if found else None
        return row

    def count(self) -> int:
        """The number of streams."""
        (count,) = self._database.execute("select count(*) from streams").fetchone()
        return int(count)

    def commit(
        self,
        batch: int,
        rows: Iterable[tuple[str, bytes]],
        outbox: Sequence[Outgoing],
        confirmed: int,
        unacknowledged: Iterable[str],
        acknowledged: int,
        readings: Sequence[Reading] = (),
    ) -> None:
        """Commit a batch in one transaction.

        Stored: the rows of the streams that stepped, the batch's outgoing and unacknowledged messages, its readings.
        Deleted: the outgoing messages of all batches up to `confirmed`, the unacknowledged messages of all batches up
        to `acknowledged`, and history beyond its limit.

        Raises StoreFullError if the disk refuses at present, EdgeLstmError if the file is damaged. Nothing is changed
        then.
        """
        history_count = self._history_count
        try:
            with self._transaction():
                self._database.executemany(_UPSERT_ROW, rows)
                self._database.execute("delete from unsent where batch <= ?", (confirmed,))
                if outbox:
                    self._database.execute("insert into unsent values (?, ?)", (batch, _pack(outbox)))
                self._database.execute("delete from unacknowledged where batch <= ?", (acknowledged,))
                self._database.executemany(
                    "insert or replace into unacknowledged values (?, ?)",
                    ((message, batch) for message in unacknowledged),
                )
                if self._history and readings:
                    self._append_history(batch, readings)
        except sqlite3.OperationalError as error:
            self._history_count = history_count  # the transaction was rolled back
            self._checkpoint()
            raise StoreFullError(
                f"expected to commit states to {self._path}, found: {error}",
                "free some space; nothing is lost: the broker keeps messages that are not committed",
            ) from None
        except sqlite3.DatabaseError as error:
            raise self._damaged("commit", error) from None

    def _damaged(self, what: str, error: sqlite3.Error) -> EdgeLstmError:
        return EdgeLstmError(
            f"expected to {what} states at {self._path}, found: {error}",
            "start the service again: it moves the damaged file aside; check the disk",
        )

    def _preallocate_log(self) -> None:
        """Use a long write-ahead log if the disk has space, and make it long by a transaction that is rolled back.

        A commit that makes the file longer also waits for the file system's journal. That takes several times as long,
        and waits for the writes of other programs.
        """
        size = _LOG_PAGES * _PAGE_BYTES
        if shutil.disk_usage(self._path.parent).free < 8 * size:
            return
        self._checkpoint()  # so that the log can be shortened again in every case
        try:
            self._database.execute("begin immediate")
            self._database.execute("insert into unsent values (-1, zeroblob(?))", (size,))
            taken = True
        except sqlite3.OperationalError:  # a quota, or another program took the space
            taken = False
        if self._database.in_transaction:
            self._database.execute("rollback")
        if taken:
            self._database.execute(f"pragma wal_autocheckpoint = {_LOG_PAGES}")
        else:
            self._checkpoint()

    def _checkpoint(self) -> None:
        """Move the write-ahead log into the file, and truncate it: that can free space on a full disk."""
        with contextlib.suppress(sqlite3.OperationalError):
            self._database.execute("pragma wal_checkpoint(truncate)")

    def _append_history(self, batch: int, readings: Sequence[Reading]) -> None:
        content = dump_json([*map(tuple, readings)])  # orjson does not take named tuples
        self._database.execute("insert into history values (?, ?, ?)", (batch, len(readings), content))
        self._history_count += len(readings)
        while self._history_count > 2 * self._history:  # rarely, and then many at once
            oldest = list(self._database.execute("select batch, count from history order by batch limit 100"))
            for number, count in oldest:
                if self._history_count - count < self._history:
                    return
                self._database.execute("delete from history where batch = ?", (number,))
                self._history_count -= count

    def close(self, confirmed: int) -> None:
        """Delete the outgoing messages of all batches up to `confirmed`, and close the file."""
        try:
            self._database.execute("delete from unsent where batch <= ?", (confirmed,))
        except sqlite3.OperationalError as error:  # a full disk: sent again at the next start, which QoS 1 allows
            log.warning("confirmed predictions stay in the outbox error=%s", error)
        self._database.close()

    def _transaction(self) -> sqlite3.Connection:
        """A context: begins a transaction, commits it at the end, rolls it back on an exception."""
        self._database.execute("begin immediate")
        return self._database


def read_history(path: Path, bundle_id: str) -> tuple[list[Reading], SteppingRules | None]:
    """The readings in a state database in the order of their processing, and the rules of their steps.

    Only the readings of the last time that this bundle ran. For a bundle that never ran there: all readings, and None.
    The file is not changed. Raises EdgeLstmError if it is no state database, or a running service uses it.
    """
    try:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1.0)
        try:
            since, until, rules = _span(database, bundle_id)
            kept = database.execute(
                "select readings from history where batch >= ? and batch < ? order by batch", (since, until)
            )
            readings = [
                Reading(stream, moment, _without_nulls(values), *rest)
                for (content,) in kept
                for stream, moment, values, *rest in json.loads(content)
            ]
            return readings, rules
        finally:
            database.close()
    except sqlite3.Error as error:
        raise EdgeLstmError(
            f"expected a state database at {path}, found: {error}",
            "copy the file of a stopped service, and use the copy",
        ) from None


def _span(database: sqlite3.Connection, bundle_id: str) -> tuple[int, int, SteppingRules | None]:
    """The batches [since, until) of the last time that the bundle ran, and its last rules."""
    since, until, rules = _AFTER_ALL_BATCHES, _AFTER_ALL_BATCHES, None
    for begun, bundle, max_rewind, window in database.execute("select * from spans order by since desc"):
        if bundle == bundle_id:
            since, rules = begun, rules or SteppingRules(max_rewind, window)
        elif rules is None:
            until = begun
        else:
            break
    return (0, _AFTER_ALL_BATCHES, None) if rules is None else (since, until, rules)


def _without_nulls(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else float(value) for name, value in values.items()}


def _pack(messages: Sequence[Outgoing]) -> bytes:
    """Number of parts, length of each (4 bytes per number), then the parts: topic, payload, topic, payload, …"""
    parts = [piece for topic, payload in messages for piece in (topic.encode(), payload)]
    return struct.pack(f"<{1 + len(parts)}I", len(parts), *map(len, parts)) + b"".join(parts)


def _unpack(content: bytes) -> Iterator[Outgoing]:
    (count,) = struct.unpack_from("<I", content)
    at = 4 + 4 * count
    parts = []
    for length in struct.unpack_from(f"<{count}I", content, 4):
        parts.append(content[at : at + length])
        at += length
    for topic, payload in zip(parts[::2], parts[1::2], strict=True):
        yield topic.decode(), payload


def _other_layout(path: Path, layout: str, digest: str, found_digest: str, found_layout: str) -> EdgeLstmError:
    lines = zip_longest(layout.splitlines(), found_layout.splitlines(), fillvalue="no more fields")
    expected, found = next((pair for pair in lines if pair[0] != pair[1]), ("the same fields", "the same fields"))
    return EdgeLstmError(
        f"expected stream rows of layout {digest[:12]} ({expected}) in {path}, "
        f"found rows of layout {found_digest[:12]} ({found})",
        "run the edge-lstm release that wrote the file; or move the file away, and every stream starts cold",
    )


def _is_another_file(path: Path) -> bool:
    """Whether the file begins like a text or a zip archive (a bundle is one). Such a file is left unchanged.

    A database page that a memory card damaged is neither: it has zeros, ones, or bytes of another file.
    """
    with path.open("rb") as file:
        begin = file.read(_PAGE_BYTES)
    # a text loses at most its last character, which is cut
    lost = len(begin) - len(begin.decode(errors="ignore").encode())
    return begin.startswith(b"PK") or (b"\0" not in begin and lost < 4)


def _hint(error: Exception) -> str:
    """The hint for a file that cannot be opened."""
    if "locked" in str(error):
        return "end the other service that uses it, or name another path under state"
    if "full" in str(error):
        return "free some space on its disk, or name another path under state"
    return "check that its folder exists and that the service may write to it, or name another path under state"
