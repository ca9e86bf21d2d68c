"""Values of the whole service: stored with a commit at no cost of pages, and there after a crash."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from edge_lstm.service.database.store import Store
from edge_lstm.streaming.reading import Reading

LAYOUT = "current.time <f8\n"
READINGS = [Reading("a", 1e9, {"level": 1.0})]
OUTBOX = [("out/a", b"1")]


def open_store(folder: Path, history: int = 100) -> Store:
    return Store(folder / "state.db", "bundle-1", LAYOUT, history)


def crash(store: Store) -> None:
    """End as the kernel ends a dead process."""
    store._database.close()


@pytest.mark.parametrize("stopped", [True, False])
@pytest.mark.parametrize(
    ("history", "outbox", "readings"),
    [(100, OUTBOX, READINGS), (100, [], READINGS), (0, OUTBOX, READINGS), (0, [], [])],
)
def test_the_newest_values_are_read_after_a_stop_and_a_crash(
    history: int, outbox: list[tuple[str, bytes]], readings: list[Reading], stopped: bool, tmp_path: Path
) -> None:
    store = open_store(tmp_path, history)
    assert store.service_values() == {}
    store.commit(1, [("a", b"1")], OUTBOX, 0, [], 0, READINGS, {"newest_arrival": "17", "bundle_version": "3"})
    for batch in range(2, 5):
        store.commit(batch, [("a", b"1")], outbox, batch - 1, [], 0, readings, {"newest_arrival": str(batch)})
    assert store.service_values() == {"newest_arrival": "4", "bundle_version": "3"}
    if stopped:
        store.close(4)
    else:
        crash(store)
    again = open_store(tmp_path, history)
    assert again.service_values() == {"newest_arrival": "4", "bundle_version": "3"}
    assert (again.ended_badly, again.load()[0], again.count()) == (not stopped, 4, 1)
    again.close(4)


def test_values_without_history_are_newer_than_those_beside_old_readings(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.commit(1, [], [], 0, [], 0, READINGS, {"newest_arrival": "1"})
    crash(store)
    without = open_store(tmp_path, 0)
    without.commit(2, [], [], 1, [], 0, READINGS, {"newest_arrival": "2"})
    crash(without)
    again = open_store(tmp_path)
    assert again.service_values() == {"newest_arrival": "2"}
    again.commit(3, [], [], 1, [], 0, READINGS, {"newest_arrival": "3"})
    crash(again)
    assert open_store(tmp_path).service_values() == {"newest_arrival": "3"}


def test_damaged_values_are_said_and_the_former_ones_are_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(tmp_path)
    store.commit(1, [("a", b"1")], [], 0, [], 0, READINGS, {"newest_arrival": "1"})
    store.close(1)
    store = open_store(tmp_path)
    store.commit(2, [("a", b"1")], [], 0, [], 0, READINGS, {"newest_arrival": "2"})
    crash(store)
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute("update history set facts = replace(facts, '2', '9') where batch = 2")
    database.close()
    again = open_store(tmp_path)
    assert again.service_values() == {"newest_arrival": "1"}
    assert "newest values of the service damaged batch=2" in caplog.text
    assert again.row("a") == (b"1", LAYOUT)
    again.close(2)


@pytest.mark.parametrize("damage", ["value = '9'", "value = cast(x'ff' as text)", "checksum = 0"])
def test_a_damaged_value_of_a_stopped_service_is_not_used(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path)
    store.commit(1, [("a", b"1")], [], 0, [], 0, READINGS, {"newest_arrival": "17"})
    store.close(1)
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute(f"update service set {damage} where key <> 'rows'")
    database.close()
    again = open_store(tmp_path)
    assert again.service_values() == {"newest_arrival": "17"}  # it is beside the readings, too
    assert "a value of the service is damaged, it is not used key=newest_arrival" in caplog.text
    assert (again.load()[0], again.row("a")) == (1, (b"1", LAYOUT))
    again.close(1)


@pytest.mark.parametrize("damage", ["rules = '{'", "rules = '7'", "rules = cast(x'ff' as text)"])
def test_damaged_rules_begin_a_new_span_and_stop_only_a_replay_of_the_former(damage: str, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.commit(1, [], [], 0, [], 0, READINGS)
    store.close(1)
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute(f"update spans set {damage}")
    database.close()
    again = open_store(tmp_path)
    again.commit(2, [], [], 0, [], 0, READINGS)
    again.close(2)
    with sqlite3.connect(tmp_path / "state.db") as database:
        assert database.execute("select since from spans order by since").fetchall() == [(1,), (2,)]
    database.close()


def test_a_batch_that_was_begun_is_known_after_a_crash_and_no_longer_after_its_commit(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.begin(1, ["7:abc", "8:def"])
    crash(store)
    again = open_store(tmp_path)
    assert again.begun is not None
    facts = {"batch": 1, "messages": ["7:abc", "8:def"], "boot": "", "deaths": {}}
    assert (again.ended_badly, json.loads(again.begun)) == (True, facts)
    again.commit(1, [("a", b"1")], OUTBOX, 0, [], 0, READINGS)
    assert again.begun is None
    crash(again)
    third = open_store(tmp_path)
    assert (third.ended_badly, third.begun) == (True, None)
    third.close(1)
    assert not open_store(tmp_path).ended_badly


def test_a_begun_batch_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.begin(1, ["7:abc"])
    assert store._database.execute("pragma synchronous").fetchone() == (2,)  # full again
    store.close(0)
