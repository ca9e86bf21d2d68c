"""Values of the service as a whole, by key: the newest arrival, the rows of all streams, a batch that was begun.

A commit stores those that change at every batch beside what it writes anyway (`facts` of `history` or `unsent`). A page
of their own would add a third to what a commit of one reading writes. The table `service` has them after a stop.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Mapping

from edge_lstm.service.database.checksums import batch_checksum, value_checksum

log = logging.getLogger(__name__)

BATCH = "batch"  # the last one that was committed
ROWS = "rows"  # how many the table `streams` has
ROWS_CHECKSUM = "rows_checksum"  # the sum of their checksums
RUNNING = "running"  # there from the start of a service to its stop: it ended by a crash where it is found
BEGUN = "begun"  # JSON: number and messages of a batch that is being processed, see `Store.begin`
BUNDLES = "bundles"  # JSON: which bundles ran, see `bundle_versions`; written at the start
LOG = "log"  # least length of the write-ahead log while the service runs
HISTORY = "history"  # how many readings are kept
OWN_KEYS = frozenset((BATCH, ROWS, ROWS_CHECKSUM, RUNNING, BEGUN, BUNDLES, LOG, HISTORY))


def read_values(database: sqlite3.Connection) -> dict[str, str]:
    """All values as of the last commit."""
    values: dict[str, str] = {}
    for key, value, kept in database.execute("select key, value, checksum from service"):
        if value_checksum(key, value) == kept:
            values[key] = value
        else:
            log.error("a value of the service is damaged, it is not used key=%s", key)
    for table, content in (("history", "readings"), ("unsent", "messages")):
        columns = f"batch, facts, checksum, {content}"
        newest = f"select {columns} from {table} where facts is not null order by batch desc limit 1"
        for batch, facts, kept, beside in database.execute(newest):
            if batch <= int(values.get(BATCH, -1)):
                continue
            if isinstance(beside, bytes) and batch_checksum(batch, facts, beside) == kept:
                values.update(json.loads(facts), batch=str(batch))
            else:
                log.error("newest values of the service damaged batch=%d", batch)
    return values


def write_values(database: sqlite3.Connection, values: Mapping[str, str]) -> None:
    """Write values into the table `service`."""
    rows = [(key, value, value_checksum(key, value)) for key, value in values.items()]
    database.executemany("insert or replace into service values (?, ?, ?)", rows)


def kept_readings(database: sqlite3.Connection) -> int:
    """How many readings the history has: what `HISTORY` says, where nothing is lost."""
    query = "select (select total(count) from history) + (select total(count) from chunks)"
    return int(database.execute(query).fetchone()[0])
