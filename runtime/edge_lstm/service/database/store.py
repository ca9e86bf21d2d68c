"""The state database of a service: states, history, unsent predictions and unacknowledged messages."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.times.text import CLOCK_UNSET_BEFORE
from edge_lstm.hardware.boards import Sync
from edge_lstm.messages.formats.payloads import dump_json
from edge_lstm.service.database.answered_commands import Answered, read_answer, write_answers
from edge_lstm.service.database.checksums import batch_checksum, message_checksum
from edge_lstm.service.database.damage import is_another_file, move_file_aside, set_aside
from edge_lstm.service.database.history import History, HistoryLimits
from edge_lstm.service.database.history_reader import kept_readings_of
from edge_lstm.service.database.migration import migrate
from edge_lstm.service.database.packed_messages import pack, unpack
from edge_lstm.service.database.readings_json import Record
from edge_lstm.service.database.schema import FORM, blob, connect, transaction
from edge_lstm.service.database.service_values import (
    BATCH,
    BEGUN,
    BUNDLES,
    HISTORY,
    LOG,
    OWN_KEYS,
    RUNNING,
    read_values,
    write_values,
)
from edge_lstm.service.database.spans import SteppingRules, begin_span
from edge_lstm.service.database.stored_forecasts import ForecastKey, read_forecasts, write_forecasts
from edge_lstm.service.database.stream_rows import NO_CHANGES, NameChanges, StreamRows
from edge_lstm.service.database.write_ahead_log import (
    SHORT_LOG_PAGES,
    checkpoint,
    checkpoint_all,
    log_bytes,
    lost_commits,
    preallocate,
)
from edge_lstm.service.processing.outbox import Outgoing
from edge_lstm.streaming.reading import Reading
from edge_lstm.streaming.row_format import StoredRow

log = logging.getLogger(__name__)


class StoreFullError(EdgeLstmError):
    """The disk refuses a commit at present. Nothing was changed; the commit may be tried again."""


_NO_RULES = SteppingRules()
_MOST_POISON = 100  # messages


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
        history: int | HistoryLimits = 0,
        sync: Sync = "full",
        rules: SteppingRules = _NO_RULES,
        judge: Callable[[str | None, str | None], str] | None = None,
    ) -> None:
        """Open or make the database. `layout` describes the rows that it writes (`StreamTable.layout`).

        `history`: how many readings are kept for a replay, at least, or all limits; `rules`: how they are stepped.
        `judge` gets the record of the bundles that ran and the id of the last one (None: none), and returns the new
        record. What it raises leaves the states as they are.

        A file of an earlier form is copied and migrated, a damaged one is moved aside, and states of another bundle are
        dropped; all three are logged. Raises EdgeLstmError if the file belongs to another program or a later
        edge-lstm, if it cannot be opened, migrated or written, or if a running service uses it.
        """
        self._path = path
        self._sync = sync
        self._damaged_batches = 0
        # each statement is a tenth of a commit of one reading, so those that would delete nothing are left out
        self._confirmed = -1  # up to which batch there are no unsent messages
        try:
            self._log_bytes = log_bytes(path)  # before SQLite changes it
            self._database = self._open_or_replace()
            with contextlib.ExitStack() as on_failure:  # a file that stays open cannot be opened again
                on_failure.callback(self._database.close)
                self._rows = StreamRows(self._database, layout)
                self._read_values()
                limits = history if isinstance(history, HistoryLimits) else HistoryLimits(history)
                self._history = History(self._database, limits)
                self._damaged_batches += self._history.check(self._recorded)
                self._begin_run(bundle_id, rules, judge)
                self._begin_log()
                on_failure.pop_all()
        except (sqlite3.OperationalError, OSError) as error:
            raise EdgeLstmError(
                f"expected to open the state database at {path}, found: {error}", _hint(error)
            ) from None

    def _open_or_replace(self) -> sqlite3.Connection:
        try:
            return self._open()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            if is_another_file(self._path):
                raise EdgeLstmError(
                    f"expected a state database at {self._path}, found: {error}", "name another path under state"
                ) from None
            move_file_aside(self._path, error)
            return self._open()

    def _open(self) -> sqlite3.Connection:
        """Raises sqlite3.DatabaseError if the file is damaged, EdgeLstmError if it is not ours."""
        database, form = connect(self._path, self._sync)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(database.close)
            if lost := lost_commits(database, self._path):
                self._damaged_batches += lost
                log.error(
                    "write-ahead log damaged, every stream goes on from before its last commits commits=%d; "
                    "if the machine failed during one commit, its readings come again",
                    lost,
                )
            if form < FORM:
                migrate(database, self._path, form)
            database.execute(f"pragma wal_autocheckpoint = {SHORT_LOG_PAGES}")
            on_failure.pop_all()
        return database

    def _read_values(self) -> None:
        found = read_values(self._database)
        self.ended_badly = found.pop(RUNNING, "") != ""
        self._begun = found.get(BEGUN)
        self._bundles = found.get(BUNDLES)
        self._recorded = found.get(HISTORY)
        self._values = {key: value for key, value in found.items() if key not in OWN_KEYS}
        # a file of form 1 has no such value
        (last,) = self._database.execute(
            "select max(batch) from (select batch from history union all select batch from unsent)"
        ).fetchone()
        self._batch = max(int(found.get(BATCH, 0)), last or 0)
        (last,) = self._database.execute("select max(batch) from unacknowledged").fetchone()
        self._unacknowledged = -1 if last is None else int(last)  # the newest batch that has some
        if self.ended_badly and self._log_bytes < int(found.get(LOG, 0)):
            self._damaged_batches += 1
            log.error(
                "write-ahead log lost or cut, every stream goes on from before its last commits expected=%s found=%d; "
                "if another program opened the database after a crash, nothing is lost",
                found[LOG],
                self._log_bytes,
            )
        self._rows.check(found)

    def _begin_run(
        self, bundle_id: str, rules: SteppingRules, judge: Callable[[str | None, str | None], str] | None
    ) -> None:
        """Record which bundle and rules step from now on. States of another bundle are dropped."""
        found = self._database.execute("select id from bundle").fetchone()
        judged = {} if judge is None else {BUNDLES: judge(self._bundles, None if found is None else found[0])}
        if found is not None and found != (bundle_id,):
            log.warning("states belong to another bundle, every stream starts cold was=%s is=%s", found[0], bundle_id)
        if found is None and self._rows.totals.rows:
            log.error(
                "state database damaged, it does not say of which bundle its states are; every stream starts cold"
            )
        with self._transaction():
            if found != (bundle_id,):  # unsent predictions name their bundle themselves
                self._database.execute("delete from bundle")
                self._database.execute("insert into bundle values (?)", (bundle_id,))
                self._rows.delete_all()
            self._rows.open_layouts()
            begin_span(self._database, self._batch + 1, bundle_id, rules)
            write_values(self._database, {**self._all_values(), **judged, RUNNING: "1"})

    def _begin_log(self) -> None:
        """Make the write-ahead log long, and record that: the next start finds a log that was lost or cut."""
        length = log_bytes(self._path) if preallocate(self._database, self._path) else 0
        with self._transaction():
            write_values(self._database, {LOG: str(length)})
        checkpoint_all(self._database)

    def _all_values(self) -> dict[str, str]:
        return {**self._values, **self._rows.totals.values, **self._history.values, BATCH: str(self._batch)}

    def service_values(self) -> dict[str, str]:
        """The values that earlier commits stored, by key."""
        return dict(self._values)

    def forecasts(self) -> list[tuple[ForecastKey, str]]:
        """The newest forecasts, the one that changed last at the end."""
        return read_forecasts(self._database)

    @property
    def begun(self) -> str | None:
        """JSON of a batch that an earlier process began and never committed, as `begin` wrote it."""
        return self._begun

    @property
    def damaged(self) -> int:
        """How many rows and batches were found damaged since the start."""
        return self._rows.damaged + self._damaged_batches

    def has_subscribed(self) -> bool:
        """Whether a service with this database has subscribed before."""
        return self._database.execute("select 1 from subscribed limit 1").fetchone() is not None

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

        Each batch keeps its number, by which its messages are deleted after their confirmation. A damaged batch is set
        aside and logged, and not among them.
        """
        unsent = list(self._database.execute("select batch, facts, checksum, messages from unsent order by batch"))
        batches = []
        for batch, facts, kept, content in unsent:
            if isinstance(content, bytes) and batch_checksum(batch, facts, content) == kept:
                batches.append((batch, list(unpack(content))))
                continue
            self._damaged_batches += 1
            log.error("unsent predictions damaged, they are not published batch=%d", batch)
            set_aside(self._database, "unsent", [(str(batch), content)], "delete from unsent where batch = ?", [batch])
        return self._batch, batches, self._identities()

    def _identities(self) -> list[str]:
        """The identities of the unacknowledged messages; damaged ones are logged."""
        found = list(self._database.execute("select message, batch, checksum from unacknowledged"))
        right = [message for message, batch, kept in found if message_checksum(message, batch) == kept]
        if lost := len(found) - len(right):
            self._damaged_batches += lost
            log.error("identities of messages damaged, one that comes again may be stepped twice messages=%d", lost)
        return right

    def row(self, stream: str) -> StoredRow | None:
        """The committed row of the stream; None: a new stream, or a damaged row. Raises EdgeLstmError on damage
        that SQLite finds."""
        try:
            return self._rows.read(stream)
        except sqlite3.DatabaseError as error:
            raise self._damaged("read", error) from None

    def answer(self, command_id: str) -> Answered | None:
        """The answer to an operator's command; None: it is not known."""
        return read_answer(self._database, command_id)

    def kept_readings(self, stream: str) -> tuple[list[tuple[int, Reading]], bool]:
        """The readings of a stream in the history, each with its batch, and whether these are all that it ever had."""
        (bundle_id,) = self._database.execute("select id from bundle").fetchone()
        found = kept_readings_of(self._database, bundle_id, stream)
        known = self._database.execute("select readings from streams where stream = ?", (stream,)).fetchone()
        return found, known is not None and len(found) >= known[0] > 0

    def streams(self) -> list[str]:
        """The streams that have a row. Takes long where there are many."""
        return [stream for (stream,) in self._database.execute("select stream from streams")]

    def count(self) -> int:
        """The number of streams."""
        return self._rows.totals.rows

    def known(self, streams: Collection[str]) -> set[str]:
        """Those of the streams that have a row."""
        return self._rows.known(streams)

    def young(self) -> dict[str, int]:
        """The marks of the streams that had few readings when the file was opened."""
        return dict(self._rows.young)

    def idle(self, before: float, most: int) -> list[str]:
        """At most `most` streams whose last reading came before that moment, the oldest first.

        Of those whose last reading came at an unknown moment, or by a clock that was not set, the idleness begins now.
        """
        with contextlib.suppress(sqlite3.OperationalError):  # a full disk
            self._rows.begin_idleness(int(CLOCK_UNSET_BEFORE))
            return self._rows.idle(int(before), most)
        return []

    @property
    def batch(self) -> int:
        """The number of the last batch that was committed."""
        return self._batch

    @property
    def folder(self) -> Path:
        """Where the file is."""
        return self._path.parent

    def begin(
        self, batch: int, messages: Sequence[str], *, boot: str = "", deaths: Mapping[str, int] | None = None
    ) -> None:
        """Record that a batch of these messages is being processed, until it is committed.

        A crash of the process leaves the record, which the next one finds in `begun`. It does not wait for the disk.
        `boot`: names this start of the machine; `deaths`: how often a process ended while it processed a message alone.
        """
        self._write_begun(dump_json({"batch": batch, "messages": [*messages], "boot": boot, "deaths": deaths or {}}))

    def end_attempt(self) -> None:
        """Delete the record of `begin`, if there is one; the batch is not committed yet."""
        if self._begun is not None:
            self._write_begun(None)

    def _write_begun(self, facts: str | None) -> None:
        self._database.execute("pragma synchronous = off")
        with contextlib.suppress(sqlite3.OperationalError):  # a full disk: the commit reports it
            if facts is None:
                self._database.execute("delete from service where key = ?", (BEGUN,))
            else:
                write_values(self._database, {BEGUN: facts})
            self._begun = facts
        self._database.execute(f"pragma synchronous = {self._sync}")

    def set_aside_message(self, content: bytes, reason: str) -> None:
        """Keep a packed message that ended the service or raised an exception. The newest hundred are kept."""
        with contextlib.suppress(sqlite3.OperationalError), self._transaction():  # a full disk: it is only logged
            self._database.execute("insert into poison values (?, ?, ?)", (content, reason, int(time.time())))
            self._database.execute(
                "delete from poison where rowid <= (select max(rowid) from poison) - ?", (_MOST_POISON,)
            )

    def poison(self) -> list[tuple[bytes, int]]:
        """The packed messages that were set aside, and when, in seconds since 1970."""
        rows = self._database.execute("select message, time from poison")
        return [(message, at) for message, at in rows if isinstance(message, bytes) and isinstance(at, int)]

    def commit(
        self,
        batch: int,
        rows: Iterable[tuple[str, bytes]],
        outbox: Sequence[Outgoing],
        confirmed: int,
        unacknowledged: Iterable[str],
        acknowledged: int,
        readings: Sequence[Record] = (),
        values: Mapping[str, str] | None = None,
        changes: NameChanges = NO_CHANGES,
        answers: Sequence[Answered] = (),
        *,
        forecasts: Mapping[ForecastKey, str | None] | None = None,
    ) -> None:
        """Commit a batch in one transaction.

        Stored: the rows of the streams that stepped (each stream once), the batch's outgoing and unacknowledged
        messages, its readings and refusals, values of the service by key, answers to commands, and forecasts that
        changed (None: deleted). Deleted: the outgoing messages of all batches up to `confirmed`, the unacknowledged
        messages of all batches up to `acknowledged`, history beyond its limits, and rows and history of
        `changes.forgotten`; such a stream may have a new row in the same batch.

        Raises StoreFullError if the disk refuses at present, EdgeLstmError if the file is damaged. Nothing is changed
        then.
        """
        kept = {**self._values, **(values or {})}
        messages = [(message, batch, message_checksum(message, batch)) for message in unacknowledged]
        try:
            with self._transaction():
                if confirmed > self._confirmed:
                    self._database.execute("delete from unsent where batch <= ?", (confirmed,))
                if self._unacknowledged >= 0:
                    self._database.execute("delete from unacknowledged where batch <= ?", (acknowledged,))
                if messages:
                    self._database.executemany("insert or replace into unacknowledged values (?, ?, ?)", messages)
                totals = self._rows.write(list(rows), changes)
                if changes.forgotten:
                    self._history.forget(changes.forgotten)
                if forecasts:
                    write_forecasts(self._database, forecasts)
                self._write_batch(batch, outbox, readings, {**kept, **totals.values})
                if answers:
                    write_answers(self._database, batch, answers)
                if self._begun is not None:
                    self._database.execute("delete from service where key = ?", (BEGUN,))
        except sqlite3.OperationalError as error:
            self._history.rolled_back()
            self._rows.rolled_back()
            self._shorten_log()
            raise StoreFullError(
                f"expected to commit states to {self._path}, found: {error}",
                "free some space; nothing is lost: the broker keeps messages that are not committed",
            ) from None
        except sqlite3.DatabaseError as error:
            raise self._damaged("commit", error) from None
        self._rows.totals, self._values, self._batch, self._begun = totals, kept, batch, None
        self._confirmed = confirmed
        if messages:
            self._unacknowledged = batch
        elif self._unacknowledged <= acknowledged:
            self._unacknowledged = -1

    def _shorten_log(self) -> None:
        """Make space on a full disk. The log is short then, which is no damage."""
        checkpoint(self._database)
        with contextlib.suppress(sqlite3.OperationalError):
            self._database.execute("delete from service where key = ?", (LOG,))

    def _write_batch(
        self, batch: int, outbox: Sequence[Outgoing], readings: Sequence[Record], values: Mapping[str, str]
    ) -> None:
        """Write messages and readings, and the values beside one of them, or else on their own."""
        if self._history.limits.readings and readings:
            self._history.append(batch, readings, values)
            facts: str | None = None
        else:
            values = {**values, **self._history.values}
            facts = dump_json(values)
        if outbox:
            content = pack(outbox)
            stored = batch, batch_checksum(batch, facts, content), facts, blob(content)
            self._database.execute("insert into unsent values (?, ?, ?, ?)", stored)
            facts = None
        if facts is not None:
            write_values(self._database, {**values, BATCH: str(batch)})

    def compact_history(self) -> None:
        """Do a short piece of work, so that the readings of one stream are found quickly. Call it often, when idle."""
        self._history.compact()

    def _damaged(self, what: str, error: sqlite3.Error) -> EdgeLstmError:
        return EdgeLstmError(
            f"expected to {what} states at {self._path}, found: {error}",
            "start the service again: it repairs the file, or moves it aside; check the disk",
        )

    def close(self, confirmed: int) -> None:
        """Delete the outgoing messages of all batches up to `confirmed`, and close the file."""
        try:
            with self._transaction():
                self._database.execute("delete from unsent where batch <= ?", (confirmed,))
                self._database.execute("delete from service where key in (?, ?)", (RUNNING, BEGUN))
                write_values(self._database, self._all_values())
        except sqlite3.OperationalError as error:  # a full disk: sent again at the next start, which QoS 1 allows
            log.warning("confirmed predictions stay in the outbox error=%s", error)
        self._database.close()

    def _transaction(self) -> sqlite3.Connection:
        return transaction(self._database)


def _hint(error: Exception) -> str:
    """The hint for a file that cannot be opened."""
    if "locked" in str(error):
        return "end the other service that uses it, or name another path under state"
    if "full" in str(error):
        return "free some space on its disk, or name another path under state"
    return "check that its folder exists and that the service may write to it, or name another path under state"
