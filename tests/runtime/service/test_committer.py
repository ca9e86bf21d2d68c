"""Commits while the disk takes them, and while it is full."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from edge_lstm.service.database.store import StoreFullError
from edge_lstm.service.processing.committer import Committer
from edge_lstm.service.processing.outbox import Outbox


class Disk:
    """A store that refuses the next commits, as many as a test says."""

    def __init__(self, refuses: int = 0) -> None:
        self.refuses = refuses
        self.commits: list[tuple[int, list[tuple[str, bytes]]]] = []
        self.values: list[dict[str, str]] = []

    def commit(self, batch: int, rows: list[tuple[str, bytes]], *others: Any, **more: Any) -> None:
        if self.refuses:
            self.refuses -= 1
            raise StoreFullError("expected to commit states, found: database or disk is full")
        self.commits.append((batch, rows))
        self.values.append(dict(others[5]))


class Table:
    """The rows of any streams."""

    def rows(self, streams: Mapping[str, None]) -> list[bytes]:
        return [stream.encode() for stream in streams]


def committer_of(disk: Disk, reports: list[Mapping[str, object]], waits: list[bool] | None) -> Committer:
    """`waits`: what the waits return, one after the other; None: one attempt only."""
    outbox = Outbox(lambda messages: [], lambda: set(), 3)
    wait = None if waits is None else lambda: waits.pop(0)
    return Committer(disk, Table(), outbox, 3, wait, reports.append)  # type: ignore[arg-type]


def test_a_commit_holds_every_stream_that_stepped_since_the_last_one() -> None:
    disk = Disk()
    committer = committer_of(disk, [], None)
    committer.begin_batch(["a", "b"])
    committer.begin_batch(["a", "c"])
    assert committer.commit()
    assert disk.commits == [(5, [("a", b"a"), ("b", b"b"), ("c", b"c")])]
    committer.begin_batch(["c"])
    assert committer.commit()
    assert disk.commits[1:] == [(6, [("c", b"c")])]


def test_a_commit_gets_the_values_that_the_service_has_then() -> None:
    disk = Disk()
    committer = committer_of(disk, [], None)
    assert committer.commit()
    committer.values["newest_arrival"] = "17"
    assert committer.commit()
    assert disk.values == [{}, {"newest_arrival": "17"}]


def test_a_full_disk_is_tried_again_and_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    disk, reports, waits = Disk(refuses=3), [], [True, True, True, True]
    committer = committer_of(disk, reports, waits)
    committer.begin_batch(["a"])
    assert committer.commit()
    assert len(waits) == 1
    assert disk.commits == [(4, [("a", b"a")])]
    assert reports == [{"error": "expected to commit states, found: database or disk is full"}]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "commit refused, trying again and again",
        "commit taken, going on batch=4",
    ]


def test_a_stop_while_the_disk_is_full_leaves_the_batch_uncommitted() -> None:
    disk = Disk(refuses=5)
    committer = committer_of(disk, [], [True, False])
    committer.begin_batch(["a"])
    assert not committer.commit()
    assert (disk.refuses, disk.commits, list(committer.unsaved)) == (3, [], ["a"])


def test_a_refused_commit_without_a_wait_is_left_to_the_next_one() -> None:
    disk, reports = Disk(refuses=1), []
    committer = committer_of(disk, reports, None)
    committer.begin_batch(["a"])
    assert not committer.commit()
    assert len(reports) == 1
    committer.begin_batch(["b"])
    assert committer.commit()
    assert disk.commits == [(5, [("a", b"a"), ("b", b"b")])]
    assert not committer.unsaved
