"""The dataset has the steps that a device takes, and targets that nobody could have known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.errors import EdgeLstmError
from edge_lstm.predictor import Predictor
from edge_lstm_train.dataset import carried_chunks, dataset_of, read_dataset, window_ends, windows
from edge_lstm_train.evaluate import aligned, predict
from edge_lstm_train.fit import fit, streamed
from edge_lstm_train.recipe import read_recipe
from edge_lstm_train.sections import FeatureSection, FitSection

Floats = np.ndarray
Make = Callable[..., Any]


class Listener:
    """A backend that predicts nothing and remembers what it was given."""

    name, scheme = "listener", "float32"

    def __init__(self) -> None:
        self.rows: list[tuple[bool, Floats]] = []

    def step(self, features: Floats, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        cold = states[0].reshape(len(features), -1).max(axis=1) == 0
        self.rows += list(zip(cold.tolist(), features.copy(), strict=True))
        return np.zeros((len(features), 2), np.float32), [state + 1 for state in states]


def messy_rows() -> list[tuple[str, float, list[float]]]:
    """Two streams interleaved, with missing values (one of them the first), a gap, repeats and late readings."""
    rows = []
    rng = np.random.default_rng(3)
    for index in range(60):
        for stream in ("a", "b"):
            time = 60.0 * index + (7200 if index >= 25 and stream == "b" else 0)
            values = rng.normal(10, 2, 2).tolist()
            if (index + len(rows)) % 7 == 0:
                values[index % 2] = float("nan")
            rows.append((stream, time, values))
            if index % 11 == 5:
                rows.append((stream, time, [99.0, 99.0]))
            if index % 13 == 6:
                rows.append((stream, time - 30.0, [-99.0, -99.0]))
    return rows


def test_features_and_restarts_are_those_that_the_predictor_steps_on_a_messy_recording(
    recipe_of: Make, recording_of: Make
) -> None:
    recipe = recipe_of(features={"x": True, "y": False}, horizons=[1, 3], clock=["time_of_day"], max_gap_s=600)
    recording = recording_of(messy_rows(), ["x", "y"])
    dataset = dataset_of(recipe, recording)
    listener = Listener()
    predictor = Predictor(dataset.contract, listener)
    for name in recording.streams:
        predictor.feed(reading for reading in recording.readings() if reading.stream == name)
    cold, rows = zip(*listener.rows, strict=True)
    np.testing.assert_array_equal(dataset.features, np.stack(rows))
    np.testing.assert_array_equal(dataset.restart, cold)
    assert dataset.dropped == {"duplicate": 10, "late": 10, "gaps": 1, "missing": predictor.totals["missing"]}
    assert dataset.dropped["missing"] > 5
    assert len(dataset) == 120


def test_targets_reach_over_no_gap_no_part_and_no_missing_value(recipe_of: Make, recording_of: Make) -> None:
    nan = float("nan")
    #        train ..............................| validation ....| test
    values = [0.0, 1.0, 2.0, nan, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0]
    times = [60.0 * index + (3600 if index >= 6 else 0) for index in range(16)]
    recording = recording_of([("s", time, [value]) for time, value in zip(times, values, strict=True)], ["x"])
    dataset = dataset_of(recipe_of(horizons=[1, 2], max_gap_s=600, train=0.5, validation=0.25), recording)
    expected_1 = [1, 2, nan, 4, 5, nan, 7, nan, 9, 10, 11, nan, 13, 14, 15, nan]
    expected_2 = [2, nan, 4, 5, nan, nan, nan, nan, 10, 11, nan, nan, 14, 15, nan, nan]
    np.testing.assert_array_equal(dataset.targets, np.array([expected_1, expected_2]).T)
    assert np.flatnonzero(dataset.restart).tolist() == [0, 6]
    assert dataset.values[3, 0] == 2.0  # held
    assert [dataset.starts[part] for part in ("validation", "test")] == [times[8], times[12]]


def test_statistics_come_from_what_was_measured_in_the_training_part(recipe_of: Make, recording_of: Make) -> None:
    rows = [("s", 60.0 * index, [float("nan") if index == 1 else index if index < 6 else 1e6]) for index in range(10)]
    dataset = dataset_of(recipe_of(), recording_of(rows, ["x"]))
    (feature,) = dataset.contract.features
    assert feature.mean == pytest.approx(np.mean([0, 2, 3, 4, 5]))
    assert feature.scale == pytest.approx(np.std([0, 2, 3, 4, 5]))


def test_features_that_never_change_in_the_training_part_are_refused_together(
    recipe_of: Make, recording_of: Make
) -> None:
    rows = [("s", 60.0 * index, [index % 5, 7.0, -1e6, float(index > 20)]) for index in range(30)]
    with pytest.raises(EdgeLstmError, match=r"found constant ones: b \(7\), c \(-1e\+06\), d \(0\)"):
        dataset_of(recipe_of(features=dict.fromkeys("abcd", False)), recording_of(rows, list("abcd")))


def test_a_feature_that_tells_a_target_beforehand_is_refused(recipe_of: Make, recording_of: Make) -> None:
    random = np.random.default_rng(4).normal(1013, 8, 200)
    rows = [("s", 60.0 * index, [random[index], 1.8 * random[index + 2] + 32]) for index in range(190)]
    recording = recording_of(rows, ["hPa", "tomorrow"])
    dataset_of(recipe_of(features={"hPa": False, "tomorrow": False}, horizons=[1]), recording)
    with pytest.raises(EdgeLstmError) as caught:
        dataset_of(recipe_of(features={"hPa": False, "tomorrow": False}, horizons=[1, 2]), recording)
    assert '"tomorrow" to say no more than a device knows, found that it tells "hPa" 2 steps ahead' in str(caught.value)


def test_what_runs_like_clockwork_is_no_leak(recipe_of: Make, recording_of: Make) -> None:
    rows = [("s", 60.0 * index, [2.0 * index, 5.0 - index]) for index in range(100)]
    assert len(dataset_of(recipe_of(features={"x": False, "y": False}), recording_of(rows, ["x", "y"]))) == 100


def test_every_stream_is_split_at_the_same_moment(recipe_of: Make, recording_of: Make) -> None:
    offsets = {"a": 0.0, "b": 7.0}
    rows = [(name, 60.0 * index + offset, [index % 7.0]) for index in range(40) for name, offset in offsets.items()]
    dataset = dataset_of(recipe_of(), recording_of(rows, ["x"]))
    for stream in (0, 1):
        parts = dataset.part_of[dataset.stream_of == stream]
        assert np.bincount(parts).tolist() == [24, 8, 8]
    assert dataset.times[dataset.steps("train")].max() < dataset.times[dataset.steps("validation")].min()


def test_chunks_follow_one_another_and_restart_where_the_recording_does(recipe_of: Make, recording_of: Make) -> None:
    rows = [("s", 60.0 * index + (3600 if index >= 17 else 0), [float(index)]) for index in range(100)]
    dataset = dataset_of(recipe_of(max_gap_s=600), recording_of(rows, ["x"]))
    chunks = carried_chunks(dataset, segments=2, chunk=10, random=np.random.default_rng(0))
    firsts = set()
    for _ in range(5):
        epoch = [next(chunks) for _ in range(3)]
        values = np.concatenate([batch.features[..., 0] for batch in epoch], axis=1)  # (segments, 30)
        restart = np.concatenate([batch.restart for batch in epoch], axis=1)
        steady = np.diff(values, axis=1) == 1
        assert sorted(values.ravel()) == list(range(60))
        np.testing.assert_array_equal(restart[:, 1:], ~steady | (values[:, 1:] == 17))
        assert restart[:, 0].all()
        firsts.add(values[0, 0])
    assert len(firsts) > 1  # every epoch cuts elsewhere


def test_windows_are_samples_by_steps_by_features_and_none_spans_a_gap(recipe_of: Make, recording_of: Make) -> None:
    rows = [("s", 60.0 * index + (3600 if index >= 17 else 0), [float(index)]) for index in range(100)]
    dataset = dataset_of(recipe_of(max_gap_s=600), recording_of(rows, ["x"]))
    batch = next(windows(dataset, 6, 1000, np.random.default_rng(0)))
    assert batch.features.shape == (60 - 5 - 5, 6, 1)
    assert (np.diff(batch.features[..., 0], axis=1) == 1).all()
    assert not np.isfinite(batch.targets[:, :-1]).any()
    assert window_ends(dataset, 6).tolist() == [*range(5, 17), *range(22, 60)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("time,y\n2024-01-01,1\n", 'expected a column "x", found time, y'),
        ("time,x\n2024-01-01,1\nyesterday,2\n", "row 3, column \"time\": 'yesterday' is not a time"),
        ("time,x\n2024-01-01,1\n2024-01-02,much\n", "row 3, column \"x\": 'much' is not a number"),
        ("", "expected a header row and rows of readings, found nothing"),
        ("time,x\n", "expected a header row and rows of readings, found only a header"),
        ("time,x\n2024-01-01,1\n2024-01-02,2\n", "expected readings for training, validation and test, found 2 in all"),
        (
            "time,x\n" + "".join(f"{second},{second}\n" for second in range(5)),
            'expected "x" to be known at horizon 1 in the validation part, found it unknown at each of its steps (1)',
        ),
    ],
)
def test_a_faulty_recording_is_refused_by_place(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "pump.csv").write_text(text)
    path = tmp_path / "pump.toml"
    path.write_text(
        'name = "pump"\n[recording]\npath = "pump.csv"\n[features.x]\n[forecast]\ntargets = ["x"]\nhorizons = [1]\n'
    )
    with pytest.raises(EdgeLstmError) as caught:
        read_dataset(read_recipe(path))
    assert found in caught.value.message


@pytest.mark.parametrize("part", ["recordings", "one at a time"])
def test_a_messy_recording_makes_the_same_inputs_in_training_and_on_the_device(
    part: str, recipe_of: Make, recording_of: Make
) -> None:
    random = np.random.default_rng(7)
    rows = []
    for stream in ("a", "b", "c"):
        time = 1_700_000_000.0
        for _ in range(300):
            time += float(random.choice([5, 20, 61, 130, 2000], p=[0.4, 0.3, 0.2, 0.09, 0.01]))
            values = [float(random.normal(20, 3)), float(random.integers(0, 2)), float(random.normal())]
            rows.append((stream, time, [math.nan if random.random() < 0.2 else value for value in values]))
    rows += rows[40:60]  # repeated and late
    recipe = recipe_of(clock=["time_of_day", "elapsed"], fit=FitSection(updates=4, segments=4, chunk=20))
    recipe = dataclasses.replace(
        recipe,
        features={
            "x": FeatureSection(mask=True, derived=["difference", "mean 10", "deviation 5", "slope 3 9"]),
            "side": FeatureSection(categories=["left", "right"]),
            "y": FeatureSection(mirrored_by="side", aggregate="most"),
        },
        clip=2.0,
        sampling=dataclasses.replace(recipe.sampling, interval_s=60.0, max_gap_s=600.0, grid=part == "recordings"),
    )
    recording = recording_of(rows, ("x", "side", "y"))
    dataset = dataset_of(recipe, recording)
    model = fit(recipe, dataset, np.ones(1)).model
    runtime = aligned(dataset, predict(dataset.contract, model.network(), recording))
    assert np.isfinite(runtime).all()
    np.testing.assert_allclose(runtime, streamed(model, dataset), rtol=1e-4, atol=1e-4)
