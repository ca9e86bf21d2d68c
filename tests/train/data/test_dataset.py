"""The dataset has the steps of a device, and targets that no input reveals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.bundle.contract import Contract, Feature, StateTensor
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.recording import read_recording
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from edge_lstm_train.data.batches import carried_chunks, window_ends, windows
from edge_lstm_train.data.dataset import dataset_of, read_dataset
from edge_lstm_train.data.outliers import outliers
from edge_lstm_train.evaluation.predictions import aligned, predict
from edge_lstm_train.model.carried_state import predict_streamed
from edge_lstm_train.model.fit import fit
from edge_lstm_train.recipe.recipe import read_recipe
from edge_lstm_train.recipe.recording_sections import FeatureSection
from edge_lstm_train.recipe.task_sections import ClassifySection
from edge_lstm_train.recipe.training_sections import FitSection

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


def test_features_and_restarts_match_the_predictor(recipe_of: Make, recording_of: Make) -> None:
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
    assert dataset.dropped == {
        "duplicate": 10,
        "late": 10,
        "costly": 0,
        "gaps": 1,
        "missing": predictor.totals["missing"],
    }
    assert dataset.dropped["missing"] > 5
    assert len(dataset) == 120


def test_no_target_crosses_a_gap_a_part_or_a_missing_value(recipe_of: Make, recording_of: Make) -> None:
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


def test_statistics_come_from_the_training_part_only(recipe_of: Make, recording_of: Make) -> None:
    rows = [("s", 60.0 * index, [float("nan") if index == 1 else index if index < 6 else 1e6]) for index in range(10)]
    dataset = dataset_of(recipe_of(), recording_of(rows, ["x"]))
    (feature,) = dataset.contract.features
    assert feature.mean == pytest.approx(np.mean([0, 2, 3, 4, 5]))
    assert feature.scale == pytest.approx(np.std([0, 2, 3, 4, 5]))


def test_constant_features_are_refused_together(recipe_of: Make, recording_of: Make) -> None:
    rows = [("s", 60.0 * index, [index % 5, 7.0, -1e6, float(index > 20)]) for index in range(30)]
    with pytest.raises(EdgeLstmError, match=r"found constant ones: b \(7\), c \(-1e\+06\), d \(0\)"):
        dataset_of(recipe_of(features=dict.fromkeys("abcd", False)), recording_of(rows, list("abcd")))
    rows = [("s", 60.0 * index, [index % 5 * 1e-12, 1.0]) for index in range(30)]
    small = recording_of(rows, ["ampere", "sky"])
    assert dataset_of(recipe_of(features={"ampere": False}), small).contract.features[0].scale < 1e-11
    sky = FeatureSection(categories=["clear", "rain"])
    recipe = recipe_of(features={"ampere": False})
    with pytest.raises(EdgeLstmError, match=r"found constant ones: sky \(rain\)"):
        dataset_of(dataclasses.replace(recipe, features={**recipe.features, "sky": sky}), small)
    unknown = dataclasses.replace(small, values=np.where(small.values == 1.0, np.nan, small.values))
    with pytest.raises(
        EdgeLstmError, match=r'expected values of "sky" \(of clear, rain\) in the training part, found none'
    ):
        dataset_of(dataclasses.replace(recipe, features={**recipe.features, "sky": sky}), unknown)


def test_a_leaking_feature_is_refused_at_any_horizon(recipe_of: Make, recording_of: Make) -> None:
    random = np.random.default_rng(4).normal(1013, 8, 200)
    rows = [("s", 60.0 * index, [random[index], round(1.8 * random[index + 2] + 32, 2)]) for index in range(190)]
    recording = recording_of(rows, ["hPa", "tomorrow"])
    for horizons in ([1], [1, 2]):
        with pytest.raises(EdgeLstmError) as caught:
            dataset_of(recipe_of(features={"hPa": False, "tomorrow": False}, horizons=horizons), recording)
        error_text = '"tomorrow" to hold what a device can measure, found that it determines "hPa" 2 steps ahead'
        assert error_text in str(caught.value)
    assert dataset_of(recipe_of(features={"tomorrow": False, "hPa": False}), recording)  # yesterday's is no leak


def test_a_feature_that_encodes_the_label_is_refused(recipe_of: Make, recording_of: Make) -> None:
    states = np.random.default_rng(5).integers(0, 3, 200)
    rows = [("s", 60.0 * index, [state, float((5, 1, 9)[state])]) for index, state in enumerate(states.tolist())]
    recording = dataclasses.replace(recording_of(rows, ["state", "copy"]), categories={"state": ["off", "idle", "on"]})
    recipe = dataclasses.replace(
        recipe_of(features={"state": False, "copy": False}),
        task="classify",
        forecast=None,
        classify=ClassifySection(label="state", classes=["off", "idle", "on"]),
    )
    state = FeatureSection(categories=["off", "idle", "on"])
    alone = dataclasses.replace(recipe, features={"state": state})
    both = dataclasses.replace(recipe, features={"state": state, "copy": FeatureSection()})
    for one in (alone, both):  # the label now is among the inputs
        with pytest.raises(EdgeLstmError, match=r'expected "(copy|state)" to hold what .* determines "state"'):
            dataset_of(one, recording)
    later = dataclasses.replace(recipe.classify, ahead=1)
    assert dataset_of(dataclasses.replace(both, classify=later), recording)
    before = dataclasses.replace(recording.rows(slice(199)), values=np.stack([states[:-1], states[1:]], axis=1))
    with pytest.raises(EdgeLstmError, match='found that it determines "state" 1 step ahead'):
        dataset_of(dataclasses.replace(both, classify=later), before)


def test_a_periodic_feature_is_not_a_leak(recipe_of: Make, recording_of: Make) -> None:
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


def test_chunks_are_consecutive_and_restart_with_the_recording(recipe_of: Make, recording_of: Make) -> None:
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


def test_windows_have_their_shape_and_span_no_gap(recipe_of: Make, recording_of: Make) -> None:
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
            "time,x\n" + "".join(f"{1_709_251_200 + second},{second}\n" for second in range(5)),
            'expected "x" to be known at horizon 1 in the validation part, found it unknown at each of its steps (1)',
        ),
    ],
)
def test_a_faulty_recording_is_refused_with_row_and_column(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "pump.csv").write_text(text)
    path = tmp_path / "pump.toml"
    path.write_text(
        'name = "pump"\n[recording]\npath = "pump.csv"\n[features.x]\n[forecast]\ntargets = ["x"]\nhorizons = [1]\n'
    )
    with pytest.raises(EdgeLstmError) as caught:
        read_dataset(read_recipe(path))
    assert found in caught.value.message


def test_missing_and_extra_classes_are_named(recipe_of: Make, recording_of: Make) -> None:
    rows = [("s", 60.0 * index, [float(index % 7)]) for index in range(60)]
    recording = recording_of(rows)
    labelled = dataclasses.replace(
        recording, labels={"gait": np.arange(60) % 3}, categories={"gait": ["run", "sit", "walk"]}
    )
    numbered = dataclasses.replace(recording, labels={"gait": np.arange(60.0) % 20})

    def error_text(recording: Any, *classes: str) -> str:
        section = ClassifySection(label="gait", classes=list(classes))
        recipe = dataclasses.replace(recipe_of(), task="classify", forecast=None, classify=section)
        with pytest.raises(EdgeLstmError) as caught:
            dataset_of(recipe, recording)
        return str(caught.value)

    assert 'expected the classes of "gait" to be run, sit, found "walk" (20 steps)\n' in error_text(
        labelled, "run", "sit"
    )
    assert 'found "Walk" (no step), "walk" (20 steps)\n' in error_text(labelled, "run", "sit", "Walk")
    assert '"2" (3 steps), ' in (many := error_text(numbered, "0", "1"))
    assert " and 10 more\nhint: write the classes as the recording does" in many


@pytest.mark.parametrize(
    ("column", "keys", "found"),
    [
        ("wind_dir", 'unit = "degree"\ncircular = true', []),
        ("wind_dir", "", [(0, "write circular = true")]),  # 0 is a direction, and no code for a missing value
        ("wind_dir with 999", 'unit = "degree"\ncircular = true', [(999, "sentinels = [999]")]),
        ("wind_dir with 999", 'unit = "degree"\ncircular = true\nsentinels = [999]', []),
        ("meter", "counter = true", []),
        ("meter with a leap", "counter = true", [(90_002, "most = ...")]),
    ],
)
def test_outliers_are_judged_by_what_the_numbers_mean(
    tmp_path: Path, column: str, keys: str, found: list[tuple[float, str]]
) -> None:
    north = (342 + 3 * np.sin(np.arange(300.0)) + np.where(np.arange(300) % 12 == 0, 18, 0)) % 360
    north[::12] = 0.0
    with_code = north.copy()
    with_code[[7, 8]] = 999.0
    meter = 16_777_216.0 + np.cumsum(np.arange(300) % 7)
    meter[200:] -= meter[200] - 1
    leap = np.where(np.arange(300) < 100, meter, meter + 90_000)
    values = {"wind_dir": north, "wind_dir with 999": with_code, "meter": meter, "meter with a leap": leap}[column]
    rows = "".join(f"{1_700_000_000 + 60 * row},{value:.1f}\n" for row, value in enumerate(values.tolist()))
    (tmp_path / "mast.csv").write_text(f"time,{column.split()[0]}\n{rows}")
    (tmp_path / "mast.toml").write_text(
        f'name = "mast"\n[recording]\npath = "mast.csv"\n[features.{column.split()[0]}]\n{keys}\n'
        f'[forecast]\ntargets = ["{column.split()[0]}"]\nhorizons = [1]\n'
    )
    recipe = read_recipe(tmp_path / "mast.toml")
    told = list(outliers(recipe, read_recording(recipe.recording.path, recipe.columns)))
    assert [one.value for one in told] == [value for value, _ in found]
    assert all(hint in one.remedy for one, (_, hint) in zip(told, found, strict=True))


def test_an_outlier_is_named_and_an_impossible_value_is_refused(
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(6)
    cells = [f"{value:.2f}" for value in random.normal(20, 4, 300)]
    cells[150] = cells[151] = "-999"
    recipe = (
        'name = "room"\n[recording]\npath = "room-*.csv"\nstream = "room"\n[features.t]\ncolumn = "T"\n{}\n'
        '[forecast]\ntargets = ["t"]\nhorizons = [1]\n'
    )

    def written(plausible: str = "") -> Any:
        for part in (0, 1):
            places = range(200) if part == 0 else range(200, 300)
            rows = "".join(f"{1_700_000_000 + 60 * row},{cells[row]}\n" for row in places)
            (tmp_path / f"room-{part}.csv").write_text(f"time,T\n{rows}")
        (tmp_path / "room.toml").write_text(recipe.format(plausible))
        return read_recipe(tmp_path / "room.toml")

    (found,) = outliers(written(), read_dataset(written()).recording)
    assert (found.section, found.column, found.row, found.value, found.count) == ("features.t", "T", 152, -999, 2)
    assert found.file == str(tmp_path / "room-0.csv")
    assert "sentinels = [-999]" in found.remedy
    for plausible in ("sentinels = [-999]", "least = -40"):
        assert not list(outliers(written(plausible), read_dataset(written(plausible)).recording))
    cells[250] = "3e38"
    with pytest.raises(EdgeLstmError) as caught:
        read_dataset(written("least = -40"))
    place = f'{tmp_path / "room-1.csv"}, row 52, column "T": found 3e+38, '
    assert str(caught.value).startswith(place)
    assert "most = ...) under [features.t]" in caught.value.hint
    assert read_dataset(written("least = -40\nmost = 60")).recording.left_out == {"implausible": 3}


def test_an_impossible_value_is_missing_on_a_device() -> None:
    features = [Feature("x", mean=20, scale=4, derived=["mean 10", "deviation 10"]), Feature("y", mean=1e3, scale=1e-6)]
    contract = Contract("c", "forecast", features, ["x", "y"], [1], [StateTensor("h", [1])])
    said = []
    for absurd in (3e38, -1e12, float("nan")):
        listener = Listener()
        predictor = Predictor(contract, listener)
        rows = [{"x": 20.0 + step % 3, "y": 1000.0} for step in range(40)]
        rows[20]["x"] = absurd
        predictor.feed([Reading("s", 60.0 * step, row) for step, row in enumerate(rows)])
        assert predictor.totals["missing"] == 1
        said.append(np.stack([row for _, row in listener.rows]))
    np.testing.assert_array_equal(said[0], said[2])
    np.testing.assert_array_equal(said[1], said[2])
    strangers = Contract("c", "estimate", [Feature("x")], ["z"], [0], [StateTensor("h", [1])])  # statistics unknown
    predictor = Predictor(strangers, Listener())
    predictor.feed([Reading("s", 0.0, {"x": 1e12})])
    assert predictor.totals["missing"] == 0


def test_sentinels_and_bounds_of_a_recipe_hold_on_the_device(recipe_of: Make, recording_of: Make) -> None:
    recipe = recipe_of(features={"x": False, "side": False})
    section = FeatureSection(sentinels=[-1.0], least=-40, most=60)
    sides = FeatureSection(categories=["left", "right"])
    features = {"x": section, "side": sides}
    named = dataclasses.replace(recipe.recording, sentinels=[-200.0])
    recipe = dataclasses.replace(recipe, features=features, recording=named)
    rows = [("s", 60.0 * index, [float(index % 7), float(index % 2)]) for index in range(90)]
    x, side = dataset_of(recipe, recording_of(rows, ("x", "side"))).contract.features
    assert (x.sentinels, x.least, x.most) == ([-200, -1], -40, 60)
    assert (side.sentinels, side.least, side.most) == ([], None, None)


def test_a_recording_with_many_late_or_repeated_rows_is_refused(recipe_of: Make, recording_of: Make) -> None:
    rows = [("s", 60.0 * (100 - index), [index % 7.0]) for index in range(100)]
    with pytest.raises(EdgeLstmError, match="found 99 of 100 older than one before them and 0 of the same time"):
        dataset_of(recipe_of(), recording_of(rows))
    rows = [("s", 60.0 * (index // 2), [index % 7.0]) for index in range(100)]  # two pumps
    with pytest.raises(EdgeLstmError, match="found 0 of 100 older than one before them and 50 of the same time"):
        dataset_of(recipe_of(), recording_of(rows))


@pytest.mark.parametrize("part", ["recordings", "one at a time"])
def test_training_and_device_compute_equal_inputs_from_messy_data(
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
            "x": FeatureSection(mask=True, derived=["difference", "deviation 5", "slope 3 9", "covariance y 7"]),
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
    np.testing.assert_allclose(runtime, predict_streamed(model, dataset), rtol=1e-4, atol=1e-4)
