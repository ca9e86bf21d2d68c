"""What a service must not forget: states, unsent predictions and unacknowledged messages, in one SQLite transaction."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge_lstm.errors import EdgeLstmError
from edge_lstm.streams import StreamTable

log = logging.getLogger(__name__)

_SCHEMA = """
create table if not exists bundle (id text not null);
create table if not exists streams (stream text primary key, row blob not null) without rowid;
create table if not exists outbox (batch integer primary key, messages text not null);
create table if not exists unacknowledged (message text primary key) without rowid;
"""

Outgoing = tuple[str, str]  # topic, payload


class Store:
    """A database file that one service owns. Every commit is on the disk when it returns (WAL, synchronous = FULL)."""

    def __init__(self, path: Path, bundle_id: str) -> None:
        """Open or make the database. States of another bundle are dropped, and the log says so.

        Raises EdgeLstmError where the file is no database, is damaged, or belongs to a running service.
        """
        self._path = path
        try:
            self._database = sqlite3.connect(path, isolation_level=None, timeout=1.0)
            self._database.execute("pragma locking_mode = exclusive")  # a second service on it is an error
            self._database.execute("pragma journal_mode = wal")
            self._database.execute("pragma synchronous = full")
            self._database.executescript(_SCHEMA)
            found = self._database.execute("select id from bundle").fetchone()
            if found != (bundle_id,):
                self._adopt(bundle_id, found[0] if found else None)
        except sqlite3.OperationalError as error:
            raise EdgeLstmError(
                f"expected to open the state database at {path}, found: {error}",
                "end the other service that uses it, or name another path under state",
            ) from None
        except sqlite3.DatabaseError as error:
            raise EdgeLstmError(
                f"expected a state database at {path}, found: {error}",
                "move that file away; every stream then starts cold",
            ) from None

    def _adopt(self, bundle_id: str, former: str | None) -> None:
        with self._transaction():
            if former is not None:
                log.warning("states belong to another bundle, every stream starts cold was=%s is=%s", former, bundle_id)
            self._database.execute("delete from streams")
            self._database.execute("delete from outbox")
            self._database.execute("delete from bundle")
            self._database.execute("insert into bundle values (?)", (bundle_id,))

    def load(self, table: StreamTable) -> tuple[int, list[Outgoing], set[str]]:
        """Put every stream's row into `table`; return the last batch's number, the outbox (oldest first), and the
        unacknowledged messages."""
        for stream, row in self._database.execute("select stream, row from streams"):
            table.put_row(stream, row)
        batches = list(self._database.execute("select batch, messages from outbox order by batch"))
        outbox = [(topic, payload) for _, messages in batches for topic, payload in json.loads(messages)]
        unacknowledged = {message for (message,) in self._database.execute("select message from unacknowledged")}
        return (batches[-1][0] if batches else 0), outbox, unacknowledged

    def commit(
        self,
        batch: int,
        rows: Iterable[tuple[str, bytes]],
        outbox: Sequence[Outgoing],
        confirmed: int,
        unacknowledged: Iterable[str],
    ) -> None:
        """In one transaction: the rows of the streams that stepped and the batch's outgoing messages come in, the
        outgoing messages of all batches up to `confirmed` leave, and the unacknowledged messages are replaced.

        Raises EdgeLstmError where the disk refuses; then nothing of it is done.
        """
        try:
            with self._transaction():
                self._database.executemany("insert or replace into streams values (?, ?)", rows)
                self._database.execute("delete from outbox where batch <= ?", (confirmed,))
                self._database.execute("insert into outbox values (?, ?)", (batch, json.dumps(outbox)))
                self._database.execute("delete from unacknowledged")
                self._database.executemany(
                    "insert or ignore into unacknowledged values (?)", ((message,) for message in unacknowledged)
                )
        except sqlite3.DatabaseError as error:
            raise EdgeLstmError(
                f"expected to commit states to {self._path}, found: {error}",
                "free some space; nothing is lost: the broker keeps what is not committed",
            ) from None

    def close(self, confirmed: int) -> None:
        """Drop the outgoing messages of all batches up to `confirmed`, and let go of the file, the log folded in."""
        self._database.execute("delete from outbox where batch <= ?", (confirmed,))
        self._database.close()

    def _transaction(self) -> sqlite3.Connection:
        """A context: begun here, committed at its end, rolled back where it raises."""
        self._database.execute("begin immediate")
        return self._database
