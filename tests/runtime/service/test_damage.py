"""Damaged rows, batches and readings of a state database: said, set aside, and never used."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_lstm.service.database.checksums import (
    WRONG,
    batch_checksum,
    chunk_checksum,
    message_checksum,
    span_checksum,
    value_checksum,
)
from edge_lstm.service.database.store import Store, StoreFullError

CHANGED = "streams were lost or changed outside of a commit, lost ones start cold expected=3"
LAYOUT = "current.time <f8\n"


def stored(folder: Path) -> Store:
    """A stopped service's database with three streams and two unsent batches, opened again by the caller."""
    store = open_store(folder)
    store.commit(1, [("a", b"row of a"), ("b", b"row of b"), ("c", b"row of c")], [("out/a", b"1")], 0, [], 0)
    store.commit(2, [("a", b"next of a")], [("out/a", b"2")], 0, [], 0)
    store.close(0)
    return store


def open_store(folder: Path) -> Store:
    return Store(folder / "state.db", "bundle-1", LAYOUT)


def change(folder: Path, statement: str) -> None:
    """Change the file as a faulty disk or another program does."""
    with sqlite3.connect(folder / "state.db") as database:
        database.execute(statement)
    database.close()


def damaged(folder: Path) -> list[tuple[str, str, bytes]]:
    with sqlite3.connect(folder / "state.db") as database:
        found = list(database.execute("select kind, name, content from damaged order by id"))
    database.close()
    return found


@pytest.mark.parametrize(
    "changed",
    [
        "row = x'726F77206F662062'",  # the row of another stream
        "row = x'6E657874206F662062'",  # one bit
        "row = x'6E657874206F66'",
        "row = 7",
        "layout = 9",
        "checksum = checksum + 1",
    ],
)
def test_a_damaged_row_is_set_aside_and_its_stream_starts_cold(
    changed: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored(tmp_path)
    change(tmp_path, f"update streams set {changed} where stream = 'a'")
    store = open_store(tmp_path)
    assert (store.row("a"), store.row("b"), store.damaged) == (None, (b"row of b", LAYOUT), 1)
    assert "row of a stream damaged, it starts cold stream=a" in caplog.text
    assert (store.row("a"), store.count(), store.damaged) == (None, 2, 1)
    store.commit(3, [("a", b"new")], [], 0, [], 0)
    assert store.row("a") == (b"new", LAYOUT)
    store.close(0)
    ((kind, name, content),) = damaged(tmp_path)
    assert (kind, name) == ("row", "a")
    assert content in (b"next of a", b"row of b", b"next of b", b"next of", 7)
    caplog.clear()
    again = open_store(tmp_path)
    assert (again.count(), again.damaged, caplog.text) == (3, 0, "")


def test_one_changed_bit_in_the_file_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stored(tmp_path)
    path = tmp_path / "state.db"
    content = bytearray(path.read_bytes())
    content[content.index(b"row of c")] ^= 4
    path.write_bytes(content)
    store = open_store(tmp_path)
    assert store.row("c") is None
    assert "it starts cold stream=c" in caplog.text
    store.close(0)


@pytest.mark.parametrize(
    ("statement", "lost", "others", "said"),
    [
        ("delete from streams where stream = 'b'", "b", "ac", CHANGED),
        ("update streams set row = x'00', checksum = 1 where stream = 'c'", "c", "ab", CHANGED),
        ("update streams set row = x'00' where stream = 'c'", "c", "ab", "it starts cold stream=c"),
        ("update streams set stream = 'd' where stream = 'a'", "a", "bc", "it starts cold stream=d"),
        ("update streams set stream = cast(x'61ff' as text) where stream = 'a'", "a", "bc", "cold stream=a\ufffd"),
        ("update streams set checksum = 'seven' where stream = 'c'", "c", "ab", CHANGED),
        ("insert into streams select 'd', layout, checksum, 0, 0, 0, 0, row from streams limit 1", "d", "abc", CHANGED),
    ],
)
def test_a_row_changed_outside_of_a_commit_is_found_at_open(
    statement: str, lost: str, others: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored(tmp_path)
    change(tmp_path, statement)
    store = open_store(tmp_path)
    assert said in caplog.text
    assert [name for name in "abcd" if store.row(name)] == list(others)
    assert store.row(lost) is None
    store.close(0)
    caplog.clear()
    open_store(tmp_path).close(0)
    assert caplog.text == ""


def test_totals_are_right_after_a_commit_that_a_full_disk_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path)
    store.commit(1, [("a", b"1")], [], 0, [], 0)
    (pages,) = store._database.execute("pragma page_count").fetchone()
    store._database.execute(f"pragma max_page_count = {pages + 1}")  # what SQLite takes for a full disk
    with pytest.raises(StoreFullError):
        store.commit(2, [("a", b"2"), *((f"s{number}", bytes(2000)) for number in range(100))], [], 0, [], 0)
    store._database.execute("pragma max_page_count = 100000")
    store.commit(2, [("a", b"3"), ("s1", b"4")], [], 0, [], 0)
    assert store.count() == 2
    store.close(0)
    assert open_store(tmp_path).count() == 2
    assert caplog.text == ""


def test_a_damaged_description_of_a_layout_damages_its_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stored(tmp_path)
    change(tmp_path, "update layouts set description = 'current.tine <f8\n'")
    store = open_store(tmp_path)
    assert [store.row(stream) for stream in "abc"] == [None] * 3
    assert caplog.text.count("it starts cold") == 3
    store.commit(3, [("a", b"new")], [], 0, [], 0)
    assert store.row("a") == (b"new", LAYOUT)
    store.close(0)


def killed(store: Store, folder: Path) -> None:
    """Leave the files as they are when a service is killed."""
    files = [(path.name, path.read_bytes()) for path in folder.glob("state.db*")]
    store.close(0)
    for name, content in files:
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)


def test_totals_are_right_after_many_commits_and_a_crash(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(tmp_path)
    for batch in range(1, 60):
        rows = [(f"s{(batch * step) % 23}", b"%d" % (batch + step)) for step in range(batch % 7)]
        store.commit(batch, list(dict(rows).items()), [("t", b"p")] if batch % 3 else [], batch - 1, [], 0)
    count, totals = store.count(), store._rows.totals
    killed(store, tmp_path)
    again = open_store(tmp_path)
    assert (again.count(), again._rows.totals, again.load()[0]) == (count, totals, 59)
    assert count == len({f"s{(batch * step) % 23}" for batch in range(1, 60) for step in range(batch % 7)})
    assert caplog.text == ""


@pytest.mark.parametrize("changed", ["messages = x'00'", "messages = x''", "checksum = 5", "facts = '{}'"])
def test_a_damaged_unsent_batch_is_set_aside_and_not_published(
    changed: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored(tmp_path)
    change(tmp_path, f"update unsent set {changed} where batch = 1")
    store = open_store(tmp_path)
    assert store.load()[:2] == (2, [(2, [("out/a", b"2")])])
    assert "unsent predictions damaged, they are not published batch=1" in caplog.text
    assert (store.damaged, store.load()[:2]) == (1, (2, [(2, [("out/a", b"2")])]))
    store.close(0)
    assert [found[:2] for found in damaged(tmp_path)] == [("unsent", "1")]


def test_damaged_content_is_kept_within_a_bound(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.commit(1, [(f"s{number}", b"row") for number in range(150)], [], 0, [], 0)
    store.close(0)
    change(tmp_path, "update streams set row = x'00'")
    store = open_store(tmp_path)
    assert [store.row(f"s{number}") for number in range(150)] == [None] * 150
    assert store.damaged == 150
    store.close(0)
    assert [name for _, name, _ in damaged(tmp_path)] == [f"s{number}" for number in range(50, 150)]


def test_a_damaged_row_on_a_full_disk_is_not_used_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stored(tmp_path)
    change(tmp_path, "update streams set row = x'00' where stream = 'a'")
    store = open_store(tmp_path)
    refuse: Callable[..., bool] = lambda *facts: False  # noqa: E731
    monkeypatch.setattr("edge_lstm.service.database.stream_rows.set_aside", refuse)
    assert store.row("a") is None
    store.commit(3, [("a", b"new")], [], 0, [], 0)
    store.close(0)
    caplog.clear()
    assert open_store(tmp_path).row("a") == (b"new", LAYOUT)
    assert caplog.text == ""


def changed_in_index(folder: Path, old: bytes, new: bytes) -> None:
    """Change a key in the index of the streams, and leave the table as it is."""
    path = folder / "state.db"
    with sqlite3.connect(path) as database:
        query = "select rootpage from sqlite_master where name = 'sqlite_autoindex_streams_1'"
        (page,) = database.execute(query).fetchone()
        (size,) = database.execute("pragma page_size").fetchone()
    database.close()
    content = bytearray(path.read_bytes())
    at = content.index(old, (page - 1) * size, page * size)
    content[at : at + len(old)] = new
    path.write_bytes(content)


def test_a_damaged_index_is_made_again_and_no_stream_starts_cold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path)
    store.commit(1, [(f"tank-{number}", b"row %d" % number) for number in range(9)], [], 0, [], 0)
    store.close(0)
    changed_in_index(tmp_path, b"tank-7", b"tank-y")
    store = open_store(tmp_path)
    assert "an index of the state database was damaged, it was made again" in caplog.text
    assert [store.row(f"tank-{number}") for number in range(9)] == [(b"row %d" % n, LAYOUT) for n in range(9)]
    store.commit(2, [("tank-7", b"next")], [], 0, [], 0)
    store.close(0)
    caplog.clear()
    again = open_store(tmp_path)
    assert (again.row("tank-7"), again.damaged, caplog.text) == ((b"next", LAYOUT), 0, "")


def killed_after(folder: Path, commits: int) -> Path:
    """The write-ahead log of a service that was killed after so many commits of a stream."""
    store = open_store(folder)
    for number in range(1, commits + 1):
        store.commit(number, [("a", b"row %d" % number)], [], 0, [], 0)
    killed(store, folder)
    return folder / "state.db-wal"


def test_commits_behind_damage_in_the_write_ahead_log_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = killed_after(tmp_path, 9)
    content = bytearray(log.read_bytes())
    content[content.index(b"row 6") + 1] ^= 4
    log.write_bytes(content)
    store = open_store(tmp_path)
    assert "write-ahead log damaged, every stream goes on from before its last commits commits=4" in caplog.text
    assert (store.row("a"), store.damaged) == ((b"row 5", LAYOUT), 4)
    store.close(0)


def test_a_log_that_is_whole_after_a_kill_is_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        killed_after(tmp_path, 9)
    store = open_store(tmp_path)
    assert (store.row("a"), store.damaged, caplog.text) == ((b"row 9", LAYOUT), 0, "")
    store.close(0)


@pytest.mark.parametrize("byte", [2, 9, 14, 18, 22, 26, 31])
def test_a_damaged_header_of_the_write_ahead_log_is_said(
    byte: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = killed_after(tmp_path, 5)
    content = bytearray(log.read_bytes())
    content[byte] ^= 16
    log.write_bytes(content)
    store = open_store(tmp_path)
    assert "write-ahead log damaged, every stream goes on from before its last commits commits=5" in caplog.text
    assert store.row("a") is None
    store.close(0)


@pytest.mark.parametrize("byte", [1, 7, 8, 13, 17, 23, 300])
def test_damage_in_the_very_last_commit_is_said(byte: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = killed_after(tmp_path, 5)
    content = bytearray(log.read_bytes())
    frame = 24 + 4096
    last = [at for at in range(32, len(content), frame) if content[at + 8 : at + 16] == content[16:24]][-1]
    content[last + byte] ^= 4
    log.write_bytes(content)
    store = open_store(tmp_path)
    assert "write-ahead log damaged, every stream goes on from before its last commits commits=1" in caplog.text
    assert store.row("a") == (b"row 4", LAYOUT)
    store.close(0)
    caplog.clear()
    open_store(tmp_path).close(0)
    assert caplog.text == ""


@pytest.mark.parametrize("kept", [None, 0, 32, 50_000])
def test_a_lost_or_cut_write_ahead_log_is_said(
    kept: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = killed_after(tmp_path, 9)
    content = log.read_bytes()
    log.unlink() if kept is None else log.write_bytes(content[:kept])
    store = open_store(tmp_path)
    assert "write-ahead log lost or cut, every stream goes on from before its last commits" in caplog.text
    assert store.damaged >= 1
    store.close(0)
    caplog.clear()
    open_store(tmp_path).close(0)
    assert caplog.text == ""


def test_a_damaged_definition_of_a_table_is_no_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stored(tmp_path)
    path = tmp_path / "state.db"
    content = path.read_bytes()
    assert content.count(b"last_used integer") == 1
    path.write_bytes(content.replace(b"last_used integer", b"last_uced integer"))
    store = open_store(tmp_path)
    assert "state database damaged, every stream starts cold" in caplog.text
    assert "the definition of its tables lacks streams.last_used" in caplog.text
    store.commit(1, [("a", b"new")], [], 0, [], 0)
    store.close(0)


def test_a_damaged_identity_of_a_message_is_said_and_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(tmp_path)
    store.commit(1, [], [], 0, ["1:aa", "2:bb"], 0)
    store.close(0)
    change(tmp_path, "update unacknowledged set message = '2:bc' where message = '2:bb'")
    store = open_store(tmp_path)
    assert (store.load()[2], store.damaged) == (["1:aa"], 1)
    assert "identities of messages damaged, one that comes again may be stepped twice messages=1" in caplog.text
    store.close(0)


@pytest.mark.parametrize(
    "changed",
    [
        "spans set bundle = x'00'",
        "spans set rules = 7",
        "service set value = x'31'",
        "unacknowledged set message = 7",
        "unsent set facts = x'31'",
    ],
)
def test_a_value_that_became_another_type_is_damage_and_no_traceback(
    changed: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = stored(tmp_path)
    store = open_store(tmp_path)
    store.commit(3, [("a", b"third of a")], [("out/a", b"3")], 0, ["7:message"], 0)
    store.close(0)
    change(tmp_path, f"update {changed}")
    store = open_store(tmp_path)
    store.load()
    store.commit(4, [("b", b"row of b")], [], 0, [], 0)
    store.close(0)
    assert "damaged" in caplog.text or changed.startswith("spans")  # a replay says what is wrong with a span


def test_no_checksum_is_right_for_a_value_of_another_type() -> None:
    assert span_checksum(None, "bundle", "{}") == WRONG
    assert span_checksum(1, None, "{}") == WRONG
    assert batch_checksum(1, 7, b"") == WRONG
    assert message_checksum(b"7:message", 1) == WRONG
    assert value_checksum("key", None) == WRONG
    assert chunk_checksum(3, b"") == WRONG
    assert batch_checksum(1, None, b"content") > 0


def test_spans_that_vanished_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stored(tmp_path)
    open_store(tmp_path).close(0)
    assert "damaged" not in caplog.text
    change(tmp_path, "delete from spans")
    open_store(tmp_path).close(0)
    assert "history damaged, it is not known which bundle stepped the batches before 3" in caplog.text


def test_damage_that_sqlite_quotes_in_its_error_moves_the_file_aside(tmp_path: Path) -> None:
    stored(tmp_path)
    path = tmp_path / "state.db"
    content = path.read_bytes()
    name = b"tablestreamsstreams"
    assert content.count(name) == 1
    broken = content.replace(name, b"table\x81\x81reamsstreams").replace(
        b"CREATE TABLE streams", b"CREATE \xff\xfe\x81LE streams"
    )
    assert broken.count(b"\xff\xfe\x81LE streams") == 1
    path.write_bytes(broken)
    with sqlite3.connect(path) as database, pytest.raises(UnicodeDecodeError):
        database.execute("select 1 from streams")
    database.close()
    store = open_store(tmp_path)
    assert store.load() == (0, [], [])
    store.close(0)
    assert len(list(tmp_path.glob("state.db.damaged-*"))) == 1
