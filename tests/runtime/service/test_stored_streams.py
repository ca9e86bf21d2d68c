"""Streams of a stopped service are forgotten, and the checks of the database find nothing amiss after it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from edge_lstm.service.database.history import HistoryLimits
from edge_lstm.service.database.history_reader import read_parts
from edge_lstm.service.database.spans import SteppingRules
from edge_lstm.service.database.store import Store
from edge_lstm.service.database.stored_streams import forget_streams, list_streams
from edge_lstm.streaming.reading import Reading

BATCHES, EACH = 40, 60


def open_store(folder: Path) -> Store:
    return Store(folder / "state.db", "bundle-1", "layout", HistoryLimits(1000), "normal", SteppingRules())


def written(folder: Path) -> Store:
    """A database with two streams, most of whose readings are in chunks."""
    store = open_store(folder)
    for batch in range(1, BATCHES + 1):
        readings = [Reading(name, 1e9 + 100 * batch + at, {"level": 1.0}) for name in "ab" for at in range(EACH)]
        store.commit(batch, [("a", b"1"), ("b", b"2")], [], 0, [], 0, readings)
        for _ in range(10):
            store.compact_history()
    return store


def test_after_streams_are_forgotten_the_history_is_not_said_to_be_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path).close(0)
    assert forget_streams(tmp_path / "state.db", ["a"]) == ["a"]
    parts = read_parts(tmp_path / "state.db", "bundle-1", "b")
    assert sum(len(part.readings) for part in parts) >= 1000 / 2
    store = open_store(tmp_path)
    assert (store.damaged, store.count()) == (0, 1)
    store.close(0)
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("cut", [False, True])
def test_after_a_crash_a_log_that_is_whole_may_end_with_the_list_of_streams(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cut: bool
) -> None:
    store = written(tmp_path)
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in ("state.db", "state.db-wal"):
        shutil.copy(tmp_path / name, crashed)
    store.close(0)
    if cut:
        (crashed / "state.db-wal").unlink()
    assert [one.name for one in list_streams(crashed / "state.db")] == (["a", "b"] if not cut else [])
    again = open_store(crashed)
    again.close(0)
    said = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert any(text.startswith("write-ahead log lost or cut") for text in said) == cut
