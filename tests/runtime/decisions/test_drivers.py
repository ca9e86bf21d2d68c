"""Drivers: exact shares, the right sensor first, the same bits in any batch, circles, missing values."""

from __future__ import annotations

import numpy as np
import pytest

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Alarm, Contract, Feature
from edge_lstm.decisions.alarms.drivers import NAMED_FROM, drivers
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction, Reading
from tests.networks import contract_of, random_network

NAMES = ("flow", "pressure", "level")


class Persists(ReferenceBackend):
    """Forecasts that the values stay at 10, 20 and 30."""

    def step(self, features: np.ndarray, states: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        _, following = super().step(features, states)
        return np.tile(np.array([10, 20, 30], np.float32), (len(features), 1)), following


def detector(**changes: object) -> Contract:
    alarm = Alarm(span_steps=5, settle_steps=3, calibrate_steps=60, factor=1.5)
    features = [Feature(name, "m", 10.0 * place, 2.0) for place, name in enumerate(NAMES, 1)]
    facts = {"features": features, "targets": list(NAMES), "horizons": [1], "clock": [], "alarm": alarm, **changes}
    return contract_of(random_network(inputs=3, outputs=3), task="anomaly", **facts)


def predictor(**changes: object) -> Predictor:
    return Predictor(detector(**changes), Persists(random_network(inputs=3, outputs=3)))


def values_of(steps: int, seed: int = 1) -> np.ndarray:
    """(steps, 3): normal values; flow and pressure vary together."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.2, (steps, 3))
    noise[:, 1] += 0.8 * noise[:, 0]
    return noise + np.array([10, 20, 30])


def readings(values: np.ndarray, stream: str = "pump") -> list[Reading]:
    return [
        Reading(stream, 60.0 * step, dict(zip(NAMES, map(float, row), strict=True))) for step, row in enumerate(values)
    ]


@pytest.mark.parametrize("size", [1, 2, 5, 17])
def test_a_share_is_what_leaving_the_sensor_out_takes_from_the_squared_distance(size: int) -> None:
    rng = np.random.default_rng(size)
    rows = rng.normal(0, 1, (200, size)) @ rng.normal(0, 1, (size, size))
    covariance = np.atleast_2d(np.cov(rows, rowvar=False)) + 1e-3 * np.eye(size)
    away = rng.normal(0, 1, size)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    unknown = np.zeros((1, size), np.float32)
    found = drivers(np.array([True]), away[None], whitening[None], unknown, unknown)
    whole = away @ np.linalg.solve(covariance, away)
    for sensor, share in zip(found.sensors[0].tolist(), found.share[0].tolist(), strict=True):
        others = np.delete(np.arange(size), sensor)
        rest = away[others] @ np.linalg.solve(covariance[np.ix_(others, others)], away[others]) if size > 1 else 0.0
        assert share == pytest.approx((whole - rest) / whole, rel=1e-5, abs=1e-6)


def test_an_offset_of_one_sensor_names_it_with_its_measured_and_expected_value() -> None:
    for place, name in enumerate(NAMES):
        values = values_of(120)
        values[100:, place] += 6.0
        said = predictor().feed(readings(values))
        first = next(one for one in said if one.alarm)
        assert first.time >= 6000.0
        assert first.drivers is not None
        assert [one.sensor for one in first.drivers] == [name, *(one.sensor for one in first.drivers[1:])]
        assert {one.sensor for one in first.drivers} == set(NAMES)
        named = first.drivers[0]
        assert named.share > 0.9
        assert named.measured == pytest.approx(values[int(first.time / 60), place], rel=1e-6)
        assert named.expected == 10.0 * (place + 1)


def test_sensors_are_told_from_half_the_threshold_on() -> None:
    values = values_of(300)
    values[200:] += np.linspace(0, 4, 100)[:, None] * [1, 0, 0]
    said = predictor().feed(readings(values))
    assert {one.drivers is not None for one in said} == {True, False}
    for one in said:
        assert one.score is not None
        assert (one.drivers is not None) == (one.score >= NAMED_FROM or bool(one.alarm))


def test_drivers_are_the_same_bits_alone_and_in_a_batch() -> None:
    streams = {f"pump-{number}": values_of(110, number) for number in range(9)}
    for number, values in enumerate(streams.values()):
        values[90:, number % 3] += 1.0 + number
    together = predictor()
    found: dict[str, list[Prediction]] = {name: [] for name in streams}
    for step in range(110):
        for one in together.feed([readings(values, name)[step] for name, values in streams.items()]):
            found[one.stream].append(one)
    named = 0
    for name, values in streams.items():
        alone = predictor().feed(readings(values, name))
        assert repr(found[name]) == repr(alone)
        named += sum(one.drivers is not None for one in alone)
    assert named > 100


def test_an_angle_is_driven_the_shorter_way_around() -> None:
    features = [Feature("flow", "m", 10.0, 2.0), Feature("pressure", "m", 20.0, 2.0)]
    features.append(Feature("heading", "°", 0.0, 10.0, period=360.0))
    names = ["flow", "pressure", "heading"]
    contract = detector(features=features, targets=names)

    class Still(ReferenceBackend):
        def step(self, rows: np.ndarray, states: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
            _, following = super().step(rows, states)
            return np.tile(np.array([10, 20, 0, 1], np.float32), (len(rows), 1)), following  # heading 0

    network = random_network(inputs=len(contract.inputs), outputs=4)
    values = values_of(120)
    values[:, 2] = (values[:, 2] - 30) % 360
    values[100:, 2] = 359.0  # one degree off, and not 359
    values[110:, 2] = 300.0
    said = Predictor(contract, Still(network)).feed(
        [Reading("s", 60.0 * step, dict(zip(names, map(float, row), strict=True))) for step, row in enumerate(values)]
    )
    named = said[115].drivers
    assert named is not None
    assert (named[0].sensor, named[0].measured, named[0].expected) == ("heading", 300.0, 0.0)
    assert said[115].score > 10 * said[105].score  # type: ignore[operator]


def test_a_missing_value_is_told_as_missing() -> None:
    values = values_of(120)
    values[100:, 0] += 6.0
    fed = readings(values)
    fed[110] = Reading("pump", 6600.0, {"flow": None, "pressure": 20.0, "level": 30.0})
    said = predictor().feed(fed)
    named = said[110].drivers
    assert named is not None
    assert named[0].sensor == "flow"
    assert np.isnan(named[0].measured)
    assert named[0].expected == 10.0
