"""Figures of a running service for another thread, taken by the service's own thread between two batches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from edge_lstm.service.reports.stats import Durations


class Snapshot(NamedTuple):
    """The figures at one moment."""

    stats: Mapping[str, Any]  # as on the stats topic
    durations: Durations
    connected: bool  # to the broker


class StatsRequests:
    """One thread asks, the service answers: it alone touches its state, so all figures are of one moment."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._wanted, self._answered = threading.Event(), threading.Event()
        self._found: Snapshot | None = None

    def ask(self, timeout_s: float) -> Snapshot | None:
        """The present figures; None if the service does not answer in time."""
        with self._one_at_a_time:
            self._found = None
            self._answered.clear()
            self._wanted.set()
            self._answered.wait(timeout_s)
            self._wanted.clear()
            return self._found

    def answer(self, take: Callable[[], Snapshot]) -> None:
        """In the service's thread: take the figures if someone waits for them."""
        if self._wanted.is_set():
            self._wanted.clear()
            self._found = take()
            self._answered.set()
