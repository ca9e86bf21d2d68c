"""Commits to the state database: which streams are unsaved, and what happens while the disk is full."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from edge_lstm.service.database.readings_json import Record
from edge_lstm.service.database.store import Store, StoreFullError
from edge_lstm.service.outbox import Outbox, Outgoing
from edge_lstm.streaming.stream_table import StreamTable

log = logging.getLogger(__name__)


class Committer:
    """Numbers the batches, and commits each with the states of the streams that stepped."""

    def __init__(
        self,
        store: Store,
        table: StreamTable,
        outbox: Outbox,
        last_batch: int,
        wait: Callable[[], bool] | None,
        report: Callable[[Mapping[str, object]], None],
    ) -> None:
        """`last_batch`: number of the last batch in the store.

        `wait` passes the time between two attempts while the disk is full, and returns False if there is none left;
        None: one attempt only. `report` gets the error of the first attempt.
        """
        self.batch = last_batch
        self.unsaved: dict[str, None] = {}  # streams that stepped since the last commit
        self.values: dict[str, str] = {}  # of the service, by key: the next commit stores them
        self.saved_at = time.monotonic()  # when the last commit ended
        self._store, self._table, self._outbox = store, table, outbox
        self._wait, self._report = wait, report
        self._disk_full = False

    def begin_batch(self, streams: Iterable[str]) -> None:
        """A new batch, in which these streams stepped."""
        self.batch += 1
        self.unsaved.update(dict.fromkeys(streams))

    def commit(
        self, predictions: Sequence[Outgoing] = (), identities: Sequence[str] = (), readings: Sequence[Record] = ()
    ) -> bool:
        """Commit the batch: predictions to publish, identities of the incoming messages, readings and refusals for
        the history.

        Returns whether it is committed. While the disk is full and `wait` allows it, this tries again.
        """
        rows = list(zip(self.unsaved, self._table.rows(self.unsaved), strict=True))
        confirmed, acknowledged = self._outbox.confirmed, self._outbox.forgettable
        while True:
            try:
                self._store.commit(
                    self.batch, rows, predictions, confirmed, identities, acknowledged, readings, self.values
                )
                break
            except StoreFullError as error:
                self._note_full(error)
            if self._wait is None:
                self.saved_at = time.monotonic()
                return False
            if not self._wait():
                return False
        if self._disk_full:
            self._disk_full = False
            log.warning("commit taken, going on batch=%d", self.batch)
        self.unsaved.clear()
        self.saved_at = time.monotonic()
        return True

    def _note_full(self, error: StoreFullError) -> None:
        if not self._disk_full:
            self._disk_full = True
            log.error("commit refused, trying again and again: %s", error.message)
            self._report({"error": error.message})
