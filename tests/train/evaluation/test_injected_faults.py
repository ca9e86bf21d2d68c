"""Faults put on the validation part, and what the alarms of a model miss of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from edge_lstm_train.data.dataset import Dataset, dataset_of
from edge_lstm_train.evaluation.alarms.injected_faults import Fault, fault_judge, put_on
from edge_lstm_train.evaluation.trained_contract import with_states
from edge_lstm_train.model.forecaster import Forecaster, Shape
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.task_sections import AnomalySection
from tests.train.conftest import recipe_of, recording_of, with_label


def task(
    streams: int = 3, steps: int = 500, truth: tuple[int, int] | None = None, **split: Any
) -> tuple[Recipe, Dataset]:
    """Sensors that are noise about a level; in `truth`, a stretch of each stream that is labelled as an anomaly."""
    section = AnomalySection(calibrate_steps=100, span_steps=10, truth=None if truth is None else "broken")
    recipe = dataclasses.replace(
        recipe_of(features={"x": False, "y": False, "z": False}), task="anomaly", forecast=None
    )
    recipe = dataclasses.replace(recipe, anomaly=section, split=dataclasses.replace(recipe.split, **split))
    values = np.random.default_rng(1).normal(0, 1, (streams, steps, 3)) + 5.0 * np.arange(streams)[:, None, None]
    rows = [(f"s{s}", 60.0 * t, values[s, t].tolist()) for s in range(streams) for t in range(steps)]
    recording = recording_of(rows, ("x", "y", "z"))
    if truth is not None:
        at = np.arange(steps)
        recording = with_label(recording, "broken", np.tile(((at >= truth[0]) & (at < truth[1])) * 1.0, streams))
    return recipe, dataset_of(recipe, recording)


def forecaster(dataset: Dataset, follows: bool) -> Forecaster:
    """Forecasts the newest value (follows), or the level of the training part."""
    model = Forecaster(Shape("lstm", inputs=3, hidden=2, layers=1, outputs=3))
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    if follows:
        model.change_of = torch.arange(3)
    assert with_states(dataset.contract, model).states
    return model


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("offset", [2.0] * 4), ("drift", [0.0, 2 / 3, 4 / 3, 2.0]), ("stuck", [-4.0, -5.0, -6.0, -7.0])],
)
def test_a_fault_changes_its_sensors_while_it_lasts(kind: str, expected: list[float]) -> None:
    before = np.repeat(np.arange(10.0)[:, None], 2, axis=1).astype(np.float32)
    after = before.copy()
    put_on(after, Fault(kind, 4.0, (1,), 4, 8), np.array([9.0, 0.5]), np.random.default_rng(0))
    change = (after - before)[:, 1]
    assert (after[:, 0] == before[:, 0]).all()
    assert not change[:4].any()
    assert not change[8:].any()
    assert np.abs(change[4:8]) == pytest.approx(np.abs(expected) if kind != "stuck" else [1.0, 2.0, 3.0, 4.0], abs=1e-5)


def test_noise_has_the_size_of_its_fault() -> None:
    values = np.zeros((4000, 1), np.float32)
    put_on(values, Fault("noise", 3.0, (0,), 0, 4000), np.array([0.5]), np.random.default_rng(0))
    assert values.std() == pytest.approx(1.5, rel=0.05)


def test_a_forecast_that_follows_a_faulty_sensor_misses_more_of_the_faults() -> None:
    recipe, dataset = task()
    judge = fault_judge(recipe, dataset)
    assert judge is not None
    following, level = (judge(forecaster(dataset, follows)) for follows in (True, False))
    assert len(following) == len(level) == sum(map(len, judge.blocks)) >= 160
    assert level.mean() < following.mean() - 0.1
    again = fault_judge(recipe, dataset)
    assert again is not None
    assert (again(forecaster(dataset, True)) == following).all()


def test_the_streams_are_the_blocks_where_there_are_enough() -> None:
    many, few = (fault_judge(*task(streams, 300)) for streams in (8, 3))
    assert many is not None
    assert few is not None
    assert (len(many.blocks), many.blocks_are) == (8, "streams")
    assert few.blocks_are == "stretches with faults"
    assert len(few.blocks) >= 6


def test_a_fault_is_put_on_steps_that_are_not_labelled_as_anomalies() -> None:
    recipe, dataset = task(truth=(330, 360))  # the validation part is 300 to 400
    judge = fault_judge(recipe, dataset)
    assert judge is not None
    windows = [stream.window % 500 for stream in judge.streams]
    assert [(at.min(), at.max()) for at in windows] == [(360, 399)] * 3
    copies = np.concatenate([stream.steps for stream in judge.streams for _ in range(len(judge.faults) // 3)]) % 500
    places = np.concatenate([np.arange(fault.begin, fault.end) for fault in judge.faults])
    assert set(copies[places].tolist()) <= set(range(360, 400))


def test_a_validation_part_shorter_than_a_span_judges_nothing() -> None:
    recipe, dataset = task(steps=200, train=0.7, validation=0.02)
    assert fault_judge(recipe, dataset) is None
