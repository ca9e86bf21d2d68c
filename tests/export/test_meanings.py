"""Angles, counters and switches from the recipe to the device: one meaning in training, bundle and replay."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.certificate import read_certificate
from edge_lstm.decisions.angles import difference
from edge_lstm.recordings.replay import replay
from edge_lstm.streaming.predictor import Predictor
from edge_lstm_train.data.dataset import Dataset, read_dataset
from edge_lstm_train.evaluation.baselines import PERSISTENCE, SEASONAL, fit_baselines
from edge_lstm_train.evaluation.predictions import aligned
from edge_lstm_train.recipe.recipe import read_recipe
from tests.export.test_tasks import edge_lstm
from tests.feature_vectors import Seen
from tests.networks import contract_of, random_network

RECIPE = """
name = "mast"
task = "{task}"
clip = 8.0
[recording]
path = "mast.csv"
[features.wind]
unit = "degree"
circular = true
mask = true
[features.energy]
unit = "kWh"
counter = true
derived = ["mean 5"]
[features.door]
[sampling]
interval_s = {interval}
max_gap_s = 600
{grid}
[model]
hidden = 6
highway = {highway}
[fit]
updates = 40
segments = 4
chunk = 40
[augment]
noise = 0.05
"""
FORECAST = '[forecast]\ntargets = ["wind", "energy"]\nhorizons = [1, 3]\nseason = 10\n'
ANOMALY = "[anomaly]\ncalibrate_steps = 60\nspan_steps = 5\n"


def write_mast(folder: Path, seconds: int = 60) -> None:
    """700 readings: a wind that turns through north, a meter near 2^24 with two resets, and a door in words."""
    random = np.random.default_rng(2)
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["time", "wind", "energy", "door"])
    wind, meter = 350.0, 16_777_216.0
    for step in range(700):
        wind += random.normal(0, 6) + 12 * math.sin(step / 15)
        meter = 0.0 if step in (300, 500) else meter + 1 + round(2 * random.random() + math.sin(step / 9))
        shown = "" if random.random() < 0.03 else f"{wind % 360:.1f}"
        writer.writerow([seconds * step + 1_700_000_000, shown, meter, "open" if step % 40 < 10 else "closed"])
    (folder / "mast.csv").write_text(file.getvalue())


def trained(folder: Path, text: str) -> tuple[Dataset, Bundle, dict[str, object]]:
    (folder / "mast.toml").write_text(text)
    edge_lstm("train", folder / "mast.toml", "-o", folder / "run")
    edge_lstm("export", folder / "run", "-o", folder / "mast.elstm")
    edge_lstm("verify", folder / "mast.elstm")
    dataset = read_dataset(read_recipe(folder / "run/recipe.toml"))
    return dataset, Bundle.open(folder / "mast.elstm"), json.loads((folder / "run/metrics.json").read_text())


def test_a_forecast_means_the_same_in_training_and_on_the_device(tmp_path: Path) -> None:
    write_mast(tmp_path)
    recipe = RECIPE.format(task="forecast", interval=60, grid="", highway=4)
    dataset, bundle, metrics = trained(tmp_path, recipe + FORECAST)
    assert bundle.manifest.format_version == 2
    assert bundle.contract.inputs[:4] == ["wind sin", "energy", "door", "wind missing"]
    assert metrics["parameters"] == bundle.manifest.architecture.parameters

    backend = Predictor.of(bundle, "numpy", "float32")
    predictions = list(replay(backend, dataset.recording.readings()))
    said, test = aligned(dataset, predictions), dataset.steps("test")
    assert np.isfinite(said).all()
    assert said[:, :2].min() >= 0
    assert said[:, :2].max() < 360
    errors = np.concatenate(
        [difference(said[:, :2], dataset.truth[:, :2], 360.0), said[:, 2:] - dataset.truth[:, 2:]], 1
    )
    found = np.sqrt(np.nanmean(errors[test] ** 2, axis=0))
    for output, (score, by_hand) in enumerate(zip(metrics["test"], found, strict=True)):  # type: ignore[arg-type]
        assert score["rmse"]["model"] == pytest.approx(by_hand, rel=1e-3), output
        assert score["unit"] == ("degree" if output < 2 else "kWh")
    rmse = metrics["test"][0]["rmse"]  # type: ignore[index]
    assert rmse["ridge"] < 0.9 * rmse["persistence"]
    assert rmse["model"] < 0.9 * rmse["persistence"]
    certificate = read_certificate(bundle)
    assert certificate is not None
    assert all(math.isfinite(one.metric_after) for one in certificate.variants)
    assert certificate.segments[3] == "constant readings"


def test_baselines_go_along_the_circle(tmp_path: Path) -> None:
    write_mast(tmp_path)
    (tmp_path / "mast.toml").write_text(RECIPE.format(task="forecast", interval=60, grid="", highway=0) + FORECAST)
    dataset = read_dataset(read_recipe(tmp_path / "mast.toml"))
    baselines = fit_baselines(dataset)
    np.testing.assert_allclose(
        difference(baselines.predictions[PERSISTENCE][:, 0], dataset.values[:, 0], 360), 0, atol=1e-4
    )
    later = np.arange(50, 200)
    seasonal = baselines.predictions[SEASONAL][later, 0]  # a season of 10 steps before the next step
    np.testing.assert_allclose(difference(seasonal, dataset.values[later - 9, 0], 360), 0, atol=1e-4)
    assert baselines.residual[0] == baselines.residual[2]  # sine and cosine of one circle weigh the same
    increases = dataset.values[:, 1]
    assert increases[1:].max() <= 4  # no jump at 2^24, and none at a reset
    assert set(np.unique(increases[1:])) <= {0.0, 1.0, 2.0, 3.0, 4.0}


@pytest.mark.parametrize(("grid", "seconds"), [("", 60), ("grid = true", 20)])
def test_the_device_steps_the_very_inputs_that_were_trained(tmp_path: Path, grid: str, seconds: int) -> None:
    write_mast(tmp_path, seconds)
    (tmp_path / "mast.toml").write_text(RECIPE.format(task="forecast", interval=60, grid=grid, highway=0) + FORECAST)
    dataset = read_dataset(read_recipe(tmp_path / "mast.toml"))
    contract = dataclasses.replace(dataset.contract, states=contract_of(random_network()).states)
    backend = Seen(contract)
    predictor = Predictor(contract, backend)
    for reading in dataset.recording.readings():
        predictor.feed_columns([reading])
    np.testing.assert_array_equal(np.array(backend.rows), dataset.features)  # bit for bit


def test_an_anomaly_detector_on_a_grid_scores_the_way_around(tmp_path: Path) -> None:
    write_mast(tmp_path, seconds=20)
    recipe = RECIPE.format(task="anomaly", interval=60, grid="grid = true", highway=0)
    dataset, bundle, metrics = trained(tmp_path, recipe + ANOMALY)
    predictions = list(replay(Predictor.of(bundle, "numpy", "float32"), dataset.recording.readings()))
    scores = np.array([one.score for one in predictions])
    assert np.isfinite(scores[80:]).all()
    assert np.nanmedian(scores) < 1
    assert math.isfinite(metrics["forecast"][0]["rmse"]["ridge"])  # type: ignore[index]
    assert metrics["forecast"][0]["rmse"]["ridge"] < 20  # type: ignore[index]
