"""Counters: increases in float64 over resets, overflows, wrong zeros and gaps, in order and late, on a grid and not."""

from __future__ import annotations

import numpy as np
import pytest

from edge_lstm.bundle.contract import Feature, Sampling
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from edge_lstm.streaming.sampling.counters import START, Counters
from tests.feature_vectors import Seen, contract, fed

METER = Feature("energy", "kWh", 0.5, 0.25, counter=True)
SPARE = 0.5  # the mean of the training part, where no increase is known
GRID = Sampling(interval_s=60.0, max_gap_s=600.0, grid=True)


def increases(readings: list[float], modulus: float | None = None) -> list[float]:
    """The increases of one stream without gaps; the first one, which is never known, is left out."""
    counters = Counters([modulus])
    memory, found = np.array([[START]]), []
    for reading in readings:
        increase, memory = counters.increases(memory, np.array([[reading]]), np.array([False]))
        found.append(float(increase[0, 0]))
    assert np.isnan(found[0])
    return found[1:]


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([65530, 65535, 2], [5, 3]),  # 16 bits
        ([4294967290, 4294967295, 3], [5, 4]),  # 32 bits
        ([32760, 32767, -32768, -32760], [7, 1, 8]),  # 16 bits with a sign
        ([90, 100, 5, 7], [10, 5, 2]),  # a reset
        ([60000, 5], [5]),  # far from the end of the register: a reset
        ([1000.2, 1000.1, 1000.3], [0, 0.2]),  # a correction is no reset
        ([0.2, 0.2, 0.0, 5.0], [0, 0, 5.0]),  # a rain gauge that starts again each day
        ([1, 0, 1], [0, 1]),
        ([5000, 5001, 0, 5002, 5003], [1, 0, 1, 1]),  # one wrong zero
        ([5000, 5001, 0, 0, 5002], [1, 0, 0, 1]),
        ([5000, 5001, 0, 3, 5], [1, 0, 3, 2]),  # a true reset
        ([16777216.0, 16777217.0, 16777218.5], [1, 1.5]),  # float32 has no 16,777,217
        ([1e12, 1e12 + 0.5], [0.5]),
        ([10, -3], [np.nan]),  # a fall to below 0 says nothing
    ],
)
def test_increases_by_hand(readings: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(increases(readings), expected, rtol=1e-9, atol=1e-9)


def test_a_modulus_of_its_own_replaces_those_of_registers() -> None:
    assert increases([99990, 99998, 4], modulus=100_000) == [8, 6]
    assert increases([99990, 99998, 4], modulus=10_000_000) == [8, 4]  # a reset: far from the modulus
    assert increases([65530, 2], modulus=100_000) == [34472]  # less than half a turn


def test_a_missing_reading_gives_its_increase_to_the_next() -> None:
    np.testing.assert_array_equal(increases([10, np.nan, 14, np.inf, 15]), [np.nan, 4, np.nan, 1])


def test_the_network_sees_increases_and_none_over_a_gap() -> None:
    asked = contract(METER)
    readings = [(0, 16777216.0), (1, 16777217.0), (2, 16777219.0), (60, 16777300.0), (61, 16777301.5)]
    rows, _ = fed(asked, [(minute, {"energy": value}) for minute, value in readings])
    np.testing.assert_array_equal(rows[:, 0], [SPARE, 1, 2, 2, 1.5])  # after the gap the last increase is held
    with_mask, _ = fed(
        contract(Feature("energy", counter=True, mask=True)),
        [(minute, {"energy": value}) for minute, value in readings],
    )
    np.testing.assert_array_equal(with_mask[:, 1], [1, 0, 0, 1, 0])


def test_parts_of_a_sample_keep_every_digit_of_a_counter() -> None:
    asked = contract(METER, Feature("x"))
    backend = Seen(asked)
    predictor = Predictor(asked, backend)
    for minute, value in enumerate([16777216.0, 16777217.0, 16777220.0]):
        predictor.feed(
            [
                Reading("s", 60.0 * minute, {"energy": value}, partial=True),
                Reading("s", 60.0 * minute, {"x": 0.0}, partial=True),
            ]
        )
    np.testing.assert_array_equal(np.array(backend.rows)[:, 0], [SPARE, 1, 3])


def test_a_late_reading_divides_the_increase_of_the_next() -> None:
    asked = contract(METER, horizons=[1, 5])
    readings = [Reading("s", 60.0 * step, {"energy": 16777216.0 + step**2}) for step in range(12)]
    ordered = Predictor(asked, Seen(asked)).feed(readings)
    late = [*readings[:5], *readings[6:9], readings[5], *readings[9:]]
    newest: dict[float, object] = {}
    for one in Predictor(asked, Seen(asked), max_rewind=8).feed(late):
        newest[one.time] = (one.values, one.warm_steps)
    assert newest == {one.time: (one.values, one.warm_steps) for one in ordered}


@pytest.mark.parametrize("sampling", [Sampling(60.0, 600.0), GRID])
def test_a_stored_stream_counts_on(sampling: Sampling) -> None:
    asked = contract(METER, sampling=sampling)
    readings = [Reading("s", 20.0 * step, {"energy": 16777216.0 + step**2 % 60_000}) for step in range(40)]
    backend = Seen(asked)
    Predictor(asked, backend).feed(readings)
    whole = backend.rows
    backend, rows = Seen(asked), {}
    for reading in readings:
        predictor = Predictor(asked, backend, fetch=rows.get)
        predictor.feed([reading])
        rows["s"] = predictor.table.row("s")
    np.testing.assert_array_equal(backend.rows, whole)


def test_an_interval_has_the_increase_since_the_interval_before() -> None:
    asked = contract(METER, sampling=GRID)
    readings = [
        (0, 100.0),
        (0.5, 101.0),
        (1, 103.0),  # the increase since the last reading of the interval before
        (1.5, 104.0),
        (2.2, 110.0),
        (2.4, 0.0),  # a reset within the interval
        (2.8, 2.0),
        (5.5, 8.0),  # two empty intervals before
        (60, 500.0),  # a gap
        (60.5, 501.0),
        (61, 501.0),
    ]
    rows, _ = fed(asked, [(minute, {"energy": value}) for minute, value in readings])
    np.testing.assert_array_equal(rows[:, 0], [1, 3, 8, 8, 8, 6, 1])


def test_a_counter_that_does_not_fit_its_keys_is_a_fault() -> None:
    def faults(**changes: object) -> str:
        return "; ".join(message for _, message in Feature("c", **changes).faults())  # type: ignore[arg-type]

    assert "counter = true beside it" in faults(modulus=65536.0)
    assert "expected none for a counter" in faults(counter=True, aggregate="sum")
    assert not faults(counter=True, modulus=65536.0, derived=["mean 10"])


def test_any_order_within_the_bound_gives_what_the_right_order_gives() -> None:
    asked = contract(METER, Feature("wind", "degree", 350.0, 20.0, period=360.0), horizons=[1, 5])
    rng = np.random.default_rng(8)
    for _ in range(5):
        meter = 16_777_216.0 + np.cumsum(rng.integers(0, 4, 40))
        meter[25:] -= meter[25]  # a reset
        wind = rng.uniform(-360, 720, 40)
        readings = [Reading("s", 60.0 * at, {"energy": meter[at], "wind": wind[at]}) for at in range(40)]
        order = np.argsort(np.arange(40) + rng.uniform(0, 5, 40), kind="stable")
        ordered = Predictor(asked, Seen(asked)).feed(readings)
        newest: dict[float, object] = {}
        for one in Predictor(asked, Seen(asked), max_rewind=8).feed([readings[at] for at in [*order, *order[-3:]]]):
            newest[one.time] = one.values
        assert newest == {one.time: one.values for one in ordered}
