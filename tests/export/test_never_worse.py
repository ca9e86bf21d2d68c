"""A shipped model is never worse than its own baselines: on validation by construction, on the test part within noise.

It is judged as a device runs it: the int8 variant of the exported bundle, one reading at a time.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.bundle.archive import Bundle
from edge_lstm.foundation.errors import ConfigError
from edge_lstm.recordings.replay import replay
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction
from edge_lstm_export.assemble import export_bundle
from edge_lstm_train.data.split import Part
from edge_lstm_train.evaluation import classification, regression
from edge_lstm_train.evaluation.predictions import aligned, predictions_by_step
from edge_lstm_train.recipe.recipe import bundled_recipes, read_recipe
from edge_lstm_train.run import Run, train
from tests.train.bundled_runs import BUNDLED, bundled_run

STEPS = 1500
ROUNDING = 1.01  # of a shipped network's error by int8 weights
WORSE = 0.95  # share of resamples of blocks of time in which a model that is worse beyond noise is behind a baseline

Series = Callable[[np.random.Generator], dict[str, np.ndarray]]


def oscillation(random: np.random.Generator) -> dict[str, np.ndarray]:
    x = np.zeros(STEPS)
    for step in range(2, STEPS):
        x[step] = 1.6 * x[step - 1] - 0.9 * x[step - 2] + random.normal()
    return {"x": x}


def walk(random: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": np.cumsum(random.normal(0, 1, STEPS))}


def noise(random: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": random.normal(0, 1, STEPS)}


def season(random: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": np.tile(random.normal(0, 5, 24), -(-STEPS // 24))[:STEPS] + random.normal(0, 1, STEPS)}


def drift(random: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": 0.05 * np.arange(STEPS) + oscillation(random)["x"]}


def chaos(random: np.random.Generator) -> dict[str, np.ndarray]:
    x = np.full(STEPS, 0.3)
    for step in range(1, STEPS):
        x[step] = 3.9 * x[step - 1] * (1 - x[step - 1])
    return {"x": x + random.normal(0, 0.01, STEPS)}


def tank(random: np.random.Generator) -> dict[str, np.ndarray]:
    """A level and the power that a pump takes at it, which bends."""
    x = oscillation(random)["x"]
    return {"x": x, "power": 20 + 3 * x + np.maximum(x, 0) ** 2 + random.normal(0, 0.5, STEPS)}


def straight(random: np.random.Generator) -> dict[str, np.ndarray]:
    x = oscillation(random)["x"]
    return {"x": x, "power": 20 + 3 * x + random.normal(0, 3, STEPS)}


def classes(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Two states that each step shows in part."""
    busy = np.repeat(random.integers(0, 2, STEPS // 10), 10)
    return {"x": busy + random.normal(0, 0.7, STEPS), "busy": busy}


def rare(random: np.random.Generator) -> dict[str, np.ndarray]:
    busy = np.repeat(random.random(STEPS // 10) < 0.1, 10).astype(int)
    return {"x": 2 * busy + random.normal(0, 1, STEPS), "busy": busy}


FORECAST = '[forecast]\ntargets = ["x"]\nhorizons = [1, 4]\nseason = 24\n'
REGRESS = '[regress]\ntarget = "power"\n[labels.power]\n'
CLASSIFY = '[classify]\nlabel = "busy"\nclasses = ["0", "1"]\n[labels.busy]\n'
TASKS: dict[str, tuple[str, Series, str]] = {
    "oscillation": ("forecast", oscillation, FORECAST),
    "walk": ("forecast", walk, FORECAST),
    "noise": ("forecast", noise, FORECAST),
    "season": ("forecast", season, FORECAST),
    "drift": ("forecast", drift, FORECAST),
    "chaos": ("forecast", chaos, FORECAST),
    "tank": ("regress", tank, REGRESS),
    "straight": ("regress", straight, REGRESS),
    "classes": ("classify", classes, CLASSIFY),
    "rare": ("classify", rare, CLASSIFY),
}
RECIPE = """
name = "{name}"
task = "{task}"
[recording]
path = "{name}.csv"
[features.x]
[model]
hidden = 8
[fit]
updates = 80
segments = 8
chunk = 40
"""


@pytest.mark.parametrize("name", TASKS)
def test_a_synthetic_task_ships_no_model_below_its_baselines(name: str, tmp_path: Path) -> None:
    task, series, section = TASKS[name]
    columns = series(np.random.default_rng(sum(map(ord, name))))
    with (tmp_path / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", *columns])
        for step, values in enumerate(zip(*(one.tolist() for one in columns.values()), strict=True)):
            writer.writerow([1_700_000_000 + 60 * step, *values])
    (tmp_path / f"{name}.toml").write_text(RECIPE.format(name=name, task=task) + section)
    assert_not_worse(train(read_recipe(tmp_path / f"{name}.toml"), tmp_path / "run"), tmp_path)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", bundled_recipes())
def test_a_bundled_recipe_ships_no_model_below_its_baselines(
    name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    if name in BUNDLED:
        run = bundled_run(name, tmp_path_factory)
    elif request.config.getoption("--data") is None:
        pytest.skip("its recording does not come with the package; name a folder of recordings with --data")
    else:
        try:
            run = train(read_recipe(name, request.getfixturevalue("data")), tmp_path / "run")
        except (ConfigError, FileNotFoundError) as error:
            pytest.skip(f"no recording: {error}")
    assert_not_worse(run, tmp_path)


def assert_not_worse(run: Run, folder: Path) -> None:
    """Refuse a run whose int8 bundle is worse than a baseline of its task."""
    export_bundle(run.checkpoint, folder / "model.elstm", ["int8"], ["numpy"])
    predictor = Predictor.of(Bundle.open(folder / "model.elstm"), "numpy", "int8")
    predictions = list(replay(predictor, run.dataset.recording.side_by_side().readings()))
    errors_of = class_errors if run.recipe.classify is not None else squared_errors
    assert run.choice.chosen.validation <= run.choice.candidates[0].validation * (1 + 1e-9)  # the linear path is first
    if run.recipe.classify is None:
        validation = errors_of(run, predictions, "validation")
        for name in validation.keys() - {"model"}:
            assert relative_error(validation, name, None) <= ROUNDING, name
    test = errors_of(run, predictions, "test")
    count = len(test["model"])
    length = max(-(-count // 40), 2 * max(run.dataset.contract.horizons))
    blocks = np.array_split(np.arange(count), max(2, count // length))
    random = np.random.default_rng(0)
    for name in test.keys() - {"model"}:
        drawn = [
            np.concatenate([blocks[one] for one in random.integers(0, len(blocks), len(blocks))]) for _ in range(200)
        ]
        worse = np.array([relative_error(test, name, steps) > ROUNDING for steps in drawn])
        assert worse.mean() < WORSE, (name, float(worse.mean()), relative_error(test, name, None))


def relative_error(errors: dict[str, np.ndarray], baseline: str, steps: np.ndarray | None) -> float:
    """The mean over the outputs of the model's RMS error over the baseline's, at these steps; None: at all."""
    model, other = (errors[name] if steps is None else errors[name][steps] for name in ("model", baseline))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.sqrt(np.nanmean(model, axis=0) / np.nanmean(other, axis=0))
    return float(np.nan_to_num(ratio, nan=1.0).mean())  # neither has an error: they are equal


def squared_errors(run: Run, predictions: list[Prediction], part: Part) -> dict[str, np.ndarray]:
    """Of the model and each baseline, (steps, outputs), at the part's steps; NaN where the truth is unknown."""
    dataset, baselines = run.dataset, run.baselines
    assert baselines is not None
    contract, steps = dataset.contract, dataset.steps(part)
    expected = [index for index, (name, _) in enumerate(contract.outputs) if name in contract.targets]  # no quantiles
    periods = [contract.circles.get(name) for name, _ in contract.outputs]
    found = {}
    for name, predicted in {"model": aligned(dataset, predictions), **baselines.predictions}.items():
        columns = [regression.errors_of(predicted[steps, at], dataset.truth[steps, at], periods[at]) for at in expected]
        found[name] = np.stack(columns, axis=1) ** 2
    known = np.isfinite(found["model"])  # calibration and gaps have no predictions
    return {name: np.where(known, errors, np.nan)[known.any(axis=1)] for name, errors in found.items()}


def class_errors(run: Run, predictions: list[Prediction], part: Part) -> dict[str, np.ndarray]:
    """Of the model and each baseline, (steps, 1): 1 where a known class is not the predicted one."""
    dataset = run.dataset
    truth, predicted = classification.true_classes(dataset), np.full(len(dataset), classification.UNKNOWN)
    for step, prediction in predictions_by_step(dataset, predictions):
        if prediction.label is not None:
            predicted[step] = dataset.contract.targets.index(prediction.label)
    steps = dataset.steps(part)
    steps = steps[(truth[steps] != classification.UNKNOWN) & (predicted[steps] != classification.UNKNOWN)]
    logits = classification.logistic_logits(run.recipe, dataset)
    by_name = {"model": predicted, **classification.class_baselines(dataset, logits)}
    return {name: (one[steps] != truth[steps]).astype(float)[:, None] for name, one in by_name.items()}
