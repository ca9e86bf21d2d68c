"""The state database: what comes back after a crash, and what is refused."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.service.database.history_reader import read_history
from edge_lstm.service.database.spans import SteppingRules
from edge_lstm.service.database.store import Store, StoreFullError
from edge_lstm.streaming.reading import Reading
from edge_lstm.streaming.stream_table import StreamTable
from tests.networks import contract_of, random_network

LAYOUT = "current.time <f8\ncurrent.step <i8\n"


def open_store(folder: Path, bundle: str = "bundle-1", kept: int = 0) -> Store:
    return Store(folder / "state.db", bundle, LAYOUT, kept)


def content(store: Store, stream: str) -> bytes | None:
    """The bytes of a stored row."""
    row = store.row(stream)
    return None if row is None else row.content


def test_the_last_commit_is_read_back_completely(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.commit(1, [("a", b"1"), ("b", b"5")], [("out/a", b"1")], 0, ["7:x"], 0)
    store.commit(2, [("a", b"2")], [("out/a", b"2"), ("out/b", b"\xff3")], 0, ["8:y"], 1)
    store.close(0)
    again = open_store(tmp_path)
    assert again.load() == (
        2,
        [(1, [("out/a", b"1")]), (2, [("out/a", b"2"), ("out/b", b"\xff3")])],
        ["8:y"],
    )
    assert (content(again, "a"), content(again, "b"), again.row("c"), again.count()) == (b"2", b"5", None, 2)
    again.commit(3, [], [], 2, [], 2)
    again.close(3)
    assert open_store(tmp_path).load() == (3, [], [])


def test_a_process_that_is_killed_leaves_its_last_commit(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from edge_lstm.service.database.store import Store\n"
        "store = Store(Path(sys.argv[1]), 'bundle-1', sys.argv[2])\n"
        "store.commit(1, [('a', b'x')], [('t', b'p')], 0, [], 0)\n"
        "store._database.execute('begin'); store._database.execute('delete from streams')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "state.db"), LAYOUT], check=False)
    assert killed.returncode == -signal.SIGKILL
    store = open_store(tmp_path)
    assert store.load() == (1, [(1, [("t", b"p")])], [])
    assert content(store, "a") == b"x"


def frames(store: Store) -> int:
    """How many pages the write-ahead log holds."""
    _, logged, _ = store._database.execute("pragma wal_checkpoint(passive)").fetchone()
    return int(logged)


def test_a_step_of_one_stream_writes_two_log_pages(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.commit(1, [(f"s{index}", os.urandom(1304)) for index in range(64)], [], 0, [], 0)
    for batch in range(2, 5):  # the first of them takes a page for the outbox
        before = frames(store)  # folded into the file, so the next commit starts the log again
        store.commit(batch, [(f"s{batch}", os.urandom(1304))], [("out/s", b"p" * 150)], batch - 1, [], 0)
    assert (before > 0, frames(store)) == (True, 2)


def test_the_log_has_its_full_length_before_the_first_commit(tmp_path: Path) -> None:
    log = tmp_path / "state.db-wal"
    store = open_store(tmp_path)
    length = log.stat().st_size
    assert 3_000_000 < length < 5_000_000
    for batch in range(1, 100):
        store.commit(batch, [("a", os.urandom(1304))], [("out/a", b"1")], batch - 1, [], 0)
    assert log.stat().st_size == length
    assert (store.load()[1][0][0], store.count()) == (99, 1)
    store.close(99)
    assert [path.name for path in tmp_path.iterdir()] == ["state.db"]
    assert (tmp_path / "state.db").stat().st_size < 100_000


def test_a_disk_too_small_for_the_log_still_takes_commits(tmp_path: Path) -> None:
    script = (
        "import os, resource, signal, sys; from pathlib import Path\n"
        "from edge_lstm.service.database.store import Store\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))\n"
        "store = Store(Path(sys.argv[1]), 'bundle-1', '')\n"
        "for n in range(1, 400): store.commit(n, [('a', os.urandom(1304))], [('t', b'p')], n - 1, [], 0)\n"
        "print(store.load()[0])"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "s"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("399\n", 0), done.stderr


def test_a_database_with_an_older_row_layout_is_read_and_written(tmp_path: Path) -> None:
    former = sqlite3.connect(tmp_path / "state.db")
    former.execute("create table streams (stream text primary key, row blob not null) without rowid")
    former.execute("create table bundle (id text not null)")
    former.execute("insert into bundle values ('bundle-1')")
    former.execute("insert into streams values ('a', x'01'), ('b', x'02')")
    former.commit()
    former.close()
    store = open_store(tmp_path)
    store.commit(1, [("a", b"3"), ("c", b"4")], [], 0, [], 0)
    assert [content(store, stream) for stream in "abc"] == [b"3", b"\x02", b"4"]


def test_states_of_another_bundle_are_dropped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(tmp_path)
    store.commit(1, [("a", b"1")], [("out/a", b"1")], 0, [], 0)
    store.close(0)
    again = open_store(tmp_path, "bundle-2")
    assert (again.count(), again.row("a")) == (0, None)
    assert "every stream starts cold was=bundle-1 is=bundle-2" in caplog.text


def test_unsent_predictions_survive_a_bundle_change(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.commit(1, [("a", b"1")], [("out/a", b"1")], 0, ["7:x"], 0)
    store.close(0)
    assert open_store(tmp_path, "bundle-2").load() == (1, [(1, [("out/a", b"1")])], ["7:x"])


def test_a_file_that_is_not_a_database_is_refused_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database, but somebody's data" * 100)
    with pytest.raises(EdgeLstmError, match="expected a state database at"):
        open_store(tmp_path)
    assert path.read_bytes().startswith(b"not a database")


def test_foreign_and_newer_databases_are_refused_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    other = sqlite3.connect(path)
    other.execute("create table recorder (sensor text)")
    other.close()
    with pytest.raises(EdgeLstmError, match=r"found one with other tables \(recorder\)"):
        open_store(tmp_path)
    path.unlink()
    open_store(tmp_path).close(0)
    later = sqlite3.connect(path)
    (version,) = later.execute("pragma user_version").fetchone()
    later.execute(f"pragma user_version = {version + 1}")
    later.close()
    with pytest.raises(
        EdgeLstmError, match=rf"of schema version {version} at .*, found version {version + 1}"
    ) as caught:
        open_store(tmp_path)
    assert "later edge-lstm" in caught.value.hint


@pytest.mark.parametrize("first_page", [bytes(4096), b"\xff" * 4096, bytes(range(256)) * 16])
def test_a_damaged_first_page_counts_as_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, first_page: bytes
) -> None:
    store = open_store(tmp_path)
    store.commit(1, [(f"s{index}", bytes(500)) for index in range(40)], [], 0, [], 0)
    store.close(0)
    path = tmp_path / "state.db"
    path.write_bytes(first_page + path.read_bytes()[4096:])
    assert open_store(tmp_path).count() == 0
    assert len(list(tmp_path.glob("state.db.damaged-*"))) == 1
    assert "every stream starts cold" in caplog.text


def test_an_open_error_is_reported_with_its_fix(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with pytest.raises(EdgeLstmError) as caught:
        open_store(tmp_path)
    assert "check that its folder exists" in caught.value.hint


def test_a_damaged_database_is_moved_aside_and_streams_start_cold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path)
    store.commit(1, [(f"s{index}", bytes(500)) for index in range(400)], [], 0, [], 0)
    store.close(0)
    path = tmp_path / "state.db"
    data = bytearray(path.read_bytes())
    data[8192:60_000] = b"\xff" * (60_000 - 8192)
    path.write_bytes(data)
    again = open_store(tmp_path)
    assert again.count() == 0
    again.commit(1, [("a", b"1")], [], 0, [], 0)
    (aside,) = tmp_path.glob("state.db.damaged-*")
    assert aside.stat().st_size == len(data)
    assert "state database damaged, every stream starts cold" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EdgeLstmError, match="expected to open the state database"):
        open_store(tmp_path)


def test_a_refused_commit_is_rolled_back_and_named(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.commit(1, [("a", b"1")], [], 0, [], 0)
    (pages,) = store._database.execute("pragma page_count").fetchone()
    store._database.execute(f"pragma max_page_count = {pages + 1}")  # what SQLite takes for a full disk
    with pytest.raises(StoreFullError, match=r"expected to commit states to .*found: database or disk is full"):
        store.commit(2, [(f"s{index}", bytes(200)) for index in range(1000)], [], 0, [], 0)
    assert (content(store, "a"), store.count()) == (b"1", 1)
    store._database.execute("pragma max_page_count = 100000")
    store.commit(2, [(f"s{index}", bytes(200)) for index in range(1000)], [], 0, [], 0)
    assert store.count() == 1001


def test_history_keeps_the_newest_readings_in_order(tmp_path: Path) -> None:
    store = open_store(tmp_path, kept=50)
    readings = [Reading(f"s{index % 3}", 1e9 + index, {"level": index / 7}, str(index)) for index in range(400)]
    for batch in range(40):
        store.commit(batch + 1, [], [], batch, [], 0, readings[10 * batch : 10 * batch + 10])
    store.close(40)
    kept, rules = read_history(tmp_path / "state.db", "bundle-1")
    assert rules == SteppingRules(0, 0)
    assert 50 <= len(kept) <= 110
    assert kept == readings[-len(kept) :]
    with pytest.raises(EdgeLstmError, match="expected a state database"):
        read_history(tmp_path / "none.db", "bundle-1")


def test_history_is_complete_after_commits_that_a_full_disk_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 0))  # a short log
    store = open_store(tmp_path, kept=50)
    readings = [Reading("a", 1e9 + index, {"level": 1.0}) for index in range(10)]
    store.commit(1, [], [], 0, [], 0, readings)
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "state.db-wal").stat().st_size, former[1]))
    try:  # each is refused at the end of its transaction
        for _ in range(20):
            with pytest.raises(StoreFullError):
                store.commit(2, [("a", bytes(90_000))], [], 1, [], 0, readings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    for batch in range(2, 8):
        store.commit(batch, [], [], batch, [], 0, readings)
    store.close(8)
    assert len(read_history(tmp_path / "state.db", "bundle-1")[0]) == 70


def test_a_store_that_was_refused_leaves_the_file_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(store: Store, *facts: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "_begin_run", refuse)
        with pytest.raises(EdgeLstmError, match="found: database or disk is full") as caught:
            open_store(tmp_path)
    open_store(tmp_path).close(0)
    assert caught.value.__traceback__ is not None  # it holds the refused store, as during a reload


def test_history_is_returned_for_one_bundle_and_its_rules(tmp_path: Path) -> None:
    runs = [
        ("bundle-1", SteppingRules(8, 0)),
        ("bundle-2", SteppingRules(8, 0)),
        ("bundle-1", SteppingRules(0, 0)),
        ("bundle-1", SteppingRules(5, 9)),
    ]
    for run, (bundle, rules) in enumerate([*runs, ("bundle-2", SteppingRules(8, 0))]):
        store = Store(tmp_path / "state.db", bundle, LAYOUT, 100, rules=rules)
        (last, _, _) = store.load()
        store.commit(last + 1, [], [], last, [], 0, [Reading("a", 1e9 + run, {"level": 1.0})])
        store.close(last)

    def runs_of(bundle: str) -> tuple[list[float], SteppingRules | None]:
        readings, rules = read_history(tmp_path / "state.db", bundle)
        return [reading.time - 1e9 for reading in readings], rules

    assert runs_of("bundle-1") == ([2, 3], SteppingRules(5, 9))
    assert runs_of("bundle-2") == ([4], SteppingRules(8, 0))
    assert runs_of("bundle-3") == ([0, 1, 2, 3, 4], None)


def layouts(folder: Path) -> list[str]:
    """The layouts that a stopped service has in its database."""
    with sqlite3.connect(folder / "state.db") as database:
        found = [text for (text,) in database.execute("select description from layouts order by id")]
    database.close()
    return found


def test_a_row_keeps_its_layout_until_its_stream_commits_again(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.commit(1, [("a", b"1"), ("b", b"2")], [], 0, [], 0)
    store.close(0)
    other = "current.time <f8\ncurrent.step <i4\n"
    again = Store(tmp_path / "state.db", "bundle-1", other)
    assert again.row("a") == (b"1", LAYOUT)
    again.commit(2, [("a", b"3")], [], 0, [], 0)
    assert (again.row("a"), again.row("b")) == ((b"3", other), (b"2", LAYOUT))
    again.close(0)
    assert layouts(tmp_path) == [LAYOUT, other]


def test_a_layout_is_dropped_when_no_row_has_it(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.commit(1, [("a", b"1")], [], 0, [], 0)
    store.close(0)
    again = Store(tmp_path / "state.db", "bundle-1", "other\n")
    again.commit(2, [("a", b"2")], [], 0, [], 0)
    again.close(0)
    assert layouts(tmp_path) == [LAYOUT, "other\n"]
    third = Store(tmp_path / "state.db", "bundle-1", "other\n")
    assert third.row("a") == (b"2", "other\n")
    third.close(0)
    assert layouts(tmp_path) == ["other\n"]


def test_another_bundle_brings_its_own_layout(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.commit(1, [("a", b"1")], [], 0, [], 0)
    store.close(0)
    Store(tmp_path / "state.db", "bundle-2", "other\n").close(0)
    assert layouts(tmp_path) == ["other\n"]


@pytest.mark.parametrize(("depth", "window"), [(0, 0), (6, 0), (16, 256)])
def test_rows_of_another_depth_or_window_have_the_same_layout(tmp_path: Path, depth: int, window: int) -> None:
    contract = contract_of(random_network())
    written = StreamTable(contract, depth=8, window=64)
    slot = written.slot("a")
    written.current["step"][slot] = 7
    store = Store(tmp_path / "state.db", "bundle-1", written.layout)
    store.commit(1, [("a", written.row("a"))], [], 0, [], 0)
    store.close(0)
    table = StreamTable(contract, depth, window, lambda stream: again.row(stream))
    again = Store(tmp_path / "state.db", "bundle-1", table.layout)
    slot = table.slot("a")
    assert table.current["step"][slot] == 7
    again.close(0)


def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.commit(1, [], [], 0, [], 0)
    with pytest.raises(EdgeLstmError, match="database is locked"):
        open_store(tmp_path)
    store.close(0)
    sqlite3.connect(tmp_path / "state.db").close()


def test_a_new_database_and_its_log_are_closed_to_other_users(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        store = open_store(tmp_path)
        store.commit(1, [("a", b"1")], [], 0, [], 0)
    finally:
        os.umask(former)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "state.db": 0o600,
        "state.db-wal": 0o600,
    }
    store.close(0)


def test_an_open_database_and_its_copies_are_closed_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_store(tmp_path).close(0)
    names = ["state.db", "state.db.damaged-1700000000", "state.db.form-1"]
    for name in (*names, "state.db.txt"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o644)
    open_store(tmp_path).close(0)
    (line,) = [record.message for record in caplog.records if "closed to other users" in record.message]
    for name in names:
        assert name in line
    assert {path.name for path in tmp_path.iterdir() if path.stat().st_mode & 0o077} == {"state.db.txt"}
    caplog.clear()
    open_store(tmp_path).close(0)
    assert "closed to other users" not in caplog.text
