"""The state database: what comes back after a crash, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_lstm.errors import EdgeLstmError
from edge_lstm.store import Store
from edge_lstm.streams import StreamTable
from tests.networks import contract_of, random_network

CONTRACT = contract_of(random_network())


def row(step: int) -> bytes:
    table = StreamTable(CONTRACT)
    table.step[table.slot("a")] = step
    table.states[0][0] = step / 7
    return table.row("a")


def test_the_last_commit_comes_back_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db", "bundle-1")
    store.commit(1, [("a", row(1)), ("b", row(5))], [("out/a", "1")], 0, ["7:x"])
    store.commit(2, [("a", row(2))], [("out/a", "2"), ("out/b", "3")], 0, ["8:y"])
    store.close(0)
    table = StreamTable(CONTRACT)
    again = Store(tmp_path / "state.db", "bundle-1")
    assert again.load(table) == (2, [("out/a", "1"), ("out/a", "2"), ("out/b", "3")], {"8:y"})
    assert {stream: table.row(stream) for stream in table.names} == {"a": row(2), "b": row(5)}
    again.commit(3, [], [], 2, [])
    again.close(3)
    assert Store(tmp_path / "state.db", "bundle-1").load(StreamTable(CONTRACT)) == (0, [], set())


def test_a_process_that_is_killed_leaves_its_last_commit(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from edge_lstm.store import Store\n"
        "store = Store(Path(sys.argv[1]), 'bundle-1'); store.commit(1, [('a', b'x' * 96)], [('t', 'p')], 0, [])\n"
        "store._database.execute('begin'); store._database.execute('delete from streams')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "state.db")], check=False)
    assert killed.returncode == -signal.SIGKILL
    table = StreamTable(CONTRACT)
    assert Store(tmp_path / "state.db", "bundle-1").load(table)[1] == [("t", "p")]
    assert list(table.names) == ["a"]


def test_states_of_another_bundle_are_dropped_loudly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path / "state.db", "bundle-1")
    store.commit(1, [("a", row(1))], [("out/a", "1")], 0, [])
    store.close(0)
    assert Store(tmp_path / "state.db", "bundle-2").load(StreamTable(CONTRACT)) == (0, [], set())
    assert "every stream starts cold was=bundle-1 is=bundle-2" in caplog.text


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database, but somebody's data" * 100)
    with pytest.raises(EdgeLstmError, match="expected a state database at"):
        Store(path, "bundle-1")
    assert path.read_bytes().startswith(b"not a database")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EdgeLstmError, match="expected to open the state database"):
        Store(tmp_path / "state.db", "bundle-1")


def test_a_disk_that_refuses_a_commit_is_named_and_nothing_of_it_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db", "bundle-1")
    store.commit(1, [("a", row(1))], [], 0, [])
    (pages,) = store._database.execute("pragma page_count").fetchone()
    store._database.execute(f"pragma max_page_count = {pages + 1}")  # what SQLite takes for a full disk
    with pytest.raises(EdgeLstmError, match=r"expected to commit states to .*found: database or disk is full"):
        store.commit(2, [(f"s{index}", row(2)) for index in range(1000)], [], 0, [])
    table = StreamTable(CONTRACT)
    store.load(table)
    assert {stream: table.row(stream) for stream in table.names} == {"a": row(1)}
