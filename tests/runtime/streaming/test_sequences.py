"""Sequences of devices: counters that wrap or begin again lose nothing, and repeated readings are known."""

from __future__ import annotations

import random
from typing import Any

import pytest

from edge_lstm import Predictor, Reading
from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.streaming.sampling.sequences import wrapped_bits
from tests.networks import contract_of, random_network

START = 1_700_000_000.0


def predictor(max_rewind: int = 8, **settings: Any) -> Predictor:
    network = random_network()
    return Predictor(contract_of(network), ReferenceBackend(network), max_rewind=max_rewind, window=256, **settings)


def reading(minute: float, number: int | str, value: float = 1.0, arrived: bool = False) -> Reading:
    return Reading("a", START + 60 * minute, {"level": value}, sequence=str(number), arrived=arrived)


@pytest.mark.parametrize("arrived", [False, True])
@pytest.mark.parametrize("max_rewind", [0, 8])
def test_a_counter_of_eight_bits_loses_nothing(arrived: bool, max_rewind: int) -> None:
    one = predictor(max_rewind)
    assert len(one.feed([reading(n, n % 256, 1.0, arrived) for n in range(1000)])) == 1000


def test_a_counter_that_begins_again_loses_nothing() -> None:
    numbers = [0, 1, 2, 3, 0, 1, 2, 3, 4, 5]
    assert len(predictor().feed([reading(n, number) for n, number in enumerate(numbers)])) == 10
    by_arrival = [reading(n, number, n % 7, arrived=True) for n, number in enumerate(numbers)]
    assert len(predictor().feed(by_arrival)) == 10


def test_of_two_readings_of_one_time_each_sequence_is_a_sample() -> None:
    for max_rewind in (0, 8):
        one = predictor(max_rewind)
        said = one.feed([reading(0, 1, 1.0), reading(0, 2, 2.0), reading(0, 1, 1.0), reading(0, 2, 2.0)])
        assert [(p.step, p.revision) for p in said] == [(1, 0), (2, 0)]
        assert one.totals["duplicate"] == 2


def test_without_any_memory_of_sequences_a_time_is_used_once() -> None:
    network = random_network()
    one = Predictor(contract_of(network), ReferenceBackend(network))
    assert len(one.feed([reading(0, 1), reading(0, 1), reading(1, 2)])) == 2
    assert one.totals["duplicate"] == 1


def test_a_late_reading_among_others_of_its_time_has_a_revision_of_its_own() -> None:
    one = predictor()
    said = one.feed([reading(1, 1), reading(1, 2), reading(2, 3), reading(0, 0), reading(1, 4)])
    places = [(p.time, p.revision, p.step) for p in said]
    assert len(set(places)) == len(places)
    assert [(round(p.time - START), p.revision, p.step) for p in said[-2:]] == [(60, 1, 4), (120, 2, 5)]


@pytest.mark.parametrize("back", [1, 20, 63])
def test_a_number_sent_again_is_known_among_the_last_readings(back: int) -> None:
    one = predictor()
    readings = [reading(n, n, n % 7, arrived=True) for n in range(100)]
    one.feed(readings)
    again = [readings[-back]._replace(time=START + 60 * 200)]
    assert one.feed(again) == []
    assert one.totals["duplicate"] == 1


def test_an_id_that_is_no_number_is_known_for_the_whole_window() -> None:
    one = predictor()
    readings = [reading(n, f"id-{n}", 1.0, arrived=True) for n in range(200)]
    one.feed(readings)
    assert one.feed([readings[0]._replace(time=START + 60 * 300)]) == []


def test_the_same_number_with_other_values_is_another_reading() -> None:
    one = predictor()
    assert len(one.feed([reading(0, 7, 1.0, arrived=True), reading(1, 7, 2.0, arrived=True)])) == 2


def test_keys_survive_eviction_and_late_readings() -> None:
    rows: dict[str, bytes] = {}
    one = predictor(fetch=rows.get)
    rng = random.Random(0)
    readings = [reading(n, n % 256, rng.gauss(0, 1)) for n in range(300)]
    readings[290], readings[294] = readings[294], readings[290]
    for each in readings:
        one.feed([each])
        rows["a"] = one.table.row("a")
        one.table.evict("a")
    assert one.totals["used"] == 300
    assert one.feed(readings[280:]) == []
    assert one.totals["duplicate"] == 20


@pytest.mark.parametrize(
    ("last", "number", "bits"),
    [(255, 0, 8), (250, 3, 8), (65_535, 0, 16), (2**32 - 1, 2, 32), (50, 0, None), (300, 0, None), (255, 200, None)],
)
def test_a_counter_near_its_end_wraps_and_another_begins_again(last: int, number: int, bits: int | None) -> None:
    assert wrapped_bits(last, number) == bits


@pytest.mark.parametrize(
    ("numbers", "line"),
    [
        ([254, 255, 0, 1, *range(2, 256), 0, 1], "sequence wraps, as one of 8 bits does stream=a from=255 to=0"),
        ([7, 8, 0, 1, 0, 1], "sequence begins again, as after a restart of the device stream=a from=8 to=0"),
    ],
)
def test_a_wrap_or_a_new_begin_is_logged_once(numbers: list[int], line: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    one = predictor()
    one.feed([reading(n, number) for n, number in enumerate(numbers)])
    assert [message for message in caplog.messages if message.startswith("sequence")] == [line]


def test_numbers_that_arrive_out_of_order_are_no_new_begin(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    numbers = [1, 3, 2, 5, 4, 6]
    said = predictor().feed([reading(n, number, n, arrived=True) for n, number in enumerate(numbers)])
    assert len(said) == 6
    assert caplog.messages == []
