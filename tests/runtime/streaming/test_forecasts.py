"""Values of a forecast at a time, and readings that get them."""

from __future__ import annotations

import dataclasses
import math

import pytest

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Contract, KnownAhead, Sampling
from edge_lstm.bundle.network import Network
from edge_lstm.streaming.forecasts import Forecast, ForecastFeatures, newest_at, value_at
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from tests.networks import forecast_contract

START = 1_700_000_040.0  # at a full minute
OUTDOOR = KnownAhead("outdoor", "weather/{stream}", [1, 6])
TARIFF = dataclasses.replace(OUTDOOR, between="previous")
HOURLY = Forecast([0.0, 3600.0, 7200.0], [10.0, 16.0, 4.0])


def predictor_of(network: Network, contract: Contract, **rules: int) -> Predictor:
    return Predictor(contract, ReferenceBackend(network), **rules)


@pytest.mark.parametrize(
    ("time", "line", "step"),
    [(-1.0, None, None), (0.0, 10.0, 10.0), (900.0, 11.5, 10.0), (3600.0, 16.0, 16.0), (5400.0, 10.0, 16.0)],
)
def test_between_two_points_a_value_is_on_the_line_or_that_of_the_point_before(
    time: float, line: float | None, step: float | None
) -> None:
    found = [value_at(HOURLY, time, known) for known in (OUTDOOR, TARIFF)]
    assert found == pytest.approx([math.nan if one is None else one for one in (line, step)], nan_ok=True)


def test_after_its_last_point_a_forecast_says_nothing_but_a_tariff_holds_for_one_interval_more() -> None:
    times = [7200.0, 10_799.0, 10_800.0]
    assert [value_at(HOURLY, time, OUTDOOR) for time in times] == pytest.approx([4.0, math.nan, math.nan], nan_ok=True)
    assert [value_at(HOURLY, time, TARIFF) for time in times] == pytest.approx([4.0, 4.0, math.nan], nan_ok=True)
    assert value_at(Forecast([0.0], [3.0]), 1e9, TARIFF) == 3.0  # a single value holds until the next forecast


def test_a_direction_goes_the_shorter_way_between_two_points() -> None:
    wind = Forecast([0.0, 100.0], [350.0, 20.0])
    assert [value_at(wind, time, OUTDOOR, 360.0) for time in (0.0, 25.0, 50.0)] == pytest.approx([350.0, 357.5, 5.0])


def test_a_missing_point_leaves_the_values_beside_it_missing() -> None:
    hole = Forecast([0.0, 1.0, 2.0, 3.0], [1.0, math.nan, 3.0, 4.0])
    assert [value_at(hole, time, OUTDOOR) for time in (0.0, 0.5, 1.5, 2.5)] == pytest.approx(
        [1.0, math.nan, math.nan, 3.5], nan_ok=True
    )


def test_a_reading_takes_the_forecast_that_was_the_newest_at_its_time() -> None:
    first, second = Forecast([0.0], [1.0], issued=100.0), Forecast([0.0], [2.0], issued=200.0)
    assert [newest_at([first, second], time) for time in (150.0, 200.0, 50.0)] == [first, second, first]
    undated = Forecast([0.0], [3.0])
    assert newest_at([first, undated], 50.0) == undated
    assert newest_at([], 50.0) is None


def test_a_reading_gets_the_value_of_each_step_after_its_own_time() -> None:
    _, contract = forecast_contract(OUTDOOR)
    forecast = Forecast([START + 60 * index for index in range(7)], [float(index) for index in range(7)])
    filled = ForecastFeatures(contract).filled(Reading("a", START, {"level": 1.0}), {"outdoor": [forecast]})
    assert filled.values == {"level": 1.0, "outdoor+1": 1.0, "outdoor+6": 6.0}
    later = ForecastFeatures(contract).filled(Reading("a", START + 60, {"level": 1.0}), {"outdoor": [forecast]})
    assert later.values == {"level": 1.0, "outdoor+1": 2.0}  # it does not reach the other step
    part = ForecastFeatures(contract).filled(Reading("a", START, {}, partial=True), {})
    assert list(part.values) == ["outdoor+1", "outdoor+6"]  # missing, and not to be waited for
    assert all(map(math.isnan, part.values.values()))


def test_on_a_grid_the_steps_count_from_the_end_of_the_interval() -> None:
    _, contract = forecast_contract(OUTDOOR, sampling=Sampling(60.0, 600.0, grid=True))
    forecast = Forecast([START + 60 * index for index in range(9)], [float(index) for index in range(9)])
    for second in (0.0, 17.0, 59.0):
        filled = ForecastFeatures(contract).filled(
            Reading("a", START + second, {"level": 1.0}), {"outdoor": [forecast]}
        )
        assert filled.values["outdoor+1"] == 2.0
        assert filled.values["outdoor+6"] == 7.0


def test_a_step_without_a_value_that_is_known_ahead_is_degraded() -> None:
    network, contract = forecast_contract(OUTDOOR, dataclasses.replace(TARIFF, name="tariff", steps=[0]))
    whole = {"level": 1.0, "outdoor+1": 1.0, "outdoor+6": 2.0, "tariff+0": 3.0}
    readings = [
        Reading("a", START, whole),
        Reading("a", START + 60, {"level": 1.0, "outdoor+1": 1.0, "tariff+0": 3.0}),
        Reading("a", START + 120, {"level": 1.0}),
        Reading("a", START + 180, {**whole, "level": math.nan}),  # a sensor's own value is no forecast
    ]
    found = predictor_of(network, contract).feed(readings)
    assert [one.degraded for one in found] == [(), ("outdoor",), ("outdoor", "tariff"), ()]


def test_a_reading_that_comes_again_with_another_forecast_is_a_repetition() -> None:
    network, contract = forecast_contract(OUTDOOR)
    predictor = predictor_of(network, contract, max_rewind=8, window=16)
    first = Reading("a", START, {"level": 1.0, "outdoor+1": 1.0, "outdoor+6": 2.0}, "7", arrived=True)
    assert len(predictor.feed([first])) == 1
    again = first._replace(time=START + 1, values={**first.values, "outdoor+1": 5.0})
    assert predictor.feed([again]) == []
    assert predictor.totals["duplicate"] == 1


def test_a_part_that_comes_again_with_another_forecast_corrects_nothing() -> None:
    network, contract = forecast_contract(OUTDOOR, measured=["level", "flow"])
    ahead = {"outdoor+1": 1.0, "outdoor+6": 2.0}
    parts = [
        Reading("a", START, {"level": 1.0, **ahead}, partial=True),
        Reading("a", START, {"flow": 3.0, **ahead}, partial=True),
    ]
    predictor = predictor_of(network, contract, max_rewind=8)
    assert len(predictor.feed(parts)) == 1
    changed = [one._replace(values={**one.values, "outdoor+1": 9.0}) for one in parts]
    assert predictor.feed(changed) == []
    corrected = predictor.feed([parts[0]._replace(values={**ahead, "level": 8.0})])
    assert [one.revision for one in corrected] == [1]  # what was measured may be corrected
