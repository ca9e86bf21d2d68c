"""A state database of release 0.1.0 is copied and migrated; a kill or a full disk leaves a database that works."""

from __future__ import annotations

import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.service.database import migration
from edge_lstm.service.database.history_reader import read_history
from edge_lstm.service.database.store import Store
from tests.written_states import STATES, WRITTEN

LAYOUT = "current.time <f8\n"
# Opens the database, and dies by SIGKILL before statement number N of the copy and the migration.
KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from edge_lstm.service.database import migration
from edge_lstm.service.database.store import Store

path, last = Path(sys.argv[1]), int(sys.argv[2])
count = 0
migrate = migration.migrate

def killed_at(point):
    global count
    if count == last:
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1

def traced(database, path, form):
    database.set_trace_callback(killed_at)
    for name in ("_copy", "_fsync"):
        original = getattr(migration, name)
        def replaced(*arguments, original=original):
            killed_at("before")
            original(*arguments)
            killed_at("after")
        setattr(migration, name, replaced)
    migrate(database, path, form)
    killed_at("committed")
    database.set_trace_callback(None)

import edge_lstm.service.database.store as store
store.migrate = traced
Store(path, sys.argv[3], "current.time <f8\\n").close(0)
"""


def contents(path: Path) -> dict[str, Any]:
    """What a stopped service's database of form 1 or 2 says of streams and messages."""
    with sqlite3.connect(path) as database:
        found = {
            table: sorted(database.execute(f"select {columns} from {table}"))
            for table, columns in [
                ("bundle", "id"),
                ("streams", "stream, row"),
                ("unsent", "batch, messages"),
                ("unacknowledged", "message, batch"),
                ("history", "batch, count, cast(readings as blob)"),
                ("subscribed", "filter"),
            ]
        }
    database.close()
    return found


def form(path: Path) -> int:
    with sqlite3.connect(path) as database:
        (version,) = database.execute("pragma user_version").fetchone()
    database.close()
    return int(version)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A database of 0.1.0 with three streams, unsent predictions and unacknowledged messages."""
    return Path(shutil.copyfile(WRITTEN / "states/outbox/state.db", tmp_path / "state.db"))


def bundle_of(path: Path) -> str:
    return str(contents(path)["bundle"][0][0])


@pytest.mark.parametrize("name", STATES)
def test_a_migration_keeps_every_row_message_and_reading(name: str, tmp_path: Path) -> None:
    state = Path(shutil.copyfile(WRITTEN / "states" / name / "state.db", tmp_path / "state.db"))
    before, bundle = contents(state), bundle_of(state)
    history = read_history(state, bundle)
    assert history[1] is not None
    Store(state, bundle, LAYOUT, 1000, rules=history[1]).close(-1)
    assert (form(state), contents(state)) == (2, before)
    assert read_history(state, bundle) == history


def test_a_migration_keeps_a_copy_that_0_1_0_can_use(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = contents(state)
    Store(state, bundle_of(state), LAYOUT).close(0)
    copy = state.with_name("state.db.form-1")
    assert sorted(path.name for path in state.parent.iterdir()) == ["state.db", "state.db.form-1"]
    assert (form(copy), contents(copy)) == (1, before)
    assert f"form 2 now, its former one is kept copy={copy}" in caplog.text


def test_the_copy_and_the_database_are_closed_to_other_users(state: Path) -> None:
    state.chmod(0o644)
    Store(state, "another", LAYOUT).close(0)
    assert {path.name: path.stat().st_mode & 0o777 for path in state.parent.glob("state.db*")} == {
        "state.db": 0o600,
        "state.db.form-1": 0o600,
    }


def test_a_database_that_went_back_to_the_copy_is_migrated_again(state: Path) -> None:
    bundle = bundle_of(state)
    Store(state, bundle, LAYOUT).close(0)
    copy = state.with_name("state.db.form-1")
    copy.replace(state)
    with sqlite3.connect(state) as former:  # as 0.1.0 goes on
        former.execute("update streams set row = x'01'")
    former.close()
    Store(state, bundle, LAYOUT).close(0)
    assert {row for _, row in contents(state)["streams"]} == {row for _, row in contents(copy)["streams"]} == {b"\x01"}


def test_rows_of_0_1_0_have_no_layout_until_their_stream_commits(state: Path) -> None:
    store = Store(state, bundle_of(state), LAYOUT)
    row = store.row("mill-1")
    assert row is not None
    assert row.layout == ""
    store.commit(100, [("mill-1", b"new")], [], 0, [], 0)
    assert store.row("mill-1") == (b"new", LAYOUT)
    store.close(0)


def test_a_kill_at_any_point_leaves_a_database_that_works(state: Path, tmp_path: Path) -> None:
    before, bundle = contents(state), bundle_of(state)
    original = state.read_bytes()
    forms = []
    for last in range(100):
        for leftover in tmp_path.iterdir():
            leftover.unlink()
        state.write_bytes(original)
        died = subprocess.run([sys.executable, "-c", KILLED, state, str(last), bundle], check=False).returncode
        if died == 0:
            break
        assert died == -signal.SIGKILL
        copy = Path(shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-{last}"))) / "state.db"
        forms.append(form(copy))
        assert contents(copy) == before, f"killed at point {last}"
        Store(state, bundle, LAYOUT).close(-1)
        assert (form(state), contents(state)) == (2, before), f"killed at point {last}"
    assert len(forms) > 40
    assert forms == sorted(forms)
    assert set(forms) == {1, 2}


@pytest.mark.parametrize("pages", [0, 1, 6, 11, 12, 20])
def test_a_full_disk_leaves_the_database_of_0_1_0(state: Path, pages: int) -> None:
    before, bundle, size = contents(state), bundle_of(state), state.stat().st_size
    assert size == 11 * 4096
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (pages * 4096, allowed[1]))  # of each file, as on a full disk
    try:
        with pytest.raises(EdgeLstmError) as caught:
            Store(state, bundle, LAYOUT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert "state.db" in caught.value.message
    assert "free" in caught.value.hint
    assert not list(state.parent.glob("*.part*"))
    assert (form(state), contents(state)) == (1, before)
    Store(state, bundle, LAYOUT).close(-1)
    assert (form(state), contents(state)) == (2, before)


def test_damage_in_a_database_of_0_1_0_does_not_stop_its_migration(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = bundle_of(state)
    with sqlite3.connect(state) as former:
        former.execute("update streams set stream = cast(x'61ff' as text) where stream = 'mill-1'")
        former.execute("update streams set row = 7 where stream = 'mill-2'")
        former.execute("update unsent set messages = 7 where batch = (select min(batch) from unsent)")
    former.close()
    store = Store(state, bundle, LAYOUT)
    assert [store.row(f"mill-{number}") is None for number in (1, 2, 3)] == [True, True, False]
    assert len(store.load()[1]) == 7
    assert store.damaged == 2
    store.close(-1)


def test_a_refused_migration_says_what_to_do(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(database: sqlite3.Connection, copy: Path) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(migration, "_copy", refuse)
    with pytest.raises(EdgeLstmError) as caught:
        Store(state, bundle_of(state), LAYOUT)
    assert caught.value.message == (
        f"expected to copy the state database at {state} and to bring it to form 2, found: database or disk is full"
    )
    assert caught.value.hint == (
        "free 1 MB on its disk, and start again; the file is unchanged, and the release that wrote it can still use it"
    )
