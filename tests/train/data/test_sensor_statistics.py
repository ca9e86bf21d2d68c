"""What training records of working sensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_lstm.bundle.contract import Feature
from edge_lstm.bundle.sensor import Sensor
from edge_lstm_train.data.dataset import Dataset, dataset_of
from edge_lstm_train.data.sensor_statistics import sensor_statistics
from edge_lstm_train.evaluation.trained_contract import with_sensors

Make = Callable[..., Any]


def recorded(recipe_of: Make, recording_of: Make, values: np.ndarray) -> Dataset:
    return dataset_of(recipe_of(), recording_of([("s", 3600.0 * at, [value]) for at, value in enumerate(values)]))


def statistics(recipe_of: Make, recording_of: Make, values: np.ndarray) -> Sensor:
    (found,) = sensor_statistics(recorded(recipe_of, recording_of, values))
    assert found is not None
    return found


def noise(steps: int = 2000) -> np.ndarray:
    return np.random.default_rng(0).normal(5, 2, steps)


def test_noise_is_never_still_for_long(recipe_of: Make, recording_of: Make) -> None:
    found = statistics(recipe_of, recording_of, noise())
    assert found.equal_steps == 1
    assert found.levels == []
    assert 1 <= found.still_steps <= 10
    assert 0.2 < found.still < 1.0  # of a deviation of 2
    assert -4 < found.least < 0
    assert 10 < found.most < 14


def test_nights_are_a_level_with_their_length(recipe_of: Make, recording_of: Make) -> None:
    values = noise()
    for begin in range(0, 2000, 100):
        values[begin : begin + 40 + begin // 100] = 0.0
    trained = int(0.6 * 2000)  # parts by time
    found = statistics(recipe_of, recording_of, values)
    assert found.levels == [0.0]
    longest = 40 + (trained - 1) // 100
    assert found.level_equal_steps == [longest]
    assert longest <= found.level_still_steps[0] <= longest + 2
    assert found.equal_steps == 1


def test_a_sensor_that_mostly_repeats_its_value_may_do_so_at_any_value(recipe_of: Make, recording_of: Make) -> None:
    found = statistics(recipe_of, recording_of, np.repeat(np.round(noise(100)), 20))
    assert found.equal_steps >= 20


def test_statistics_are_those_of_the_training_part(recipe_of: Make, recording_of: Make) -> None:
    values = noise()
    values[1500:] = 99.0
    found = statistics(recipe_of, recording_of, values)
    assert (found.equal_steps, found.most < 14) == (1, True)


def test_categories_and_few_values_have_none(recipe_of: Make, recording_of: Make) -> None:
    few = recorded(recipe_of, recording_of, noise(250))
    assert sensor_statistics(few) == [None]
    dataset = recorded(recipe_of, recording_of, (noise() > 5).astype(float))
    (feature,) = dataset.contract.features
    kind = Feature(feature.name, categories=["off", "on"])
    texts = dataclasses.replace(dataset, contract=dataclasses.replace(dataset.contract, features=[kind]))
    assert sensor_statistics(texts) == [None]


def test_a_trained_contract_has_them(recipe_of: Make, recording_of: Make) -> None:
    dataset = recorded(recipe_of, recording_of, noise())
    (feature,) = with_sensors(dataset.contract, dataset).features
    assert [feature.sensor] == sensor_statistics(dataset)
