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

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Integers
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.files import write_file
from edge_lstm.recordings.tables import recording_files
from edge_lstm.streaming.reading import Prediction
from edge_lstm_train.data.dataset import Dataset, read_dataset
from edge_lstm_train.data.outliers import outliers
from edge_lstm_train.data.split import PARTS
from edge_lstm_train.evaluation import plots
from edge_lstm_train.evaluation.baselines import Baselines, fit_baselines
from edge_lstm_train.evaluation.report import Facts, Paragraph, Picture, Section, write_report
from edge_lstm_train.evaluation.scores import predict, where
from edge_lstm_train.evaluation.verdict import Evaluation, evaluate_run
from edge_lstm_train.model.checkpoint import Checkpoint, save_checkpoint
from edge_lstm_train.model.fit import PROGRESS, Fitted, fit
from edge_lstm_train.model.forecaster import Forecaster
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.sections import SplitSection
from edge_lstm_train.recipe.toml_text import recipe_toml

RECIPE, METRICS, REPORT = "recipe.toml", "metrics.json", "report.html"

_TAPE_STEPS = 2000


@dataclass(frozen=True, eq=False)
class Run:
    """What came of a training run."""

    run_dir: Path
    recipe: Recipe
    dataset: Dataset
    baselines: Baselines | None  # of numbers; none where the task is another
    fitted: Fitted
    checkpoint: Checkpoint
    predictions: list[Prediction]  # for the whole recording, as a device would have published them
    evaluation: Evaluation  # of the test part


def train(
    recipe: Recipe,
    run_dir: Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    trials: Section | None = None,
) -> Run:
    """Train as the recipe says, evaluate as a device runs, and write the run folder; progress goes to stderr.

    With `resume`, go on from where a former training of the same recipe into the same folder was stopped. `trials` is
    how the recipe was found, for the report.

    Raises EdgeLstmError where the recording is faulty or the loss stopped being finite (after writing what was best).
    """
    dataset = read_dataset(recipe)
    for found in outliers(recipe, dataset.recording):
        click.echo(f"warning: {found}\nhint: {found.remedy}", err=True)
    if counts := _counts(dataset):
        click.echo(f"readings: {len(dataset.recording):,}, of which {counts}", err=True)
    _make(run_dir)
    if resume and not (run_dir / PROGRESS).exists():
        click.echo(f"nothing to go on from in {run_dir}: training from the start", err=True)
    baselines = None if recipe.classify is not None else fit_baselines(dataset, recipe.fit.refit)
    spread = np.ones(dataset.targets.shape[1]) if baselines is None else baselines.residual
    fitted = fit(recipe, dataset, spread, device=device, run_dir=run_dir, resume=resume)
    if fitted.interrupted_at is not None:
        marked = len(fitted.curve) > 1
        how = "go on with --resume" if marked else "start again, since nothing was written down yet"
        click.echo(
            f"interrupted at update {fitted.interrupted_at}: weights of update {fitted.best} kept; {how}", err=True
        )
    try:
        run = _judged(recipe, run_dir, dataset, baselines, fitted)
    except KeyboardInterrupt:
        click.echo(
            "interrupted before the run was written; the same command with --resume goes on from there", err=True
        )
        raise
    save_checkpoint(run_dir, run.checkpoint)
    write_file(run_dir / RECIPE, recipe_toml(recipe))
    write_file(run_dir / METRICS, json.dumps(_metrics(run), indent=2, allow_nan=False) + "\n")
    write_report(run_dir / REPORT, f"{recipe.name}: training report", _report_sections(run, trials))
    if fitted.diverged_at is not None:
        raise EdgeLstmError(
            f"expected a finite loss, found NaN or infinity at update {fitted.diverged_at} of {recipe.fit.updates}; "
            f"{run_dir} holds the weights of update {fitted.best}, the best before it",
            "lower learning_rate under [fit] in the recipe, or look for absurd values in the recording",
        )
    return run


def _judged(recipe: Recipe, run_dir: Path, dataset: Dataset, baselines: Baselines | None, fitted: Fitted) -> Run:
    """What came of the search, held against the test part as a device would run."""
    contract = started(dataset.contract, fitted.model)
    predictions = predict(contract, fitted.model.network(), dataset.recording)
    evaluation = evaluate_run(recipe, dataset, baselines, predictions)
    provenance = _provenance(recipe, evaluation)
    unseen = unseen_steps(dataset)
    truth = dataset.targets[unseen].astype(np.float32)
    checkpoint = Checkpoint(fitted.model, contract, dataset.features[unseen], provenance, truth)
    return Run(run_dir, recipe, dataset, baselines, fitted, checkpoint, predictions, evaluation)


def started(contract: Contract, model: Forecaster) -> Contract:
    """The contract, its states starting where training has found best."""
    starts = model.started()
    states = [dataclasses.replace(state, start=start) for state, start in zip(contract.states, starts, strict=True)]
    return dataclasses.replace(contract, states=states)


def _make(run_dir: Path) -> None:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeLstmError(
            f"expected to make a folder at {run_dir}, found: {error.strerror}", "name another place with -o"
        ) from None


def unseen_steps(dataset: Dataset) -> Integers:
    """Steps after the training part, of the stream with most of them and, where it is short, of others: the tape.

    A short stream alone may be of one class, and what is rounded well for that one is not for the rest.
    """
    unseen = np.flatnonzero(dataset.part_of > PARTS.index("train"))
    counts = np.bincount(dataset.stream_of[unseen])
    streams = [unseen[dataset.stream_of[unseen] == stream] for stream in np.argsort(-counts, kind="stable")]
    chosen: Integers = np.concatenate(streams)[:_TAPE_STEPS]
    return chosen


def _provenance(recipe: Recipe, evaluation: Evaluation) -> dict[str, str]:
    recording = recipe.recording
    nameless = dataclasses.replace(recording, path=recording.name)
    digest = hashlib.sha256()
    for file in recording_files(recording.path):
        digest.update(file.read_bytes())
    return {
        "recipe": recipe_toml(dataclasses.replace(recipe, recording=nameless)),
        "recording": recording.name,
        "recording_sha256": digest.hexdigest(),
        "test": json.dumps(evaluation.figures["test"]),
        "verdict": evaluation.verdict,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _metrics(run: Run) -> dict[str, Any]:
    """All the figures of a run, for programs; a number that is not known is null."""
    return {
        "name": run.recipe.name,
        "task": run.recipe.task,
        "verdict": run.evaluation.verdict,
        **run.evaluation.figures,
        "steps": {part: len(run.dataset.steps(part)) for part in PARTS},
        "dropped": run.dataset.dropped,
        "parameters": run.recipe.parameters,
        "seed": run.recipe.fit.seed,
        "kept_update": run.fitted.best,
        "refitted": run.fitted.refitted,
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


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _report_sections(run: Run, trials: Section | None) -> list[Section]:
    return [
        Section("", [Paragraph(run.evaluation.verdict, "lead")]),
        *run.evaluation.sections,
        *training_sections(run),
        *([] if trials is None else [trials]),
    ]


def training_sections(run: Run) -> list[Section]:
    """How the model came about: its learning curve and its settings."""
    return [Section("Learning", [_learning_picture(run)]), Section("Settings", [_settings(run)])]


def _learning_picture(run: Run) -> Picture:
    curve = run.fitted.curve
    relative = run.recipe.classify is None and not getattr(run.recipe.task_section, "quantiles", [])
    losses = [point.training_loss if point.training_loss >= 0 else math.nan for point in curve]
    svg = plots.learning_plot(
        [point.update for point in curve],
        [math.sqrt(loss) for loss in losses] if relative else losses,
        [point.validation_error for point in curve],
        run.fitted.best,
        relative,
    )
    loss = "Loss" if run.recipe.classify is None else "Cross-entropy"
    what = "Error over the updates, in units of the ridge's error on the training part"
    return Picture(svg, what if relative else f"{loss} over the updates")


def _kept(fitted: Fitted) -> str:
    if fitted.refitted:
        return f"the best after {fitted.best}; learned anew for so many from training and validation together"
    return f"weights of update {fitted.best} kept"


def _counts(dataset: Dataset) -> str:
    """What became of readings and values that were not taken as they were."""
    return ", ".join(f"{count} {name}" for name, count in dataset.dropped.items() if count)


def _extras(recipe: Recipe) -> dict[str, str]:
    """What of network and augmentation is not as it is without a word."""
    model, augment = recipe.model, recipe.augment
    free = "level-free" if model.level_free else "with levels"
    said = {
        "highway": f"{model.highway} samples, {free}" if model.highway else "",
        "dropout": f"{model.dropout:g}, recurrent {model.recurrent_dropout:g}"
        if model.dropout or model.recurrent_dropout
        else "",
        "start": "learned" if model.learned_start else "",
        "augmentation": ", ".join(
            f"{name.replace('_', ' ')} {value:g}" if not isinstance(value, bool) else name
            for name, value in dataclasses.asdict(augment).items()
            if value and name != "axes"
        ),
    }
    return {name: text for name, text in said.items() if text}


def _split(split: SplitSection) -> str:
    shares = f"{split.train:g} training, {split.validation:g} validation, the rest test"
    if split.validation_from is not None:
        shares = f"validation from {split.validation_from}, test from {split.test_from or 'nowhere'}"
    left_out = f"; tested on {', '.join(split.leave_out)} alone" if split.leave_out else ""
    return f"by {split.by}: {shares}{left_out}"


def _settings(run: Run) -> Facts:
    recipe, dataset = run.recipe, run.dataset
    model, section = recipe.model, recipe.fit
    how = f"windows of {section.window}" if section.method == "windows" else f"carried, chunks of {section.chunk}"
    choices = [] if run.baselines is None else run.baselines.ridge
    ridge = "; ".join(
        f"{where(target, horizon)}: {choice}"
        for (target, horizon), choice in zip(dataset.contract.outputs, choices, strict=bool(choices))
        if target in dataset.contract.targets
    )
    return Facts(
        {
            "recording": recipe.recording.name,
            "streams": str(len(dataset.recording.streams)),
            "steps": ", ".join(f"{len(dataset.steps(part)):,} {part}" for part in PARTS),
            "readings": _counts(dataset) or "all used",
            **{f"far off in {one.section}": one.within for one in outliers(recipe, dataset.recording)},
            "inputs": ", ".join(dataset.contract.inputs),
            "network": f"{model.cell}, {model.layers} x {model.hidden} units, {recipe.parameters:,} parameters",
            **_extras(recipe),
            "split": _split(recipe.split),
            "method": f"{how}, {section.segments} side by side",
            "updates": f"{section.updates}, {_kept(run.fitted)}",
            "learning rate": f"one cycle up to {section.learning_rate:g}, weight decay {section.weight_decay:g}, "
            f"gradient cut off at a norm of {section.clip:g}",
            "loss": section.loss if recipe.classify is None else "cross-entropy",
            "seed": str(section.seed),
            **({"ridge": ridge} if ridge else {}),
        }
    )
