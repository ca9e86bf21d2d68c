"""A training run: recipe to run folder (checkpoint.pt, recipe.toml, metrics.json, report.html), start to end."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from edge_lstm.errors import EdgeLstmError
from edge_lstm.files import write_file
from edge_lstm.reading import Prediction
from edge_lstm.tables import recording_files
from edge_lstm_train import plots
from edge_lstm_train.baselines import Baselines, fit_baselines
from edge_lstm_train.checkpoint import Checkpoint, save_checkpoint
from edge_lstm_train.dataset import Dataset, read_dataset
from edge_lstm_train.evaluate import (
    Score,
    aligned,
    labelled,
    percent,
    predict,
    rounded,
    score,
    steps,
    steps_ahead,
    verdict,
)
from edge_lstm_train.fit import Fitted, fit
from edge_lstm_train.recipe import Recipe, recipe_toml
from edge_lstm_train.report import Block, Facts, Paragraph, Picture, Section, Table, write_report
from edge_lstm_train.split import PARTS

RECIPE, METRICS, REPORT = "recipe.toml", "metrics.json", "report.html"

_TAPE_STEPS = 2000
_MOST_PLOTS = 6
_PLOTTED_STEPS = 120  # where no season says how long a few periods are
_PLOTTED_SEASONS = 4


@dataclass(frozen=True, eq=False)
class Run:
    """What came of a training run."""

    run_dir: Path
    recipe: Recipe
    dataset: Dataset
    baselines: Baselines
    fitted: Fitted
    checkpoint: Checkpoint
    predictions: list[Prediction]  # for the whole recording, as a device would have published them
    scores: list[Score]  # of the test part
    verdict: str


def train(recipe: Recipe, run_dir: Path) -> Run:
    """Train as the recipe says, evaluate as a device runs, and write the run folder; progress goes to stderr.

    Raises EdgeLstmError where the recording is faulty or the loss stopped being finite (after writing what was best).
    """
    dataset = read_dataset(recipe)
    _make(run_dir)
    baselines = fit_baselines(dataset)
    fitted = fit(recipe, dataset, baselines.residual)
    if fitted.interrupted_at is not None:
        click.echo(f"interrupted at update {fitted.interrupted_at}: weights of update {fitted.best} kept", err=True)
    predictions = predict(dataset.contract, fitted.model.network(), dataset.recording)
    scores = score(dataset, baselines, predictions)
    words = verdict(scores)
    provenance = _provenance(recipe, scores, words)
    checkpoint = Checkpoint(fitted.model, dataset.contract, _tape(dataset), provenance)
    run = Run(run_dir, recipe, dataset, baselines, fitted, checkpoint, predictions, scores, words)
    save_checkpoint(run_dir, checkpoint)
    write_file(run_dir / RECIPE, recipe_toml(recipe))
    write_file(run_dir / METRICS, json.dumps(_metrics(run), indent=2, allow_nan=False) + "\n")
    write_report(run_dir / REPORT, f"{recipe.name}: training report", _report_sections(run))
    if fitted.diverged_at is not None:
        raise EdgeLstmError(
            f"expected a finite loss, found NaN or infinity at update {fitted.diverged_at} of {recipe.fit.updates}; "
            f"{run_dir} holds the weights of update {fitted.best}, the best before it",
            "lower learning_rate under [fit] in the recipe, or look for absurd values in the recording",
        )
    return run


def _make(run_dir: Path) -> None:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeLstmError(
            f"expected to make a folder at {run_dir}, found: {error.strerror}", "name another place with -o"
        ) from None


def _tape(dataset: Dataset) -> NDArray[np.float32]:
    """The feature vectors of the stream with most steps after the training part, from that part's end on."""
    unseen = np.flatnonzero(dataset.part_of > PARTS.index("train"))
    stream = np.bincount(dataset.stream_of[unseen]).argmax()
    chosen = unseen[dataset.stream_of[unseen] == stream][:_TAPE_STEPS]
    tape: NDArray[np.float32] = dataset.features[chosen]
    return tape


def _provenance(recipe: Recipe, scores: list[Score], words: str) -> dict[str, str]:
    recording = recipe.recording
    nameless = dataclasses.replace(recording, path=recording.name)
    digest = hashlib.sha256()
    for file in recording_files(recording.path):
        digest.update(file.read_bytes())
    return {
        "recipe": recipe_toml(dataclasses.replace(recipe, recording=nameless)),
        "recording": recording.name,
        "recording_sha256": digest.hexdigest(),
        "test_rmse": json.dumps([_score_numbers(one) for one in scores]),
        "verdict": words,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _metrics(run: Run) -> dict[str, Any]:
    """All the figures of a run, for programs; a number that is not known is null."""
    return {
        "name": run.recipe.name,
        "task": run.recipe.task,
        "verdict": run.verdict,
        "test": [_score_numbers(one) for one in run.scores],
        "steps": {part: len(run.dataset.steps(part)) for part in PARTS},
        "dropped": run.dataset.dropped,
        "parameters": run.recipe.parameters,
        "seed": run.recipe.fit.seed,
        "kept_update": run.fitted.best,
        "interrupted_at": run.fitted.interrupted_at,
        "diverged_at": run.fitted.diverged_at,
        "curve": [
            {
                "update": point.update,
                "training_loss": _known(point.training_loss),
                "validation_error": _known(point.validation_error),
            }
            for point in run.fitted.curve
        ],
    }


def _score_numbers(one: Score) -> dict[str, Any]:
    return {
        "target": one.target,
        "unit": one.unit,
        "horizon": one.horizon,
        "pairs": one.pairs,
        "rmse": {name: _known(value) for name, value in one.rmse.items()},
        "mae": {name: _known(value) for name, value in one.mae.items()},
        "skill": _known(one.skill()),
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _report_sections(run: Run) -> list[Section]:
    return [
        Section("", [Paragraph(run.verdict, "lead")]),
        Section("Error on the test part", score_tables(run.scores)),
        Section("The end of the test part (times in UTC)", forecast_pictures(run.dataset, run.predictions)),
        *training_sections(run),
    ]


def training_sections(run: Run) -> list[Section]:
    """How the model came about: its learning curve and its settings."""
    return [Section("Learning", [_learning_picture(run.fitted)]), Section("Settings", [_settings(run)])]


def score_tables(scores: list[Score]) -> list[Block]:
    """RMSE of the model and the baselines, the best in bold: a table for each target with several horizons."""
    targets = list(dict.fromkeys(one.target for one in scores))
    several = len(scores) > len(targets)
    groups = [[one for one in scores if one.target == target] for target in targets] if several else [list(scores)]
    return [*(_score_table(group, several) for group in groups), Paragraph(_how_to_read(scores), "note")]


def _score_table(scores: list[Score], one_target: bool) -> Table:
    names = list(scores[0].rmse)
    head = labelled(scores[0].target, scores[0].unit) if one_target else steps_ahead(scores[0].horizon)
    rows, strong = [], set()
    for row, one in enumerate(scores):
        name = steps(one.horizon) if one_target else labelled(one.target, one.unit)
        rows.append([name, *rounded([one.rmse[name] for name in names]), percent(one.skill())])
        strong.add((row, 1 + names.index(min(names, key=lambda name: one.rmse[name]))))
    return Table([head, *names, "skill"], rows, frozenset(strong))


def _how_to_read(scores: list[Score]) -> str:
    fewest, most = min(one.pairs for one in scores), max(one.pairs for one in scores)
    pairs = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return (
        f"RMSE over {pairs} predictions, the best of each row in bold; the state is carried from reading to reading. "
        "Skill is how far the model's RMSE lies below that of the better naive baseline."
    )


def forecast_pictures(dataset: Dataset, predictions: list[Prediction]) -> list[Block]:
    """For each output, what was measured and what had been forecast, over the last few seasons of the test part."""
    said = aligned(dataset, predictions)
    test = dataset.steps("test")
    stream = np.bincount(dataset.stream_of[test]).argmax()
    shown = test[dataset.stream_of[test] == stream]
    season = dataset.season
    plotted = _PLOTTED_SEASONS * season if season and season <= _PLOTTED_STEPS else _PLOTTED_STEPS
    units = {feature.name: feature.unit for feature in dataset.contract.features}
    blocks: list[Block] = []
    for output, (target, horizon) in enumerate(dataset.contract.outputs[:_MOST_PLOTS]):
        known = shown[np.isfinite(dataset.targets[shown, output]) & np.isfinite(said[shown, output])][-plotted:]
        if not known.size:
            continue
        times = dataset.times[known + horizon]
        quantity = labelled(target, units[target])
        svg = plots.forecast_plot(times, dataset.targets[known, output], said[known, output], quantity)
        blocks.append(Picture(svg, f"{target}, forecast {steps_ahead(horizon)}"))
    return blocks


def _learning_picture(fitted: Fitted) -> Picture:
    svg = plots.learning_plot(
        [point.update for point in fitted.curve],
        [math.sqrt(point.training_loss) if point.training_loss >= 0 else math.nan for point in fitted.curve],
        [point.validation_error for point in fitted.curve],
        fitted.best,
    )
    return Picture(svg, "Error over the updates, in units of the ridge's error on the training part")


def _settings(run: Run) -> Facts:
    recipe, dataset = run.recipe, run.dataset
    model, section = recipe.model, recipe.fit
    how = f"windows of {section.window}" if section.method == "windows" else f"carried, chunks of {section.chunk}"
    ridge = "; ".join(
        f"{target} {steps_ahead(horizon)}: {choice}"
        for (target, horizon), choice in zip(dataset.contract.outputs, run.baselines.ridge, strict=True)
    )
    return Facts(
        {
            "recording": recipe.recording.name,
            "streams": str(len(dataset.recording.streams)),
            "steps": ", ".join(f"{len(dataset.steps(part)):,} {part}" for part in PARTS),
            "readings": ", ".join(f"{count} {name}" for name, count in dataset.dropped.items() if count) or "all used",
            "inputs": ", ".join(dataset.contract.inputs),
            "network": f"{model.cell}, {model.layers} x {model.hidden} units, {recipe.parameters:,} parameters",
            "method": f"{how}, {section.segments} side by side",
            "updates": f"{section.updates}, weights of update {run.fitted.best} kept",
            "learning rate": f"{section.learning_rate:g}, weight decay {section.weight_decay:g}",
            "loss": section.loss,
            "seed": str(section.seed),
            "ridge": ridge,
        }
    )
