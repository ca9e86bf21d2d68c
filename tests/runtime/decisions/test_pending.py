"""What was said about a step waits in the stream's record until that step comes."""

from __future__ import annotations

import numpy as np
import pytest

from edge_lstm.bundle.contract import Contract, Feature
from edge_lstm.decisions.pending import Pending, Truth
from edge_lstm.decisions.step import Step
from edge_lstm.foundation.arrays import Records
from tests.networks import contract_of, random_network

HORIZONS = [1, 3]


def contract(**facts: object) -> Contract:
    network = random_network(inputs=2, outputs=2)
    features = [Feature("level", scale=1.0), Feature("flow", scale=1.0)]
    return contract_of(
        network, **{"features": features, "clock": [], "targets": ["flow"], "horizons": HORIZONS, **facts}
    )


def step_of(current: Records, slots: list[int], values: list[list[float]], missing: list[list[bool]]) -> Step:
    nothing = np.zeros((len(current), 0, 0), np.float32)
    sample = np.array(values, np.float32), np.array(missing)
    return Step(
        current, nothing, np.array(slots), *sample, np.zeros((len(slots), 2), np.float32), np.ones(len(slots), bool)
    )


def test_each_prediction_arrives_after_its_horizon_and_none_from_before_a_restart() -> None:
    pending = Pending(contract(), "said", 1)
    current = np.zeros(2, [("step", "i8"), ("warm_steps", "i8"), pending.field])
    arrived = []
    for number in range(1, 10):
        warm = number if number < 6 else number - 5  # it restarts before step 6
        current["step"][1], current["warm_steps"][1] = number, warm
        step = step_of(current, [1], [[0, 0]], [[False, False]])
        arrived.append(pending.arrived(step)[0, :, 0].tolist())
        pending.wait(step, np.array([[[10.0 * number], [10.0 * number + 1]]], np.float32))
    nan = np.nan
    expected = [[nan, nan], [10, nan], [20, nan], [30, 11], [40, 21], [nan, nan], [60, nan], [70, nan], [80, 61]]
    np.testing.assert_array_equal(arrived, expected)
    assert not current["said"][0].any()


@pytest.mark.parametrize(("horizon", "every"), [(7, 1), (8, 5), (24, 5), (168, 29)])
def test_with_a_limit_only_some_predictions_wait_for_a_long_horizon(horizon: int, every: int) -> None:
    pending = Pending(contract(horizons=[horizon]), "said", 1, most=7)
    assert pending.field[2][0] <= 7
    current = np.zeros(1, [("step", "i8"), ("warm_steps", "i8"), pending.field])
    arrived = {}
    for number in range(1, 5 * horizon):
        current["step"], current["warm_steps"] = number, number
        step = step_of(current, [0], [[0, 0]], [[False, False]])
        if not np.isnan(said := pending.arrived(step)[0, 0, 0]):
            arrived[number] = said
        pending.wait(step, np.array([[[float(number)]]], np.float32))
    assert arrived == {number + horizon: number for number in range(max(every - 1, 1), 4 * horizon, every)}


def test_the_truth_is_the_sample_unless_it_is_missing() -> None:
    made = contract(targets=["flow", "level"], horizons=[2, 5])
    current = np.zeros(2, [("step", "i8")])
    step = step_of(current, [0, 1], [[1, 2], [3, 4]], [[False, False], [False, True]])
    np.testing.assert_array_equal(Truth(made)(step), [[2, 2, 1, 1], [np.nan, np.nan, 3, 3]])


def test_an_estimate_of_what_is_not_measured_has_no_truth_and_waits_for_none() -> None:
    made = contract(task="estimate", targets=["load"], horizons=[0])
    step = step_of(np.zeros(1, [("step", "i8")]), [0], [[1, 2]], [[False, False]])
    assert np.isnan(Truth(made)(step)).all()
    assert not Pending(made, "said", 2).fits


def test_a_horizon_beyond_what_a_row_may_hold_does_not_fit() -> None:
    assert Pending(contract(horizons=[1, 2000]), "said", 2).fits
    assert not Pending(contract(horizons=[1, 2100]), "said", 2).fits


def test_an_error_on_a_circle_goes_the_shorter_way() -> None:
    wind = [Feature("wind", scale=1.0, period=360.0)]
    made = contract_of(random_network(inputs=2, outputs=2), features=wind, targets=["wind"], clock=[], horizons=[1])
    assert Truth(made).minus(np.array([[10.0]]), np.array([[350.0]])).tolist() == [[20.0]]
