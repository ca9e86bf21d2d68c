"""Dead sensors in training look as they look on a device."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Contract, Feature, KnownAhead, Sampling
from edge_lstm.recordings.recording import Recording
from edge_lstm.streaming.features import Features
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from edge_lstm_train.data.dataset import dataset_of
from edge_lstm_train.data.feature_vectors import Samples, feature_vectors
from edge_lstm_train.data.samples import samples_of
from edge_lstm_train.data.sensor_dropout import SensorDropout, dead_steps, mortal, with_failures
from edge_lstm_train.data.split import PARTS
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.recording_sections import FeatureSection
from tests.networks import contract_of, random_network

FEATURES = [
    Feature("power", mean=5.0),
    Feature("wind", mean=7.0, mask=True, age=True),
    Feature("sky", mean=2.0, mask=True),
]
# inputs: power, wind, sky, wind missing, sky missing, wind age


def contract() -> Contract:
    return contract_of(
        random_network(inputs=6, outputs=1), features=FEATURES, targets=["power"], horizons=[1], clock=[]
    )


def test_a_dead_sensor_in_training_gives_the_inputs_of_a_device() -> None:
    made, random = contract(), np.random.default_rng(3)
    steps = 4000
    alive = Samples(
        60.0 * np.arange(steps),
        np.where(np.arange(steps) > 0, 60.0, np.nan),
        random.normal(0, 1, (steps, 3)).astype(np.float32),
        np.zeros((steps, 3), bool),
        np.arange(steps) == 0,
    )
    run = feature_vectors(made, alive)[1]
    SensorDropout(made, 0.3)(run, np.random.default_rng(1))
    dead = run[:, 3:5] > 0
    assert (dead.mean(axis=0) > 0.1).all()
    assert not np.array_equal(dead[:, 0], dead[:, 1])
    values, missing = alive.values.copy(), alive.missing.copy()
    missing[:, 1:] = dead
    for step in range(steps):  # what the sampler of a device holds
        for column in (1, 2):
            if missing[step, column]:
                values[step, column] = values[step - 1, column] if step else FEATURES[column].mean
    expected = feature_vectors(made, Samples(alive.times, alive.since, values, missing, alive.restart))[1]
    np.testing.assert_allclose(run, expected, rtol=1e-5, atol=1e-6)
    assert expected[:, 5].max() > math.log1p(60 * 100)


def test_targets_and_features_without_a_mask_stay_alive() -> None:
    run = np.ones((500, 6), np.float32)
    SensorDropout(contract(), 0.8)(run, np.random.default_rng(1))
    assert (run[:, 0] == 1).all()
    assert not SensorDropout(contract_of(random_network()), 0.8)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_a_sensor_is_dead_for_its_share_of_the_time_in_blocks(share: float) -> None:
    dead = np.concatenate([dead_steps(3000, share, np.random.default_rng(seed)) for seed in range(60)])
    assert dead.mean() == pytest.approx(share, rel=0.2, abs=0.03)
    lengths = np.diff(np.flatnonzero(np.diff(dead.astype(int), prepend=0, append=0)))[::2]
    assert 20 < lengths.mean() < 700


def test_the_age_of_a_value_is_the_time_since_it_was_measured_bit_for_bit_in_both_ways() -> None:
    made, random = contract(), np.random.default_rng(5)
    steps = 300
    missing = random.random((steps, 3)) < 0.5
    missing[:, 0] = False
    restart = random.random(steps) < 0.02
    restart[0] = True
    times = np.cumsum(random.random(steps) * 100)
    since = np.diff(times, prepend=np.nan)
    samples = Samples(times, since, random.normal(0, 1, (steps, 3)).astype(np.float32), missing, restart)
    at_once = feature_vectors(made, samples)[1]
    features = Features(made)
    from edge_lstm.streaming.features import record_fields

    current = np.zeros(1, [("warm_steps", "i8"), *record_fields(made)])
    slots = np.array([0])
    for step in range(steps):
        if restart[step]:
            current["warm_steps"] = 0
        at = slice(step, step + 1)
        one = features.vectors(current, slots, times[at], since[at], samples.values[at], missing[at])
        assert one.tobytes() == at_once[at].tobytes()
        current["warm_steps"] += 1
    assert at_once[:, 5].max() > 5


def test_the_age_survives_a_restart_of_the_service() -> None:
    class Tells(ReferenceBackend):
        def step(self, features: np.ndarray, states: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
            _, following = super().step(features, states)
            return features[:, 5:6], following

    network = random_network(inputs=6, outputs=1)
    first = Predictor(contract(), Tells(network))
    first.feed([Reading("s", 0.0, {"power": 1.0, "wind": 3.0, "sky": 1.0}), Reading("s", 60.0, {"power": 1.0})])
    second = Predictor(contract(), Tells(network))
    second.load_state("s", first.state("s"))
    (one,) = second.feed([Reading("s", 120.0, {"power": 1.0})])
    assert one.values["power"][1] == pytest.approx(math.log1p(120.0))
    (one,) = second.feed([Reading("s", 180.0, {"power": 1.0, "wind": 2.0})])
    assert one.values["power"][1] == 0


def test_sensors_that_fail_in_the_validation_part_give_the_inputs_of_a_device(
    recipe_of: Callable[..., Recipe], recording_of: Callable[..., Recording]
) -> None:
    random = np.random.default_rng(2)
    gone = random.random((1200, 2)) < 0.1
    rows = [
        (stream, 60.0 * step, [float(step), math.nan if gone[step, side] else float(random.normal())])
        for side, stream in enumerate(("a", "b"))
        for step in range(1200)
    ]
    wind = FeatureSection(mask=True, age=True, derived=["mean 5"])
    recipe = dataclasses.replace(recipe_of(), features={"x": FeatureSection(), "wind": wind})
    recipe = dataclasses.replace(recipe, sampling=Sampling(60.0, None))
    alive = dataset_of(recipe, recording_of(rows, features=("x", "wind")))
    assert with_failures(alive, 0.0) is alive
    failing = with_failures(alive, 0.3)
    missing = failing.samples.missing
    validation = alive.part_of == PARTS.index("validation")
    assert missing[validation, 1].mean() == pytest.approx(0.37, abs=0.2)
    for one in (alive, failing):
        assert not one.samples.missing[:, 0].any()
    np.testing.assert_array_equal(missing[~validation], alive.samples.missing[~validation])
    before = alive.part_of == PARTS.index("train")
    np.testing.assert_array_equal(failing.features[before], alive.features[before])
    np.testing.assert_array_equal(failing.targets, alive.targets)
    np.testing.assert_array_equal(with_failures(alive, 0.3).features, failing.features)
    rows_gone = [
        (stream, time, [x, math.nan if missing[at, 1] else value]) for at, (stream, time, (x, value)) in enumerate(rows)
    ]
    device, _ = samples_of(alive.contract, recording_of(rows_gone, features=("x", "wind")))
    expected = Samples(device.times, device.since, device.values, device.missing, alive.restart)
    held = expected.values[:, 1]
    held[np.isnan(held)] = alive.contract.features[1].mean
    np.testing.assert_array_equal(failing.samples.values, expected.values)
    np.testing.assert_array_equal(failing.features, feature_vectors(alive.contract, expected)[1])


def test_a_forecast_fails_with_all_its_steps_at_once() -> None:
    features = [Feature("power"), *(Feature(f"wind+{step}", mean=7.0, mask=True) for step in (1, 6))]
    known = [KnownAhead("wind", "weather", [1, 6])]
    made = contract_of(
        random_network(inputs=5, outputs=1),
        features=features,
        targets=["power"],
        horizons=[1],
        known_ahead=known,
        clock=[],
    )
    assert mortal(made) == {"forecast of wind": [1, 2]}
    run = np.random.default_rng(3).normal(0, 1, (2000, 5)).astype(np.float32)
    run[:, 3:] = 0
    SensorDropout(made, 0.3)(run, np.random.default_rng(1))
    assert 0.1 < run[:, 3].mean() < 0.6
    assert np.array_equal(run[:, 3], run[:, 4])
