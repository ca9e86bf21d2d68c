"""Commits to the state database: which streams are unsaved, and what happens while the disk is full."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from edge_lstm.service.database.answered_commands import Answered
from edge_lstm.service.database.readings_json import Record
from edge_lstm.service.database.store import Store, StoreFullError
from edge_lstm.service.database.stored_forecasts import ForecastKey
from edge_lstm.service.database.stream_rows import NameChanges
from edge_lstm.service.processing.outbox import Outbox, Outgoing
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
        self.unsaved: Counter[str] = Counter()  # readings of the streams that had some since the last commit
        self.young: dict[str, int] = {}  # the marks of streams with few readings; `NameLimit` fills it
        self.added: set[str] = set()  # of the unsaved streams, those that are new in the database
        self.forgotten: dict[str, None] = {}  # streams that the next commit deletes there
        self.values: dict[str, str] = {}  # of the service, by key: the next commit stores them
        self.forecasts: dict[ForecastKey, str | None] = {}  # that changed: the next commit stores or deletes them
        self.answers: dict[str, Answered] = {}  # to operators' commands by id: the next commit stores them
        self.saved_at = time.monotonic()  # when the last commit ended
        self._store, self._table, self._outbox = store, table, outbox
        self._wait, self._report = wait, report
        self._disk_full = False

    def begin_batch(self, streams: Iterable[str] = ()) -> None:
        """A new batch, in which these streams stepped: each as often as it had a reading."""
        self.batch += 1
        self.stepped(streams)

    def stepped(self, streams: Iterable[str]) -> None:
        """These streams had a reading each."""
        self.unsaved.update(streams)

    def changed(self, stream: str) -> None:
        """A command changed the stream: the next commit has its row."""
        self.unsaved[stream] += 0

    def forget(self, stream: str) -> None:
        """The next commit deletes the stream, unless it steps again before."""
        self.unsaved.pop(stream, None)
        if stream in self.added:
            self.added.remove(stream)
        else:
            self.forgotten[stream] = None

    def commit(
        self, predictions: Sequence[Outgoing] = (), identities: Sequence[str] = (), readings: Sequence[Record] = ()
    ) -> bool:
        """Commit the batch: predictions to publish, identities of the incoming messages, readings and refusals for
        the history.

        Returns whether it is committed. While the disk is full and `wait` allows it, this tries again.
        """
        rows = list(zip(self.unsaved, self._table.rows(self.unsaved), strict=True))
        changes = NameChanges(self.unsaved, self.young, self.forgotten)
        confirmed, acknowledged = self._outbox.confirmed, self._outbox.forgettable
        while True:
            try:
                self._store.commit(
                    self.batch,
                    rows,
                    predictions,
                    confirmed,
                    identities,
                    acknowledged,
                    readings,
                    self.values,
                    changes,
                    list(self.answers.values()),
                    forecasts=self.forecasts,
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
        for noted in (self.unsaved, self.added, self.forgotten, self.forecasts, self.answers):
            noted.clear()
        self.saved_at = time.monotonic()
        return True

    def _note_full(self, error: StoreFullError) -> None:
        if not self._disk_full:
            self._disk_full = True
            log.error("commit refused, trying again and again: %s", error.message)
            self._report({"error": error.message})
