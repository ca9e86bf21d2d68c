"""Derived inputs, and how values are prepared for the network."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_lstm.bundle.contract import Feature, Sampling
from edge_lstm.foundation.config import from_mapping
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from tests.feature_vectors import Seen, contract, fed


def test_derived_inputs_have_their_defined_values() -> None:
    asked = contract(Feature("x", derived=["difference", "mean 3", "deviation 3", "from_mean 3", "slope 2 4"]))
    assert asked.inputs == ["x", "x difference", "x mean 3", "x deviation 3", "x from_mean 3", "x slope 2 4"]
    values = [2.0, 4.0, 8.0, 8.0, 1.0]
    rows, _ = fed(asked, [(minute, {"x": value}) for minute, value in enumerate(values)])

    def average(span: int) -> list[float]:
        found, kept = [], 0.0
        for count, value in enumerate(values, 1):
            kept += max(2 / (span + 1), 1 / count) * (value - kept)
            found.append(kept)
        return found

    np.testing.assert_allclose(rows[:, 1], [0, 2, 4, 0, -7], rtol=1e-6)
    np.testing.assert_allclose(rows[:, 2], average(3), rtol=1e-6)
    np.testing.assert_allclose(rows[:2, 3], [0, 1], rtol=1e-6)  # of 2 and 4 about their mean
    np.testing.assert_allclose(rows[:, 4], np.array(values) - average(3), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(rows[:, 5], np.array(average(2)) - average(4), rtol=1e-5, atol=1e-6)


def test_from_start_uses_the_mean_of_the_first_values() -> None:
    asked = contract(Feature("x", derived=["from_start 3", "mean 3"]), sampling=Sampling(60.0, 600.0))
    values = [(0, 1.0), (1, 3.0), (2, 5.0), (3, 7.0), (4, 100.0), (60, 2.0), (61, 4.0)]  # a gap before the last two
    rows, _ = fed(asked, [(minute, {"x": value}) for minute, value in values])
    np.testing.assert_allclose(rows[:, 1], [0, 1, 2, 4, 97, 0, 1], atol=1e-6)
    one_by_one, _ = fed(asked, [(minute, {"x": value}) for minute, value in values], 1)
    np.testing.assert_array_equal(one_by_one, rows)


def test_standardized_uses_the_level_and_scale_of_the_first_values() -> None:
    asked = contract(Feature("x", scale=2.0, derived=["standardized 3"]), sampling=Sampling(60.0, 600.0))
    values = [(0, 1.0), (1, 3.0), (2, 5.0), (3, 7.0), (4, 100.0), (60, 2.0), (61, 4.0)]  # a gap before the last two
    rows, _ = fed(asked, [(minute, {"x": value}) for minute, value in values])
    own = math.sqrt(8 / 3)  # of 1, 3 and 5 about 3
    np.testing.assert_allclose(rows[:, 1], [0, 1, 2 / own, 4 / own, 97 / own, 0, 1], rtol=1e-6)
    one_by_one, _ = fed(asked, [(minute, {"x": value}) for minute, value in values], 1)
    np.testing.assert_array_equal(one_by_one, rows)


def test_a_stream_that_stands_still_at_first_has_a_tenth_of_the_trained_scale() -> None:
    asked = contract(Feature("x", scale=2.0, derived=["standardized 3"]))
    rows, _ = fed(asked, [(minute, {"x": value}) for minute, value in enumerate([5.0, 5.0, 5.0, 6.0])])
    np.testing.assert_allclose(rows[:, 1], [0, 0, 0, 1 / 0.2], rtol=1e-6)


def test_a_running_deviation_converges_to_the_standard_deviation() -> None:
    values = np.random.default_rng(3).normal(5, 2, 4000)
    rows, _ = fed(contract(Feature("x", derived=["deviation 1000"])), [(i, {"x": v}) for i, v in enumerate(values)])
    assert rows[-1, 1] == pytest.approx(2.0, rel=0.05)


def test_a_covariance_has_the_sign_of_the_joint_movement() -> None:
    random = np.random.default_rng(5)
    x = random.normal(5, 2, 4000)
    against = -0.5 * x + random.normal(0, 0.1, 4000)
    asked = contract(Feature("x", derived=["covariance the other 1000"]), Feature("the other"))
    assert asked.inputs == ["x", "the other", "x covariance the other 1000"]
    rows, _ = fed(asked, [(at, {"x": a, "the other": b}) for at, (a, b) in enumerate(zip(x, against, strict=True))])
    assert rows[-1, 2] == pytest.approx(-math.sqrt(0.5 * 2.0**2), rel=0.05)


def test_a_covariance_restarts_after_a_gap() -> None:
    asked = contract(
        Feature("x", derived=["deviation 3", "covariance y 3"]),
        Feature("y", derived=["covariance x 3", "from_start 3"]),
        sampling=Sampling(60.0, 600.0),
    )
    values = [(0, 2.0), (1, 4.0), (2, 8.0), (3, 1.0), (60, 7.0), (61, 5.0)]  # a gap before the last two
    rows, _ = fed(asked, [(minute, {"x": value, "y": -value}) for minute, value in values], 1)
    assert asked.inputs[2:5] == ["x deviation 3", "x covariance y 3", "y covariance x 3"]
    np.testing.assert_allclose(rows[:, 3], -rows[:, 2], rtol=1e-6)
    np.testing.assert_array_equal(rows[:, 4], rows[:, 3])
    np.testing.assert_allclose(rows[[0, 1, 4, 5], 3], [0, -1, 0, -1], atol=1e-6)


def test_a_gap_restarts_derived_inputs() -> None:
    asked = contract(Feature("x", derived=["difference", "mean 10"]))
    rows, _ = fed(asked, [(0, {"x": 5.0}), (1, {"x": 6.0}), (60, {"x": 9.0}), (61, {"x": 10.0})])
    np.testing.assert_allclose(rows[2:, 1:], [[0, 9], [1, 9.5]])


def test_a_rewind_restores_the_derived_inputs() -> None:
    asked = contract(Feature("x", derived=["difference", "mean 10", "deviation 4", "covariance y 6"]), Feature("y"))
    rows = [(minute, {"x": float(minute**2 % 7), "y": float(minute % 4)}) for minute in range(9)]
    straight, first = fed(asked, rows)
    late, second = fed(asked, [*rows[:5], *rows[6:], rows[5]])
    np.testing.assert_array_equal(late[-4:], straight[-4:])
    assert second.totals["rewound"] == 1
    np.testing.assert_array_equal(first.table.current[0], second.table.current[0])


def test_categories_are_one_hot_and_an_unknown_one_is_all_zero() -> None:
    asked = contract(Feature("door", "", -1.0, categories=["open", "shut"]), Feature("x"))
    assert asked.inputs == ["door", "x", "door is open", "door is shut"]
    rows, _ = fed(asked, [(0, {"x": 1.0}), (1, {"x": 1.0, "door": 1.0}), (2, {"x": 1.0})])
    np.testing.assert_array_equal(rows[:, 2:], [[0, 0], [0, 1], [0, 1]])  # held where it is missing


def test_a_value_takes_its_sign_from_the_other_feature() -> None:
    side = Feature("side", "", -1.0, categories=["left", "right"])
    rows, _ = fed(contract(Feature("ax", mirrored_by="side"), side), [(0, {"ax": 2.0, "side": 0.0})])
    assert rows[0, 0] == 2.0
    rows, _ = fed(contract(Feature("ax", mirrored_by="side"), side), [(0, {"ax": 2.0, "side": 1.0})])
    assert rows[0, 0] == -2.0


def test_values_are_clipped_as_inputs_and_held_unclipped() -> None:
    asked = contract(Feature("x", "", 10.0, 2.0, derived=["difference"]), clip=8.0)
    rows, predictor = fed(asked, [(0, {"x": 10.0}), (1, {"x": 1000.0})])
    assert rows[1].tolist() == [26.0, 16.0]
    assert predictor.table.current["held"][0, 0] == 1000.0


def test_the_time_since_the_last_step_is_an_input() -> None:
    rows, _ = fed(contract(Feature("x"), clock=["elapsed"]), [(0, {"x": 1.0}), (2, {"x": 1.0}), (60, {"x": 1.0})])
    np.testing.assert_allclose(rows[:, 1], [0, math.log1p(120), 0], rtol=1e-6)  # the last begins anew, after a gap


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_a_grid_gives_one_step_per_interval_for_any_batches(batch: int) -> None:
    sampling = Sampling(60.0, 600.0, grid=True)
    features = [Feature(how, aggregate=how, mask=how == "sum") for how in ("mean", "last", "sum", "least", "most")]
    asked = contract(*features, sampling=sampling)
    given = [(0.1, 1.0), (0.5, 5.0), (0.9, 3.0), (1.2, 7.0), (4.0, 2.0), (30.0, 1.0), (31.0, 1.0)]
    rows, predictor = fed(asked, [(minute, {one.name: value for one in features}) for minute, value in given], batch)
    np.testing.assert_allclose(
        rows,
        [
            [3, 3, 9, 1, 5, 0],  # the first minute
            [7, 7, 7, 7, 7, 0],
            [7, 7, 7, 7, 7, 1],  # two minutes without a reading: held, and masked
            [7, 7, 7, 7, 7, 1],
            [2, 2, 2, 2, 2, 0],
            [1, 1, 1, 1, 1, 0],  # after a silence over max_gap_s nothing is filled
        ],
    )
    assert predictor.table.current["time"][0] == 31 * 60.0  # the end of its interval
    assert predictor.totals["gaps"] == 1
    assert predictor.table.current["warm_steps"][0] == 1


def test_a_late_reading_on_a_grid_is_counted_and_dropped() -> None:
    asked = contract(Feature("x", aggregate="sum"), sampling=Sampling(60.0, 600.0, grid=True))
    rows, predictor = fed(asked, [(0.5, {"x": 1.0}), (0.5, {"x": 1.0}), (0.2, {"x": 1.0}), (1.5, {"x": 1.0})])
    assert rows[0, 0] == 1.0
    assert (predictor.totals["duplicate"], predictor.totals["late"]) == (1, 1)


def test_an_open_interval_survives_a_store() -> None:
    asked = contract(Feature("x", aggregate="sum"), sampling=Sampling(60.0, 600.0, grid=True))
    _, first = fed(asked, [(0.2, {"x": 1.0}), (0.4, {"x": 2.0})])
    backend = Seen(asked)
    second = Predictor(asked, backend, max_rewind=8, fetch=first.table.row)
    second.feed([Reading("s", 45.0, {"x": 4.0}), Reading("s", 61.0, {"x": 0.0})])
    assert backend.rows[0][0] == 7.0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("mean", 'expected one of "difference"'),
        ("mean 1", "expected spans of 2"),
        ("mean 10 20", 'found "mean 10 20"'),
        ("covariance 30", '"covariance FEATURE STEPS", found "covariance 30"'),
        ("covariance y 1", "expected spans of 2"),
    ],
)
def test_an_unknown_derived_input_is_refused(text: str, found: str) -> None:
    with pytest.raises(EdgeLstmError, match=found):
        from_mapping({"name": "x", "derived": [text]}, Feature, "manifest")


@pytest.mark.parametrize("other", ["x", "state", "nobody"])
def test_a_covariance_needs_another_numeric_feature(other: str) -> None:
    asked = contract(Feature("x", derived=[f"covariance {other} 5"]), Feature("state", categories=["on", "off"]))
    assert list(asked.faults()) == [
        ("features", f'expected derived to name another feature of numbers, found "{other}"')
    ]
