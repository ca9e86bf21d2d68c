"""The limit of stream names: what is refused and forgotten depends on the order of readings alone."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_lstm import Bundle, Prediction, Predictor, Reading
from edge_lstm.service.database.history import HistoryLimits
from edge_lstm.service.database.history_reader import read_parts
from edge_lstm.service.database.spans import SteppingRules
from edge_lstm.service.database.store import Store
from edge_lstm.service.intake.name_limit import ENOUGH_READINGS, NameLimit
from edge_lstm.service.processing.committer import Committer
from edge_lstm.service.processing.outbox import Outbox
from edge_lstm.streaming.reading import Refusal

MB = 1 << 20
RULES = SteppingRules(8)


class Small:
    """The part of a service that keeps names: a database, a predictor, and commits of whole batches."""

    def __init__(self, bundle: Bundle, folder: Path, most: int, free: int = 1 << 40) -> None:
        self.free, self.reports = free, []
        self.predictor = Predictor.of(bundle, "numpy", **RULES._asdict(), fetch=self._row)
        limits = HistoryLimits(1_000_000)
        self.store = Store(folder / "state.db", bundle.id, self.predictor.table.layout, limits, "normal", RULES)
        outbox = Outbox(lambda messages: [], lambda: set(), self.store.batch)
        report: Callable[[Any], None] = self.reports.append
        self.committer = Committer(self.store, self.predictor.table, outbox, self.store.batch, None, report)
        self.names = NameLimit(most, self.store, self.predictor, self.committer, lambda: self.free, report)

    def _row(self, stream: str) -> Any:
        return None if stream in self.committer.forgotten else self.store.row(stream)

    def feed(self, readings: Sequence[Reading]) -> list[Prediction]:
        """One batch."""
        found: list[Prediction] = []
        while readings:
            admitted = self.names.admit(readings)
            steps = self.predictor.feed_columns(admitted)
            self.committer.stepped([reading.stream for reading in admitted])
            found += [] if steps is None else steps.predictions()
            readings = readings[self.names.stepped(len(admitted)) :]
        self.committer.begin_batch()
        self.records = self.names.take_records()
        assert self.committer.commit((), (), self.records)
        self.store.compact_history()
        return found

    def stored(self) -> set[str]:
        return set(self.store.streams())


@pytest.fixture
def bundle(bundle_path: Path) -> Bundle:
    return Bundle.open(bundle_path)


def readings(name: str, count: int, begin: int = 0) -> list[Reading]:
    return [Reading(name, 1.7e9 + 60 * number, {"level": number / 7}) for number in range(begin, begin + count)]


def flood(count: int, begin: int = 0) -> list[Reading]:
    return [Reading(f"x{number}", 1.7e9, {"level": 0.5}) for number in range(begin, begin + count)]


def test_a_flood_pushes_out_its_own_names_and_no_known_one(bundle: Bundle, tmp_path: Path) -> None:
    small = Small(bundle, tmp_path, most=50)
    known = [one for name in ("a", "b") for one in small.feed(readings(name, ENOUGH_READINGS))]
    for begin in range(0, 2000, 100):
        known += small.feed([*flood(100, begin), *readings("a", 1, ENOUGH_READINGS + begin // 100)])
    alone = Predictor.of(bundle, "numpy", **RULES._asdict())
    expected = alone.feed([*readings("a", 30), *readings("b", ENOUGH_READINGS)])
    of_known = {(one.stream, one.step): one for one in known if one.stream in "ab"}
    assert of_known == {(one.stream, one.step): one for one in expected}
    assert small.store.count() <= 50
    assert {"a", "b"} <= small.stored()
    assert small.names.refused == 0
    assert small.names.forgotten == 2000 + 2 - small.store.count()
    assert len(small.reports) == 1  # told once
    assert len(small.predictor.table) == small.store.count()


def test_a_name_beyond_the_limit_is_refused_where_all_have_ten_readings(bundle: Bundle, tmp_path: Path) -> None:
    small = Small(bundle, tmp_path, most=3)
    for name in "abc":
        small.feed(readings(name, ENOUGH_READINGS))
    found = small.feed([*flood(5), *readings("a", 1, 20), *flood(3)])
    assert [one.stream for one in found] == ["a"]
    assert small.names.refused == 8
    (refusal,) = [record for record in small.records if isinstance(record, Refusal)]
    assert refusal.reason == (
        "expected at most 3 stream names (max_stream_names), all in use, found a new one, "
        "and 7 more readings of new names"
    )
    assert small.stored() == set("abc")
    assert "found a new one: x0" in str(small.reports)
    small.feed(flood(1000))
    assert len(small.reports) == 1


def test_names_in_the_database_are_not_refused_by_a_smaller_limit(bundle: Bundle, tmp_path: Path) -> None:
    small = Small(bundle, tmp_path, most=100)
    for name in range(20):
        small.feed(readings(f"pump-{name}", ENOUGH_READINGS))
    small.store.close(0)
    again = Small(bundle, tmp_path, most=5)
    found = [one for name in range(20) for one in again.feed(readings(f"pump-{name}", 1, ENOUGH_READINGS))]
    assert [one.step for one in found] == [ENOUGH_READINGS + 1] * 20
    assert again.names.refused == again.names.forgotten == 0


def test_of_names_with_few_readings_those_with_the_fewest_go_first(bundle: Bundle, tmp_path: Path) -> None:
    small = Small(bundle, tmp_path, most=4)
    small.feed([*readings("three", 3), *readings("one", 1), *readings("two", 2), *readings("one later", 1)])
    gone = []
    for number in range(3):
        before = small.stored()
        small.feed([Reading(f"x{number}", 1.7e9, {"level": 1.0}), Reading(f"x{number}", 1.7e9 + 60, {"level": 1.0})])
        gone += sorted(before - small.stored())
    assert gone == ["one", "one later", "two"]


def test_the_order_of_last_readings_survives_a_restart(bundle: Bundle, tmp_path: Path) -> None:
    small = Small(bundle, tmp_path, most=2)
    small.feed([*readings("a", 1), *readings("b", 2), *readings("a", 1, 1)])
    small.store.close(0)
    again = Small(bundle, tmp_path, most=2)
    again.feed(readings("new", 1))
    assert again.stored() == {"a", "new"}


def test_a_repeated_reading_does_not_count(bundle: Bundle, tmp_path: Path) -> None:
    small = Small(bundle, tmp_path, most=2)
    small.feed(readings("a", ENOUGH_READINGS))
    for _ in range(30):
        small.feed(readings("same", 1))
    small.feed(readings("new", 1))
    assert small.stored() == {"a", "new"}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_batches_and_restarts_change_no_prediction(bundle: Bundle, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    counts = dict.fromkeys([f"pump-{number}" for number in range(40)], 0)
    everything = []
    for number in range(1500):
        name = rng.choice(list(counts)) if rng.random() < 0.3 else f"x{rng.randrange(60)}"
        at = counts[name] = counts.get(name, 0) + 1
        everything.append(Reading(name, 1.7e9 + 60 * at, {"level": math.sin(number)}))
    whole = Small(bundle, tmp_path, most=30)
    expected = whole.feed(everything)
    assert whole.names.forgotten > 100
    folder = tmp_path / "cut"
    folder.mkdir()
    cut, found, rest = Small(bundle, folder, most=30), [], everything
    while rest:
        size = rng.choice([1, 2, 7, 50, 300])
        found += cut.feed(rest[:size])
        rest = rest[size:]
        if rng.random() < 0.2:  # as after a kill: what is not committed is gone
            cut.store._database.close()
            cut = Small(bundle, folder, most=30)

    def by_stream(predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
        return {name: [one for one in predictions if one.stream == name] for name in {p.stream for p in predictions}}

    assert by_stream(found) == by_stream(expected)
    assert cut.stored() == whole.stored()
    cut.store.close(0)
    last = replayed(bundle, folder)
    newest = {name: of_name[-1] for name, of_name in by_stream(expected).items() if name in whole.stored()}
    assert {name: last[name][-1] for name in newest} == newest


def replayed(bundle: Bundle, folder: Path) -> dict[str, list[Prediction]]:
    """By stream, what a replay of the history predicts."""
    predictor = Predictor.of(bundle, "numpy", **RULES._asdict())
    found: dict[str, list[Prediction]] = {}
    for part in read_parts(folder / "state.db", bundle.id):
        for stream in predictor.table.names & {one.stream for one in part.before}:
            predictor.table.evict(stream)
        for one in predictor.feed(part.readings):
            found.setdefault(one.stream, []).append(one)
    return found


def test_a_small_disk_lowers_the_limit(bundle: Bundle, tmp_path: Path) -> None:
    small = Small(bundle, tmp_path, most=100_000, free=4 * MB)
    small.feed(readings("a", ENOUGH_READINGS))
    for begin in range(0, 20_000, 500):
        small.feed(flood(500, begin))
    (report,) = small.reports
    assert "since the disk has little space left" in report["error"]
    assert (tmp_path / "state.db").stat().st_size < 8 * MB
    assert "a" in small.stored()
    small.free = 100 * MB
    before = small.store.count()
    small.feed(flood(500, 30_000))
    assert small.store.count() == before + 500


def test_names_with_few_readings_take_a_bounded_part_of_memory(bundle: Bundle, tmp_path: Path) -> None:
    small = Small(bundle, tmp_path, most=100_000)
    small.names._few_in_memory = 200
    for begin in range(0, 3000, 500):
        small.feed(flood(500, begin))
    assert len(small.predictor.table) <= 700
    assert small.store.count() == 3000
    (again,) = small.feed([Reading("x0", 1.7e9 + 60, {"level": 0.25})])
    assert again.step == 2


def test_idle_streams_leave_the_database_and_the_history(bundle: Bundle, tmp_path: Path) -> None:
    small = Small(bundle, tmp_path, most=100)
    small.feed([*readings("old", 20), *readings("a", 20)])
    small.store._database.execute("update streams set last_used = 1750000000 where stream = 'old'")
    assert small.names.forget_idle(1.76e9, 10) == 1
    (again,) = small.feed(readings("old", 1, 30))
    assert again.step == 1
    small.feed(readings("a", 1, 30))
    assert small.names.forget_idle(1.76e9, 10) == 0
    small.store.close(0)
    found = replayed(bundle, tmp_path)
    assert [one.step for one in found["a"]] == [*range(1, 22)]
    assert found["old"][-1] == again


def test_a_last_reading_at_an_unknown_time_is_not_idle(bundle: Bundle, tmp_path: Path) -> None:
    small = Small(bundle, tmp_path, most=100)
    small.feed(readings("migrated", 20))
    small.store._database.execute("update streams set last_used = 0")
    assert small.names.forget_idle(1.76e9, 10) == 0
    assert small.stored() == {"migrated"}
