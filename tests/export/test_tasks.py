"""Every task from the recipe to the device: trained, exported, certified, replayed."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.certificate import read_certificate
from edge_lstm.cli.main import main
from edge_lstm.recordings.replay import replay
from edge_lstm.streaming.predictor import Predictor
from edge_lstm_train.data.dataset import read_dataset
from edge_lstm_train.evaluation.predictions import aligned
from edge_lstm_train.recipe.recipe import read_recipe

COMMON = """
name = "mill"
task = "{task}"
clip = 8.0
clock = ["elapsed"]
[recording]
path = "mill.csv"
[features.speed]
derived = ["difference", "mean 5"]
mask = true
[features.gear]
categories = ["low", "high"]
[sampling]
max_gap_s = 600
[model]
{model}
learned_start = true
highway = 3
candidates = ["both"]
[fit]
updates = 40
segments = 4
chunk = 40
[augment]
noise = 0.05
"""
MODELS = {"forecast": 'cell = "gru"\nlayers = 3\nhidden = 5\ndropout = 0.1', "classify": "layers = 2\nhidden = 4"}
TASKS = {
    "forecast": '[forecast]\ntargets = ["speed"]\nhorizons = [1, 3]\nquantiles = [0.1, 0.9]\n',
    "anomaly": '[anomaly]\ncalibrate_steps = 100\nspan_steps = 5\ntruth = "bad"\n[labels.bad]\n',
    "classify": '[classify]\nlabel = "state"\nclasses = ["idle", "busy"]\nhold_steps = 2\n'
    "[labels.state]\ntext = true\n",
    "regress": '[regress]\ntarget = "power"\nunit = "kW"\ncap = 40.0\n[labels.power]\n',
}


def write_mill(folder: Path) -> None:
    """700 readings a minute apart: speed follows the gear, power the speed."""
    random = np.random.default_rng(2)
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["time", "speed", "gear", "power", "state", "bad"])
    high = False
    speed = 10.0
    for step in range(700):
        high = not high if random.random() < 0.05 else high
        speed += 0.3 * ((20.0 if high else 10.0) - speed) + random.normal(0, 0.3)
        power = 2 * speed + random.normal(0, 0.5)
        shown = "" if random.random() < 0.03 else f"{speed:.3f}"
        state = "busy" if speed > 15 else "idle"
        writer.writerow(
            [60 * step + 1_700_000_000, shown, "high" if high else "low", f"{power:.3f}", state, int(step > 650)]
        )
    (folder / "mill.csv").write_text(file.getvalue())


def edge_lstm(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("task", list(TASKS))
def test_each_task_predicts_the_same_in_training_and_on_the_device(task: str, linear: bool, tmp_path: Path) -> None:
    write_mill(tmp_path)
    recipe_text = COMMON.format(task=task, model=MODELS.get(task, "hidden = 6")) + TASKS[task]
    if linear:
        common = COMMON.replace("learned_start = true\n", "").replace('candidates = ["both"]\n', "")
        common = common.replace("highway = 3\n", "") if task in ("classify", "regress") else common
        recipe_text = common.format(task=task, model='cell = "none"') + TASKS[task]
    (tmp_path / "mill.toml").write_text(recipe_text)
    run, bundle_path = tmp_path / "run", tmp_path / "mill.elstm"
    edge_lstm("train", tmp_path / "mill.toml", "-o", run)
    edge_lstm("export", run, "-o", bundle_path)
    edge_lstm("verify", bundle_path)

    bundle = Bundle.open(bundle_path)
    assert (bundle.manifest.architecture.cell == "none") == linear
    assert any(any(state.start) for state in bundle.contract.states) != linear
    certificate = read_certificate(bundle)
    assert certificate is not None
    assert certificate.metric == ("error rate" if task == "classify" else "rmse")
    for one in certificate.variants:
        assert math.isfinite(one.metric_after)
        assert one.flipped <= (0.02 if one.scheme == "int8" else 0.0)

    recipe = read_recipe(run / "recipe.toml")
    dataset = read_dataset(recipe)
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["bundle"]["id"], metrics["bundle"]["scheme"]) == (bundle.id, "int8")
    assert list(metrics["bundle"]["schemes"]) == ["float32", "int8"]
    assert metrics["bundle"]["schemes"]["int8"]["test"] == metrics["bundle"]["test"]
    assert metrics["bundle"]["schemes"]["float32"]["by_stream"].keys() == {"mill"}
    report = (run / "report.html").read_text()
    assert report.count("<h2>The same through the exported bundle</h2>") == report.count("<h2>Certificate</h2>") == 1
    assert '<th scope="col">float32</th><th scope="col">int8</th>' in report
    assert f"{certificate.metric} of the float32 model: {certificate.metric_before:.4g}" in report

    readings = dataset.recording.readings()
    predictions = list(replay(Predictor.of(bundle, "onnx", "float32"), readings))
    said = aligned(dataset, predictions)
    assert np.isfinite(said).all()
    replayed = tmp_path / "said.csv"
    edge_lstm("replay", bundle_path, tmp_path / "mill.csv", "--backend", "numpy", "-o", replayed)
    rows = list(csv.DictReader(io.StringIO(replayed.read_text())))
    assert len(rows) == len(predictions) == 700
    by_here = metrics["test"][0]
    if task == "classify":
        truth = dataset.targets.argmax(axis=1)
        test = dataset.steps("test")
        labels = np.array([bundle.contract.targets.index(one.label or "") for one in predictions])
        assert (labels[test] == truth[test]).mean() == pytest.approx(by_here["accuracy"]["model"], abs=1e-9)
        assert {row["label"] for row in rows} == {"idle", "busy"}
    elif task == "anomaly":
        judged = [one.score for one in predictions if one.score is not None and math.isfinite(one.score)]
        assert 0 < len(judged) < 700
        assert {row["alarm"] for row in rows} <= {"True", "False"}
    else:
        test = dataset.steps("test")
        error = np.sqrt(np.nanmean((said - dataset.targets)[test, 0] ** 2))
        assert error == pytest.approx(by_here["rmse"]["model"], rel=1e-3)
        names = list(rows[0])[4:]
        wanted = {"forecast": ["speed+1", "speed+3", "speed p10+1", "speed p10+3", "speed p90+1", "speed p90+3"]}
        assert names == wanted.get(task, ["power+0"])


def test_a_run_without_its_recording_exports_and_reports_the_gap(tmp_path: Path) -> None:
    write_mill(tmp_path)
    (tmp_path / "mill.toml").write_text(COMMON.format(task="regress", model="hidden = 6") + TASKS["regress"])
    edge_lstm("train", tmp_path / "mill.toml", "-o", tmp_path / "run")
    (tmp_path / "mill.csv").unlink()
    result = CliRunner().invoke(main, ["export", str(tmp_path / "run"), "-o", str(tmp_path / "mill.elstm")])
    assert result.exit_code == 0
    assert "has no scores of the bundle: expected" in result.stderr
    assert "bundle" not in json.loads((tmp_path / "run/metrics.json").read_text())
