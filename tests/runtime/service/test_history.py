"""The history of a service: what a replay reads, in which order, within which limits, and after which damage."""

from __future__ import annotations

import json
import math
import random
import shutil
import sqlite3
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.service.database.checksums import span_checksum
from edge_lstm.service.database.history import HistoryLimits
from edge_lstm.service.database.history_reader import read_history
from edge_lstm.service.database.readings_json import Record, entries_of, record_of, records_text
from edge_lstm.service.database.spans import SteppingRules, rules_of
from edge_lstm.service.database.store import Store, StoreFullError
from edge_lstm.streaming.reading import Reading, Refusal
from tests.written_states import STATES, WRITTEN

LAYOUT = "current.time <f8\n"


def open_store(folder: Path, limits: HistoryLimits) -> Store:
    return Store(folder / "state.db", "bundle-1", LAYOUT, limits, sync="normal")


def serve(store: Store, batches: Sequence[Sequence[Record]], compacting: int = 3) -> None:
    """Commit the batches as the loop of a service does."""
    first = store.load()[0] + 1
    for batch, records in enumerate(batches, first):
        store.commit(batch, [], [], batch, [], 0, records)
        for _ in range(compacting):
            store.compact_history()


def reading(stream: str, second: int, size: int = 0) -> Reading:
    return Reading(stream, 1e9 + second, {"level": second / 7} if not size else {f"f{n}": 0.125 for n in range(size)})


def batches_of(streams: int, count: int, a_batch: int = 4) -> list[list[Record]]:
    order = random.Random(7)
    return [
        [reading(f"s{order.randrange(streams)}", a_batch * batch + place) for place in range(a_batch)]
        for batch in range(count)
    ]


def tables(folder: Path) -> tuple[int, int]:
    """How many chunks and how many batches a stopped service's database has."""
    with sqlite3.connect(folder / "state.db") as database:
        found = [database.execute(f"select count(*) from {table}").fetchone()[0] for table in ("chunks", "history")]
    database.close()
    return found[0], found[1]


def change(folder: Path, statement: str) -> int:
    """Change the file as a faulty disk does; returns the number of changed rows."""
    with sqlite3.connect(folder / "state.db") as database:
        changed = database.execute(statement).rowcount
    database.close()
    return int(changed)


def test_a_busy_service_compacts_no_history(tmp_path: Path) -> None:
    store = open_store(tmp_path, HistoryLimits(4000))
    serve(store, batches_of(streams=5, count=40, a_batch=65), compacting=1)
    store.close(40)
    assert tables(tmp_path) == (0, 40)


def test_history_is_compacted_when_large_batches_pause(tmp_path: Path) -> None:
    store = open_store(tmp_path, HistoryLimits(4000))
    serve(store, batches_of(streams=5, count=40, a_batch=65), compacting=1)
    for _ in range(8):  # a service without messages
        store.compact_history()
    serve(store, batches_of(streams=5, count=1, a_batch=65), compacting=0)
    store.close(41)
    assert tables(tmp_path) == (5, 33)


def test_a_limit_of_each_stream_holds_in_a_busy_service(tmp_path: Path) -> None:
    store = open_store(tmp_path, HistoryLimits(4000, per_stream=13))
    serve(store, batches_of(streams=5, count=40, a_batch=65), compacting=1)
    store.close(40)
    assert tables(tmp_path)[1] < 20


@pytest.mark.parametrize("streams", [1, 5, 400])
def test_compacted_history_is_read_in_the_order_of_processing(streams: int, tmp_path: Path) -> None:
    batches = batches_of(streams, 900)
    store = open_store(tmp_path, HistoryLimits(5000))
    serve(store, batches)
    store.close(1000)
    assert tables(tmp_path)[0] >= streams / 2
    assert tables(tmp_path)[1] < 400
    everything = [one for batch in batches for one in batch]
    assert read_history(tmp_path / "state.db", "bundle-1")[0] == everything
    for stream in ("s0", f"s{streams - 1}"):
        of_stream = [one for one in everything if one.stream == stream]
        assert read_history(tmp_path / "state.db", "bundle-1", stream)[0] == of_stream


def test_one_stream_is_read_without_the_readings_of_others(tmp_path: Path) -> None:
    store = open_store(tmp_path, HistoryLimits(100_000))
    serve(store, batches_of(50, 2000))
    query = "select readings from chunks where stream = 's7'"
    (plan,) = store._database.execute(f"explain query plan {query}").fetchall()
    assert "USING INDEX chunks_by_stream (stream=?)" in plan[-1]
    compacted = sum(len(entries_of(content)) for (content,) in store._database.execute(query))
    raw = store._database.execute("select total(count) from history").fetchone()[0]
    store.close(10_000)
    assert raw <= 1100
    assert compacted > 0.8 * 2000 * 4 / 50


def test_a_call_of_compaction_reads_few_readings(tmp_path: Path) -> None:
    store = open_store(tmp_path, HistoryLimits(100_000))
    serve(store, batches_of(3, 1000, a_batch=10), compacting=0)
    found = []
    while not store._history._ready:
        before = store._history._read_count
        store.compact_history()
        found.append(store._history._read_count - before)
    assert sum(found) >= 512
    assert max(found) <= 70
    chunks = store._database.execute("select count(*) from chunks").fetchone()
    store.commit(1001, [], [], 1001, [], 0, [reading("s0", 0)])
    assert (chunks, store._database.execute("select count(*) from chunks").fetchone()) == ((0,), (3,))
    store.close(1001)


def test_a_crash_between_reading_and_writing_loses_no_reading(tmp_path: Path) -> None:
    batches = batches_of(3, 400)
    store = open_store(tmp_path, HistoryLimits(2000))
    serve(store, batches, compacting=0)
    while not store._history._ready:
        store.compact_history()
    store._database.close()  # as the kernel does for a dead process
    again = open_store(tmp_path, HistoryLimits(2000))
    serve(again, [[reading("s0", 9999)]])
    again.close(1000)
    everything = [*(one for batch in batches for one in batch), reading("s0", 9999)]
    assert read_history(tmp_path / "state.db", "bundle-1")[0] == everything


def test_chunks_that_a_full_disk_refuses_are_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = batches_of(3, 400)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 0))  # a short log
    store = open_store(tmp_path, HistoryLimits(2000))
    serve(store, batches[:399], compacting=0)
    while not store._history._ready:
        store.compact_history()
    (pages,) = store._database.execute("pragma page_count").fetchone()
    store._database.execute(f"pragma max_page_count = {pages}")  # what SQLite takes for a full disk
    with pytest.raises(StoreFullError):
        store.commit(400, [("a", bytes(90_000))], [], 400, [], 0, batches[399])
    store._database.execute("pragma max_page_count = 100000")
    serve(store, [batches[399]], compacting=40)
    serve(store, [[]])
    store.close(1000)
    everything = [one for batch in batches for one in batch]
    assert read_history(tmp_path / "state.db", "bundle-1")[0] == everything


def kept(folder: Path) -> list[Reading]:
    return read_history(folder / "state.db", "bundle-1")[0]


def test_a_busy_stream_does_not_push_out_a_quiet_one_beyond_its_limit(tmp_path: Path) -> None:
    batches: list[list[Record]] = [
        [reading("busy", 10 * step + place) for place in range(10)]
        + ([reading("quiet", step)] if not step % 20 else [])
        for step in range(600)
    ]
    store = open_store(tmp_path, HistoryLimits(2000, per_stream=500))
    serve(store, batches)
    store.close(1000)
    found = kept(tmp_path)
    assert [one for one in found if one.stream == "quiet"] == [one for batch in batches for one in batch[10:]]
    busy = [one for one in found if one.stream == "busy"]
    assert 500 <= len(busy) <= 2200
    assert busy == [one for batch in batches for one in batch[:10]][-len(busy) :]


def test_the_history_is_kept_within_its_bytes(tmp_path: Path) -> None:
    store = open_store(tmp_path, HistoryLimits(100_000, megabytes=0.5))
    serve(store, [[reading(f"s{step % 3}", step, size=40)] for step in range(3000)])
    size = store._history._size
    store.close(3000)
    assert 0.2e6 < size < 0.7e6
    found = kept(tmp_path)
    assert found[-1] == reading("s2", 2999, size=40)
    assert 500 < len(found) < 1500


def test_readings_older_than_the_limit_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1.9e9
    monkeypatch.setattr(time, "time", lambda: now)
    store = open_store(tmp_path, HistoryLimits(1000, days=2.0))
    serve(store, batches_of(2, 300))
    now += 86_400 * 3
    serve(store, batches_of(2, 300))
    store.close(1000)
    assert len(kept(tmp_path)) <= 300 * 4 + 500


def test_deletions_take_a_hundred_rows_a_commit_at_most(tmp_path: Path) -> None:
    store = open_store(tmp_path, HistoryLimits(500))
    counts = []
    for batch in range(1, 1300):
        store.commit(batch, [], [], batch, [], 0, [reading("a", batch)])
        counts.append(store._database.execute("select count(*) from history").fetchone()[0])
    store.close(1300)
    assert max(counts) == 1000
    assert min(after - before for before, after in pairwise(counts)) == -99
    assert [one.time - 1e9 for one in kept(tmp_path)] == [*range(1300 - counts[-1], 1300)]


def test_batches_that_are_deleted_while_they_are_read_do_not_come_back(tmp_path: Path) -> None:
    store = open_store(tmp_path, HistoryLimits(400))
    batches = [[reading("a", step)] for step in range(1000)]
    serve(store, batches[:300], compacting=0)
    store.compact_history()
    assert 0 < store._history._read_count < 100
    serve(store, batches[300:900], compacting=0)
    serve(store, batches[900:])
    assert store._database.execute("select min(since) from chunks").fetchone()[0] > 300
    counted = store._history._count, store._history._size, store._history._raw_count
    store._history.measure()
    assert counted == (store._history._count, store._history._size, store._history._raw_count)
    store.close(1000)
    found = kept(tmp_path)
    assert 400 <= len(found) <= 800
    assert [[one] for one in found] == batches[-len(found) :]


def test_refused_readings_are_kept_and_not_replayed(tmp_path: Path) -> None:
    refusal = Refusal("b", 2e9, "expected a time up to now, found one 1 h ahead")
    store = open_store(tmp_path, HistoryLimits(100))
    serve(store, [[reading("a", 1), refusal, reading("a", 2)], [refusal]])
    contents = [content for (content,) in store._database.execute("select readings from history order by batch")]
    store.close(10)
    assert kept(tmp_path) == [reading("a", 1), reading("a", 2)]
    assert [record_of(entry) for entry in entries_of(contents[0])] == [reading("a", 1), refusal, reading("a", 2)]
    assert json.loads(contents[1]) == [{"refused": ["b", 2e9, refusal.reason]}]


def test_a_restart_of_a_stream_is_part_of_the_history(tmp_path: Path) -> None:
    restarted = Reading("a", 1e9, {"level": 1.0}, None, False, True)
    store = open_store(tmp_path, HistoryLimits(100))
    serve(store, [[restarted, reading("a", 2)]])
    store.close(10)
    assert kept(tmp_path) == [restarted, reading("a", 2)]


def test_defaults_at_the_end_of_a_reading_are_left_out() -> None:
    full = Reading("a", 1.5, {"x": 2.0}, "7", True, True)
    shorter = [full._replace(restart=False), full._replace(restart=False, partial=False), Reading("a", 1.5, {"x": 2.0})]
    found = json.loads(records_text([full, *shorter]))
    assert [len(entry) for entry in found] == [6, 5, 4, 3]
    assert [record_of(entry) for entry in found] == [full, *shorter]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.floats(width=64) | st.none()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.builds(
            Reading, texts, st.floats(-1e9, 4e9), st.dictionaries(texts, numbers), st.none() | texts, st.booleans(),
            st.booleans(),
        )
        | st.builds(Refusal, texts, st.floats(-1e9, 4e9), texts),
        max_size=8,
    )
)  # fmt: skip
def test_any_record_comes_back_from_json(records: list[Record]) -> None:
    found = [record_of(entry) for entry in entries_of(records_text(records))]
    assert len(found) == len(records)
    for one, record in zip(found, records, strict=True):
        assert type(one) is type(record)
        if isinstance(one, Reading) and isinstance(record, Reading):
            known = {name: math.nan if value is None else value for name, value in record.values.items()}
            assert one._replace(values={}) == record._replace(values={})
            assert list(one.values) == list(known)
            for name, value in one.values.items():
                assert value == known[name] or not math.isfinite(known[name])
        else:
            assert one == record


@pytest.mark.parametrize("entry", ['{"feedback": ["a", 1.0]}', '["a", 1.0, {}, null, false, false, false, 9]', "7"])
def test_an_entry_of_a_later_release_is_refused(entry: str) -> None:
    with pytest.raises(EdgeLstmError, match="expected readings and refusals in the history") as caught:
        record_of(json.loads(entry))
    assert "later edge-lstm" in caught.value.hint


def restarts(readings: Sequence[Reading]) -> list[tuple[str, float]]:
    return [(one.stream, one.time - 1e9) for one in readings if one.restart]


def test_after_a_damaged_batch_every_stream_restarts_in_a_replay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path, HistoryLimits(1000))
    serve(store, [[reading("a", step), reading("b", step)] for step in range(10)])
    store.close(100)
    change(tmp_path, "update history set readings = replace(readings, 'level', 'lever') where batch = 5")
    found = kept(tmp_path)
    assert [one.time - 1e9 for one in found] == [step for step in range(10) if step != 4 for _ in "ab"]
    assert restarts(found) == [("a", 5), ("b", 5)]
    assert "history damaged, every stream restarts in the replay after batch=5" in caplog.text


def test_after_a_damaged_chunk_only_its_stream_restarts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(tmp_path, HistoryLimits(400))
    serve(store, [[reading("a", step), reading("b", step)] for step in range(200)])
    store.close(1000)
    assert (
        change(tmp_path, "update chunks set readings = replace(readings, '1', '2') where stream = 'a' and id < 3") == 1
    )
    found = kept(tmp_path)
    (restart,) = restarts(found)
    assert restart == ("a", next(one for one in found if one.stream == "a").time - 1e9)
    assert restart[1] > 40
    assert [one.time - 1e9 for one in found if one.stream == "b"] == [*range(200)]
    assert "history damaged, stream a restarts in the replay after" in caplog.text
    caplog.clear()
    assert restarts(read_history(tmp_path / "state.db", "bundle-1", "b")[0]) == []
    assert caplog.text == ""


def test_compaction_keeps_the_place_of_a_damaged_batch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(tmp_path, HistoryLimits(400))
    serve(store, [[reading("a", step), reading("b", step)] for step in range(90)], compacting=0)
    store.close(1000)
    change(tmp_path, "update history set checksum = checksum + 1 where batch = 11")
    again = open_store(tmp_path, HistoryLimits(400))
    serve(again, [[reading("a", step), reading("b", step)] for step in range(90, 120)])
    again.close(1000)
    assert "history damaged, a replay restarts every stream after it batch=11" in caplog.text
    assert change(tmp_path, "update history set count = count where batch = 11") == 0
    found = kept(tmp_path)
    assert restarts(found) == [("a", 11), ("b", 11)]
    assert [one.time - 1e9 for one in found if one.stream == "b"] == [step for step in range(120) if step != 10]


def test_an_unknown_stream_is_not_replayed_as_an_empty_one(tmp_path: Path) -> None:
    store = open_store(tmp_path, HistoryLimits(100))
    serve(store, [[reading("a", 1)]])
    store.close(10)
    with pytest.raises(EdgeLstmError, match=r"expected readings of the stream b in .*, found none of bundle bundle-1"):
        read_history(tmp_path / "state.db", "bundle-1", "b")


@pytest.mark.parametrize("name", [name for name in STATES if name != "outbox"])
def test_one_stream_is_read_from_a_database_of_0_1_0(name: str, tmp_path: Path) -> None:
    state = Path(shutil.copyfile(WRITTEN / "states" / name / "state.db", tmp_path / "state.db"))
    with sqlite3.connect(state) as database:
        (bundle,) = database.execute("select id from bundle").fetchone()
    database.close()
    everything = read_history(state, bundle)[0]
    found = read_history(state, bundle, "mill-1")[0]
    assert found == [one for one in everything if one.stream == "mill-1"]
    assert len(found) > 5


def test_rules_that_a_database_lacks_have_their_defaults() -> None:
    assert rules_of('{"max_rewind": 5}') == SteppingRules(5, 0)
    with pytest.raises(EdgeLstmError, match="found another_rule") as caught:
        rules_of('{"max_rewind": 5, "another_rule": 1}')
    assert "later edge-lstm" in caught.value.hint


def test_a_span_goes_on_where_only_defaults_are_missing(tmp_path: Path) -> None:
    rules = SteppingRules(8, 0)
    store = Store(tmp_path / "state.db", "bundle-1", LAYOUT, 100, rules=rules)
    serve(store, [[reading("a", 1)]])
    store.close(1)
    former = '{"max_rewind": 8}'
    kept = span_checksum(1, "bundle-1", former)
    change(tmp_path, f"update spans set rules = '{former}', checksum = {kept}")
    again = Store(tmp_path / "state.db", "bundle-1", LAYOUT, 100, rules=rules)
    serve(again, [[reading("a", 2)]])
    again.close(2)
    assert change(tmp_path, "update spans set since = since") == 1
    assert read_history(tmp_path / "state.db", "bundle-1") == ([reading("a", 1), reading("a", 2)], rules)


def test_readings_that_were_lost_outside_of_a_commit_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path / "state.db", "bundle-1", LAYOUT, 100)
    serve(store, [[reading("a", 1)], [reading("a", 2), reading("b", 2)], [reading("a", 3)]])
    store.close(3)
    assert len(read_history(tmp_path / "state.db", "bundle-1")[0]) == 4
    assert caplog.text == ""
    change(tmp_path, "delete from history where batch = 2")
    assert len(read_history(tmp_path / "state.db", "bundle-1")[0]) == 2
    assert "history damaged, readings were lost outside of a commit expected=4 found=2" in caplog.text
    caplog.clear()
    again = Store(tmp_path / "state.db", "bundle-1", LAYOUT, 100)
    assert "history damaged, readings were lost outside of a commit expected=4 found=2" in caplog.text
    assert again.damaged == 1
    again.close(3)
    caplog.clear()
    Store(tmp_path / "state.db", "bundle-1", LAYOUT, 100).close(3)
    assert caplog.text == ""


def test_a_damaged_span_is_said_and_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path / "state.db", "bundle-1", LAYOUT, 100, rules=SteppingRules(8, 0))
    serve(store, [[reading("a", 1)]])
    store.close(1)
    change(tmp_path, "update spans set rules = replace(rules, '8', '9')")
    readings, rules = read_history(tmp_path / "state.db", "bundle-1")
    assert (len(readings), rules) == (1, None)
    assert "history damaged, it is not known which bundle stepped the batches from 1 on" in caplog.text
