"""Small recipes and recordings, made in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import torch

from edge_lstm.bundle.contract import ClockInput, Sampling
from edge_lstm.recordings.recording import Recording
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.recording_sections import FeatureSection, RecordingSection
from edge_lstm_train.recipe.task_sections import ForecastSection
from edge_lstm_train.recipe.training_sections import FitSection, ModelSection, SplitSection


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two threads for products this small wait for each other most of the time, above all on a busy machine."""
    torch.set_num_threads(1)


def recipe_of(
    *,
    features: Mapping[str, bool] | None = None,
    horizons: Sequence[int] = (1,),
    clock: Sequence[ClockInput] = (),
    max_gap_s: float | None = None,
    train: float = 0.6,
    validation: float = 0.2,
    season: int | None = None,
    model: ModelSection | None = None,
    fit: FitSection | None = None,
) -> Recipe:
    """A recipe that forecasts its first feature; `features` maps names to whether they have a mask."""
    features = features or {"x": False}
    return Recipe(
        name="test",
        recording=RecordingSection("nowhere.csv"),
        features={name: FeatureSection(mask=mask) for name, mask in features.items()},
        forecast=ForecastSection([next(iter(features))], list(horizons), season=season),
        clock=list(clock),
        sampling=Sampling(None, max_gap_s),
        split=SplitSection(train, validation),
        model=model or ModelSection(hidden=8),
        fit=fit or FitSection(updates=16, segments=4, chunk=20),
    )


def recording_of(rows: Sequence[tuple[str, float, Sequence[float]]], features: Sequence[str] = ("x",)) -> Recording:
    """(stream, time, values) rows as a recording."""
    streams = list(dict.fromkeys(stream for stream, _, _ in rows))
    return Recording(
        "memory",
        list(features),
        streams,
        np.array([streams.index(stream) for stream, _, _ in rows]),
        np.array([time for _, time, _ in rows], np.float64),
        np.array([values for _, _, values in rows], np.float64).reshape(len(rows), len(features)),
    )


def of_task(recipe: Recipe, **sections: object) -> Recipe:
    (task,) = sections
    return dataclasses.replace(recipe, task=task, forecast=None, **sections)


def with_label(recording: Recording, name: str, values: np.ndarray, categories: tuple[str, ...] = ()) -> Recording:
    found = {name: categories} if categories else {}
    return dataclasses.replace(recording, labels={name: values}, categories=found)


@pytest.fixture(name="recipe_of")
def _recipe_of() -> Callable[..., Recipe]:
    return recipe_of


@pytest.fixture(name="recording_of")
def _recording_of() -> Callable[..., Recording]:
    return recording_of


@pytest.fixture
def waves() -> Recording:
    """Two streams of noisy waves, 400 readings each, one minute apart, with a gap in the second."""
    random = np.random.default_rng(5)
    rows = []
    for index in range(400):
        for phase, stream in enumerate(("a", "b")):
            time = 60.0 * index + (3600 if stream == "b" and index >= 100 else 0)
            rows.append((stream, time, [20 + 3 * np.sin(index / 4 + phase) + random.normal(0, 0.3)]))
    return recording_of(rows)
