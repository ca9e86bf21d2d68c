"""Parts of samples: which ones belong together, when a sample goes out, and what a repeated or late part does."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edge_lstm import Prediction, Predictor, Reading
from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Feature, Sampling
from tests.networks import contract_of, random_network

START = 1_700_000_040.0


def predictor(grid: bool = False, **settings: Any) -> Predictor:
    network = random_network(inputs=2)
    features = [Feature("level"), Feature("flow")]
    contract = contract_of(network, features=features, clock=[], sampling=Sampling(60.0, 600.0, grid=grid))
    return Predictor(contract, ReferenceBackend(network), **{"max_rewind": 8, **settings})


def level(second: float, value: float, **more: Any) -> Reading:
    return Reading("a", START + second, {"level": value}, partial=True, **more)


def flow(second: float, value: float, **more: Any) -> Reading:
    return Reading("a", START + second, {"flow": value}, partial=True, **more)


def whole(second: float, first: float, other: float) -> Reading:
    return Reading("a", START + second, {"level": first, "flow": other})


def times(predictions: list[Prediction]) -> list[float]:
    return [one.time - START for one in predictions]


def given(one: Predictor) -> list[tuple[float, float | str, float | str]]:
    """(second, level, flow) of the samples in the trail; "-" has not arrived."""
    slot = one.table.slot("a")
    kept = one.table.trail[slot, : one.table.trail_length[slot]]
    return [
        (float(entry["time"]) - START, *("-" if math.isinf(x) else x for x in entry["given"].tolist()))
        for entry in kept
    ]


@pytest.mark.parametrize("repeated", ["level", "flow"])
def test_a_part_that_comes_twice_shifts_nothing(repeated: str) -> None:
    readings = [part for n in range(20) for part in (level(60 * n, n), flow(60 * n, -n))]
    place = 10 if repeated == "level" else 11
    twice = [*readings[: place + 1], readings[place], *readings[place + 1 :]]
    one, other = predictor(), predictor()
    assert one.feed(twice) == other.feed(readings)
    assert one.totals["duplicate"] == 1
    assert one.table.row("a") == other.table.row("a")


def test_a_lost_part_leaves_one_incomplete_sample_and_shifts_nothing() -> None:
    one = predictor()
    readings = [part for n in range(6) for part in (level(60 * n, n), flow(60 * n, 10 + n))]
    del readings[5]  # the flow of the third sample
    assert times(one.feed(readings)) == [0, 60, 120, 180, 240, 300]
    assert given(one)[1:4] == [(60, 1, 11), (120, 2, "-"), (180, 3, 13)]
    assert one.totals["missing"] == 1


def test_an_incomplete_sample_goes_out_when_a_part_of_the_next_one_comes() -> None:
    one = predictor()
    assert one.feed([level(0, 1.0)]) == []
    (first,) = one.feed([level(60, 2.0)])
    assert first.time == START
    assert first.values == predictor().feed([Reading("a", START, {"level": 1.0})])[0].values


@pytest.mark.parametrize(("apart", "count"), [(2.0, 1), (2.1, 2)])
def test_parts_with_times_of_the_device_join_within_two_seconds(apart: float, count: int) -> None:
    one = predictor()
    said = one.feed([level(0, 1.0), flow(apart, 2.0), level(60, 1.0), flow(60, 2.0)])
    assert len(said) == count + 1
    assert times(said)[0] == (apart if count == 1 else 0)


@pytest.mark.parametrize(("apart", "count"), [(29.0, 1), (31.0, 2)])
def test_parts_with_times_of_arrival_join_within_half_an_interval(apart: float, count: int) -> None:
    one = predictor()
    said = one.feed([level(0, 1.0, arrived=True), flow(apart, 2.0, arrived=True)])
    said += one.feed([level(90, 1.0, arrived=True), flow(91, 2.0, arrived=True)])
    assert len(said) == count + 1


def test_join_within_s_says_how_far_apart_parts_may_be() -> None:
    near, far = predictor(join_within_s=0.5), predictor(join_within_s=20.0)
    parts = [level(0, 1.0), flow(10, 2.0), level(60, 1.0), flow(60, 2.0)]
    assert times(near.feed(parts)) == [0, 10, 60]
    assert times(far.feed(parts)) == [10, 60]


def test_a_newer_value_replaces_one_that_waits_for_the_others() -> None:
    one = predictor()
    one.feed([level(0, 1.0), level(1, 2.0), level(0.5, 9.0), flow(1, 3.0)])
    assert given(one) == [(1, 2, 3)]


def test_a_late_part_completes_its_sample_and_corrects_later_ones() -> None:
    ordered = [part for n in range(5) for part in (level(60 * n, n), flow(60 * n, 10 + n))]
    arriving = [*ordered[:5], *ordered[6:], ordered[5]]
    one, other = predictor(), predictor()
    one.feed(arriving[:-1])
    corrected = one.feed(arriving[-1:])
    expected = other.feed(ordered)
    assert [(p.step, p.revision) for p in corrected] == [(3, 1), (4, 1), (5, 1)]
    assert [p.values for p in corrected] == [p.values for p in expected[2:]]
    assert one.table.current.tobytes() == other.table.current.tobytes()


def test_another_value_of_the_same_time_corrects_the_sample() -> None:
    one = predictor()
    one.feed([level(0, 1.0), flow(0, 2.0), level(60, 3.0), flow(60, 4.0)])
    said = one.feed([flow(0, 5.0)])
    assert [(p.time - START, p.revision) for p in said] == [(0, 1), (60, 1)]
    assert given(one) == [(0, 1, 5), (60, 3, 4)]


def test_a_whole_reading_completes_an_incomplete_sample_of_its_time() -> None:
    one = predictor()
    one.feed([level(0, 1.0), level(60, 3.0), flow(60, 4.0)])
    one.feed([whole(0, 1.0, 2.0)])
    assert given(one) == [(0, 1, 2), (60, 3, 4)]
    one.feed([level(120, 5.0), whole(120, 5.0, 6.0), level(180, 7.0), whole(240, 8.0, 9.0)])
    assert given(one)[2:] == [(120, 5, 6), (180, 7, "-"), (240, 8, 9)]


def test_a_part_between_two_samples_finds_the_one_before_it() -> None:
    one = predictor()
    one.feed([level(0, 1.0), level(60, 2.0)])  # the second closes the first and waits
    (corrected,) = one.feed([flow(0.3, 7.0)])
    assert (corrected.time - START, corrected.revision) == (0, 1)
    one.feed([flow(60.2, 8.0)])
    assert given(one) == [(0, 1, 7), (pytest.approx(60.2), 2, 8)]


def test_a_late_part_of_no_sample_becomes_one() -> None:
    one = predictor()
    one.feed([level(0, 1.0), flow(0, 2.0), level(120, 5.0), flow(120, 6.0)])
    one.feed([flow(60, 4.0)])
    one.feed([level(60, 3.0)])
    assert given(one) == [(0, 1, 2), (60, 3, 4), (120, 5, 6)]


def test_a_late_part_beyond_max_rewind_is_dropped() -> None:
    one = predictor(max_rewind=2)
    one.feed([part for n in range(8) for part in (level(60 * n, n), flow(60 * n, n))])
    before = one.table.row("a")
    assert one.feed([flow(60, 9.0)]) == []
    assert (one.totals["late"], one.table.row("a")) == (1, before)


def test_a_missing_value_that_was_sent_completes_its_sample() -> None:
    one = predictor()
    (said,) = one.feed([level(0, 1.0), flow(0, math.nan)])
    assert said.values == predictor().feed([Reading("a", START, {"level": 1.0})])[0].values
    assert one.feed([flow(0, math.nan)]) == []
    assert one.totals["duplicate"] == 1


def test_parts_that_waited_before_times_were_kept_are_joined() -> None:
    one = predictor()
    one.feed([level(0, 1.0)])
    one.table.partial_times[one.table.slot("a")] = math.nan  # as a row of release 0.1.0 is read
    (said,) = one.feed([flow(3600, 2.0)])
    assert said.time == START + 3600
    assert given(one) == [(3600, 1, 2)]


def test_parts_of_arrival_are_known_by_their_sequence() -> None:
    one = predictor(window=256)
    parts = [
        level(0, 1.0, sequence="0", arrived=True),
        flow(1, 2.0, sequence="1", arrived=True),
        flow(2, 2.0, sequence="1", arrived=True),
        level(60, 3.0, sequence="2", arrived=True),
        flow(61, 2.0, sequence="3", arrived=True),
    ]
    assert times(one.feed(parts)) == [1, 61]
    assert one.totals["duplicate"] == 1


def test_on_a_grid_each_part_counts_once_in_its_interval() -> None:
    one, other = predictor(grid=True), predictor(grid=True)
    parts = [level(0, 1.0), flow(0.2, 2.0), level(0, 1.0), level(20, 3.0), flow(20.2, 4.0), flow(20.2, 4.0)]
    said = one.feed([*parts, level(60, 5.0), level(20, 3.0)])
    assert said == other.feed([whole(0, 1.0, 2.0), whole(20, 3.0, 4.0), whole(60, 5.0, 6.0)])
    assert (one.totals["duplicate"], one.totals["late"], one.totals["used"]) == (2, 1, 5)


def test_on_a_grid_no_part_waits_for_the_others() -> None:
    one = predictor(grid=True)
    one.feed([level(0, 1.0), flow(50, 2.0), level(60, 3.0)])
    (said,) = one.feed([flow(130, 4.0)])
    assert said.time - START == 120
    assert said.values != one.feed([level(190, 3.0)])[0].values


@pytest.mark.parametrize("grid", [False, True])
def test_parts_survive_a_store(grid: bool) -> None:
    one, other = predictor(grid), predictor(grid)
    one.feed([level(0, 1.0), flow(0, 2.0), level(60, 3.0)])
    other.table.put_row("a", one.table.row("a"))
    rest = [level(60, 3.0), flow(60, 4.0), whole(120, 5.0, 6.0), level(180, 7.0)]
    assert other.feed(rest) == one.feed(rest)
    assert other.totals["duplicate"] == 1
