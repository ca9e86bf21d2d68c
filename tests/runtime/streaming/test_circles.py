"""Features on a circle: two inputs, the mean direction on a grid, and positions as predictions."""

from __future__ import annotations

import numpy as np
import pytest

from edge_lstm.bundle.contract import Alarm, Feature, Sampling
from edge_lstm.streaming.features import values_in
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from tests.feature_vectors import Seen, contract, fed

WIND = Feature("wind", "degree", 350.0, 20.0, period=360.0)
GRID = Sampling(interval_s=60.0, max_gap_s=600.0, grid=True)


def angles(rows: np.ndarray, cosine: int = 1) -> np.ndarray:
    return np.degrees(np.arctan2(rows[:, 0], rows[:, cosine])) % 360


def test_a_circle_has_two_inputs_and_a_missing_value_holds_the_last() -> None:
    asked = contract(Feature("wind", period=360.0, mean=90.0, mask=True), Feature("x"))
    assert asked.inputs == ["wind sin", "x", "wind missing", "wind cos"]
    rows, _ = fed(asked, [(0, {"x": 1.0}), (1, {"wind": 30.0, "x": 2.0}), (2, {"x": 3.0}), (3, {"wind": -60.0})])
    expected = [[1, 1, 1, 0], [0.5, 2, 0, 0.75**0.5], [0.5, 3, 1, 0.75**0.5], [-(0.75**0.5), 3, 0, 0.5]]
    np.testing.assert_allclose(rows, expected, atol=1e-7)
    np.testing.assert_allclose(values_in(asked, rows)[:, 0], [90, 30, 30, 300], rtol=1e-6)


def test_values_a_turn_apart_are_the_same_bits() -> None:
    rows, _ = fed(contract(WIND), [(0, {"wind": 10.0}), (1, {"wind": 370.0}), (2, {"wind": -350.0})])
    np.testing.assert_array_equal(rows[1:], rows[:1].repeat(2, axis=0))


def test_the_mean_of_an_interval_is_the_mean_direction() -> None:
    asked = contract(WIND, Feature("x"), sampling=GRID)
    readings = [(0, 350.0), (0.5, 10.0), (1, 90.0), (1.2, 90.0), (1.4, 120.0), (2, 0.0), (2.5, 180.0), (3, 5.0)]
    rows, _ = fed(asked, [(minute, {"wind": wind, "x": wind}) for minute, wind in readings])
    assert angles(rows, 2)[0] == pytest.approx(0.0, abs=1e-4)  # not 180, the mean of the numbers
    assert rows[0, 1] == 180.0
    assert angles(rows, 2)[1] == pytest.approx(99.8961, abs=1e-3)  # by hand: atan2(2 + sin 120, cos 120)
    assert angles(rows, 2)[2] == pytest.approx(99.8961, abs=1e-3)  # 0 and 180 have no mean direction: the last one


def test_an_interval_gives_the_same_after_its_row_was_stored() -> None:
    asked = contract(WIND, sampling=GRID)
    readings = [Reading("s", 20.0 * step, {"wind": 37.0 * step % 360}) for step in range(40)]
    backend = Seen(asked)
    Predictor(asked, backend).feed(readings)
    whole, rows = backend.rows, {}
    backend = Seen(asked)
    for reading in readings:
        predictor = Predictor(asked, backend, fetch=rows.get)
        predictor.feed([reading])
        rows["s"] = predictor.table.row("s")
    np.testing.assert_array_equal(backend.rows, whole)


def test_a_prediction_on_a_circle_is_a_position_of_it() -> None:
    asked = contract(WIND, horizons=[1, 5])
    predictor = Predictor(asked, Seen(asked))
    predictions = predictor.feed([Reading("s", 60.0 * step, {"wind": 50.0 * step}) for step in range(30)])
    values = [value for one in predictions for value in one.values["wind"].values()]
    assert len(values) == 60
    assert all(0 <= value < 360 for value in values)
    assert max(values) - min(values) > 10


def test_a_residual_on_a_circle_is_the_shorter_way() -> None:
    alarm = Alarm(span_steps=1, settle_steps=1, calibrate_steps=20)
    asked = contract(WIND, task="anomaly", horizons=[1], alarm=alarm)
    predictor = Predictor(asked, Seen(asked))
    readings = [Reading("s", 60.0 * step, {"wind": (355.0 + 10 * (step % 2)) % 360}) for step in range(10)]
    predictions = predictor.feed(readings)
    forecast = predictions[-2].values["wind"][1]
    residual = predictor.table.current["smoothed"][0, 0]
    assert residual == pytest.approx(((readings[-1].values["wind"] - forecast + 180) % 360 - 180) / 20.0, abs=1e-6)


def test_what_means_nothing_on_a_circle_is_a_fault() -> None:
    def faults(**changes: object) -> str:
        return "; ".join(message for _, message in Feature("wind", period=360.0, **changes).faults())  # type: ignore[arg-type]

    assert "derived" in faults(derived=["difference"])
    assert '"mean" or "last" on a circle, found "sum"' in faults(aggregate="sum")
    assert "found both" in faults(counter=True)
    quantiles = contract(WIND, quantiles=[0.1, 0.9])
    assert "a circle has no smaller" in "; ".join(message for _, message in quantiles.faults())
    other = contract(WIND, Feature("x", derived=["covariance wind 10"]), targets=["x"])
    assert 'another feature of numbers, found "wind"' in "; ".join(message for _, message in other.faults())
