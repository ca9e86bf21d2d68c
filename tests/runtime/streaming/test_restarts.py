"""Readings at which the times of a stream begin again: a restart in its own place, the same in any batch."""

from __future__ import annotations

import math

import pytest

from edge_lstm import Prediction, Predictor, Reading
from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Feature, Sampling
from tests.networks import contract_of, random_network

GRID = Sampling(interval_s=60.0, max_gap_s=600.0, grid=True)


def predictor(inputs: int = 3, max_rewind: int = 0, window: int = 0, **changes: object) -> Predictor:
    network = random_network(inputs=inputs)
    backend = ReferenceBackend(network)
    return Predictor(contract_of(network, **changes), backend, max_rewind=max_rewind, window=window)


def level(stream: str, minute: float, value: float, restart: bool = False, sequence: str | None = None) -> Reading:
    return Reading(stream, 1_700_000_000 + 60 * minute, {"level": value}, sequence, restart=restart)


def test_a_restart_lets_a_stream_go_on_at_an_earlier_time() -> None:
    one = predictor()
    one.feed([level("a", 60 + n, n) for n in range(12)])
    found = one.feed([level("a", 0, 5.0, restart=True), level("a", 1, 6.0)])
    assert [(p.time, p.step, p.warm_steps) for p in found] == [(level("a", n, 0).time, 13 + n, 1 + n) for n in (0, 1)]
    fresh = predictor().feed([level("a", 0, 5.0), level("a", 1, 6.0)])
    assert [p.values for p in found] == [p.values for p in fresh]
    assert (one.totals["late"], one.totals["gaps"]) == (0, 0)


def test_the_same_readings_without_a_restart_are_late() -> None:
    one = predictor()
    one.feed([level("a", 60 + n, n) for n in range(12)])
    assert one.feed([level("a", 0, 5.0), level("a", 1, 6.0)]) == []
    assert one.totals["late"] == 2


@pytest.mark.parametrize("sampling", [Sampling(max_gap_s=600.0), GRID], ids=["plain", "grid"])
@pytest.mark.parametrize("batch", [2, 5, 100])
def test_restarts_give_the_same_bits_in_any_batch(batch: int, sampling: Sampling) -> None:
    readings = [level(s, 100 + n, n) for n in range(4) for s in "abc"]
    readings += [level(s, n, n, restart=s != "c") for n in (105, 50, 7) for s in "abc"]
    readings += [level("a", 9, 1.0), level("b", 9, 1.0), level("a", 8, 3.0), level("b", 300, 4.0)]  # one is late
    alone, together = (predictor(max_rewind=8, sampling=sampling) for _ in range(2))
    expected = [said for reading in readings for said in alone.feed([reading])]
    found: list[Prediction] = []
    for at in range(0, len(readings), batch):
        found += together.feed(readings[at : at + batch])
    for stream in "abc":
        assert [p for p in found if p.stream == stream] == [p for p in expected if p.stream == stream]
        assert alone.table.row(stream) == together.table.row(stream)
    assert alone.totals == together.totals


def test_a_reading_that_was_stepped_before_restarts_nothing() -> None:
    one = predictor(max_rewind=8)
    one.feed([level("a", n, n) for n in range(6)])
    assert one.feed([level("a", 5, 5.0, restart=True), level("a", 3, 3.0, restart=True)]) == []
    assert one.totals["duplicate"] == 2
    (found,) = one.feed([level("a", 6, 6.0)])
    assert (found.step, found.warm_steps) == (7, 7)


def test_a_sequence_that_was_stepped_before_restarts_nothing() -> None:
    one = predictor(max_rewind=4, window=64)
    one.feed([level("a", n, n, sequence=str(n)) for n in range(20)])
    assert one.feed([level("a", 2, 2.0, restart=True, sequence="2")]) == []
    assert one.feed([level("a", -60, 2.0, restart=True, sequence="new")])[0].warm_steps == 1


def test_a_late_reading_after_a_restart_is_inserted_in_the_new_time() -> None:
    one, ordered = predictor(max_rewind=8), predictor(max_rewind=8)
    one.feed([level("a", 60 + n, n) for n in range(12)])
    one.feed([level("a", 1, 1.0, restart=True), level("a", 2, 2.0)])
    found = one.feed([level("a", 0, 0.0)])
    expected = ordered.feed([level("a", n, n) for n in range(3)])
    assert [(p.time, p.warm_steps, p.values) for p in found] == [(p.time, p.warm_steps, p.values) for p in expected]


def test_a_restart_on_a_grid_closes_the_open_interval_first() -> None:
    one = predictor(sampling=GRID)
    one.feed([level("a", 100 + n / 2, n) for n in range(5)])
    (last,) = one.feed([level("a", 0.1, 7.0, restart=True)])
    assert last.time == 60 * -(-level("a", 102.01, 0).time // 60)
    assert (last.step, last.warm_steps) == (3, 3)
    (found,) = one.feed([level("a", 1.1, 8.0)])
    assert (found.time, found.warm_steps) == (60 * -(-level("a", 0.1, 0).time // 60), 1)
    fresh = predictor(sampling=GRID).feed([level("a", 0.1, 7.0), level("a", 1.1, 8.0)])
    assert found.values == fresh[0].values


def test_a_restart_forgets_an_incomplete_sample() -> None:
    one = predictor(inputs=2, features=[Feature("level"), Feature("flow")], clock=[])
    time = 1_700_000_000.0
    assert one.feed([Reading("a", time, {"level": 1.0}, partial=True)]) == []
    assert one.feed([Reading("a", time - 3600, {"flow": 2.0}, partial=True, restart=True)]) == []
    (found,) = one.feed([Reading("a", time - 3599, {"level": 3.0}, partial=True)])
    assert found.time == time - 3599


def test_a_restart_survives_a_store() -> None:
    one, other = predictor(max_rewind=8), predictor(max_rewind=8)
    one.feed([level("a", 60 + n, n) for n in range(12)])
    one.feed([level("a", 0, 5.0, restart=True)])
    other.table.put_row("a", one.table.row("a"))
    assert other.feed([level("a", 1, 6.0)]) == one.feed([level("a", 1, 6.0)])


@pytest.mark.parametrize("sampling", [Sampling(max_gap_s=600.0), GRID], ids=["plain", "grid"])
def test_the_table_knows_the_newest_time_of_each_stream(sampling: Sampling) -> None:
    table = predictor(sampling=sampling)
    assert table.table.newest_time() == -math.inf
    for number in range(40):  # the table grows
        assert math.isnan(table.table.last_time(f"new{number}"))
    assert table.table.newest_time() == -math.inf
    table.feed([level("a", n + 0.25, n) for n in range(3)] + [level(f"b{n}", n, n) for n in range(40)])
    assert table.table.last_time("a") == level("a", 2.25, 0).time
    assert table.table.newest_time() == level("b39", 39, 0).time
