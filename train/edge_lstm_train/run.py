"""A training run, from the recipe to the run folder: checkpoint.pt, recipe.toml, metrics.json and report.html."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from edge_lstm.bundle.data_sheet import KNOWN_AHEAD
from edge_lstm.foundation.arrays import Integers
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.files import write_file
from edge_lstm.foundation.progress import work
from edge_lstm.foundation.signals import time_limit
from edge_lstm.foundation.text import escaped
from edge_lstm.recordings.ahead_columns import actual_sentence
from edge_lstm.recordings.pace import pace_warning
from edge_lstm.recordings.tables.table import recording_files
from edge_lstm.streaming.reading import Prediction
from edge_lstm_train.data.class_counts import class_notes
from edge_lstm_train.data.dataset import Dataset, read_dataset
from edge_lstm_train.data.group_folds import group_folds
from edge_lstm_train.data.outliers import outliers
from edge_lstm_train.data.sensor_dropout import with_failures
from edge_lstm_train.data.split import PARTS
from edge_lstm_train.evaluation import plots
from edge_lstm_train.evaluation.alarms.injected_faults import fault_judge
from edge_lstm_train.evaluation.baselines import Baselines, fit_baselines, linear_starts
from edge_lstm_train.evaluation.candidate_tables import candidates_figures, candidates_section, choice_notes
from edge_lstm_train.evaluation.dead_sensors import DeadSensor, dead_sensors
from edge_lstm_train.evaluation.dead_sensors import figures as dead_sensors_figures
from edge_lstm_train.evaluation.dead_sensors import section as dead_sensors_section
from edge_lstm_train.evaluation.evaluate import Evaluation, evaluate
from edge_lstm_train.evaluation.formatting import output_label
from edge_lstm_train.evaluation.intervals import refuse_few_steps
from edge_lstm_train.evaluation.opponents import Opponents, opponents, require_opponents
from edge_lstm_train.evaluation.predictions import predict
from edge_lstm_train.evaluation.report import Facts, Paragraph, Picture, Section, write_report
from edge_lstm_train.evaluation.stretch_choice import chosen_stretches
from edge_lstm_train.evaluation.trained_contract import trained_contract
from edge_lstm_train.evaluation.unlike_streams import unlike_streams
from edge_lstm_train.model.candidates import TITLES, Choice, fit_candidates
from edge_lstm_train.model.checkpoint import FILE as CHECKPOINT
from edge_lstm_train.model.checkpoint import Checkpoint, save_checkpoint
from edge_lstm_train.model.fit import Fitted
from edge_lstm_train.model.group_choice import chosen_by_groups, fit_by_groups
from edge_lstm_train.model.training_progress import PROGRESS_FILE
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.toml_text import recipe_toml
from edge_lstm_train.recipe.training_sections import ModelSection, SplitSection

RECIPE, METRICS, REPORT = "recipe.toml", "metrics.json", "report.html"

_MOST_HELD_OUT_STEPS = 2000
_LEAVE_WITHIN_S = 3.0  # after Ctrl-C, for the evaluation
_CHUNK = 4_194_304  # bytes
_NOTHING_YET = "there are no weights yet, so nothing was written"


@dataclass(frozen=True, eq=False)
class Run:
    """The result of a training run."""

    run_dir: Path
    recipe: Recipe
    dataset: Dataset
    baselines: Baselines | None  # of numeric targets; None for other tasks
    choice: Choice  # among the candidates
    checkpoint: Checkpoint
    predictions: Sequence[Prediction]  # for the whole recording, as a device would publish them
    evaluation: Evaluation  # of the test part
    dead_sensors: list[DeadSensor]  # how good it is there without one of its sensors
    opponents: Opponents | None = None  # where the recipe wants them

    @property
    def fitted(self) -> Fitted:
        """The chosen network."""
        return self.choice.chosen.fitted


def train(
    recipe: Recipe,
    run_dir: Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    trials: Section | None = None,
) -> Run:
    """Train by the recipe, evaluate with the runtime's predictor, and write the run folder. Progress goes to stderr.

    With `resume`, continue a stopped training of the same recipe in the same folder. `trials` is a report section on
    the search that found the recipe.

    Raises EdgeLstmError if the recording is faulty, or if the loss is not finite (after writing the best weights).
    """
    if recipe.report.opponents:
        require_opponents()  # before long work
    with work(f"preparing {recipe.name}", left=_NOTHING_YET):
        dataset = read_dataset(recipe)
        _recording_digest(recipe)  # while there is time for it
    if (level := getattr(recipe.task_section, "intervals", None)) is not None:
        refuse_few_steps(dataset, level)  # before long work
    for note in dataset.recording.notes:
        click.echo(f"warning: {note}", err=True)
    if (warning := pace_warning(dataset.recording, recipe.sampling)) is not None:
        click.echo(escaped(f"warning: {warning}"), err=True)
    for found in outliers(recipe, dataset.recording):
        click.echo(escaped(f"warning: {found}\nhint: {found.remedy}"), err=True)
    for note in class_notes(recipe, dataset):
        click.echo(escaped(f"warning: {note}"), err=True)
    if counts := _counts_text(dataset):
        click.echo(escaped(f"readings: {len(dataset.recording):,}, of which {counts}"), err=True)
    make_run_folder(run_dir)
    if resume and not (run_dir / PROGRESS_FILE).exists():
        click.echo(f"no progress to resume in {run_dir}: training from the start", err=True)
    with work("preparing the training", left=_NOTHING_YET):
        baselines: Baselines | None = None
        told: list[str] = []
        if recipe.classify is None:
            baselines = fit_baselines(dataset, recipe.fit.refit, recipe.model.most_parameters)
            dataset, baselines, told = chosen_stretches(recipe, dataset, baselines)
    for one in told:
        click.echo(escaped(f"warning: {one}"), err=True)
    with work("fitting the candidates", left=_NOTHING_YET):
        choice = choose(recipe, dataset, baselines, device=device, run_dir=run_dir, resume=resume)
    for note in choice_notes(choice, baselines):
        click.echo(note, err=True)
    interrupted = choice.interrupted_at is not None
    if interrupted:
        saved = any(len(one.fitted.curve) > 1 for one in choice.candidates)
        hint = "continue with --resume" if saved else "start again, since no progress is saved yet"
        kept = f"weights of update {choice.chosen.fitted.best} kept"
        click.echo(f"interrupted at update {choice.interrupted_at}: {kept}; {hint}", err=True)
    try:
        with time_limit(_LEAVE_WITHIN_S) if interrupted else contextlib.nullcontext():
            with work("evaluating the model"):
                run = _evaluated(recipe, run_dir, dataset, baselines, choice)
            with work("writing the report"):
                save_checkpoint(run_dir, run.checkpoint)
                write_file(run_dir / RECIPE, recipe_toml(recipe))
                write_file(run_dir / METRICS, json.dumps(_metrics(run), indent=2, allow_nan=False) + "\n")
                write_report(run_dir / REPORT, f"{recipe.name}: training report", _report_sections(run, trials))
    except KeyboardInterrupt:
        _save_without_scores(recipe, run_dir, dataset, choice.chosen.fitted)
        raise
    if choice.diverged is not None:
        fitted = choice.diverged.fitted
        holds = f"the weights of update {fitted.best}, the best before it"
        if choice.diverged.name != choice.chosen.name:
            holds = f"the {TITLES[choice.chosen.name]}"
        raise EdgeLstmError(
            f"expected a finite loss, found NaN or infinity at update {fitted.diverged_at} of {recipe.fit.updates}; "
            f"{run_dir} holds {holds}",
            "lower learning_rate under [fit] in the recipe, or look for implausible values in the recording",
        )
    return run


def choose(
    recipe: Recipe,
    dataset: Dataset,
    baselines: Baselines | None,
    *,
    device: str = "cpu",
    run_dir: Path | None = None,
    resume: bool = False,
) -> Choice:
    """The recipe's candidates, trained, and the one that the validation part chooses; baselines: None for classes.

    With sensor_dropout, sensors fail in the validation part too. Detectors are judged by faults that are put on it.
    """
    share = recipe.augment.sensor_dropout
    if folds := group_folds(recipe, dataset) if chosen_by_groups(recipe) else []:
        folds = [dataclasses.replace(fold, dataset=with_failures(fold.dataset, share)) for fold in folds]
        return fit_by_groups(recipe, dataset, folds, device=device)
    judged = with_failures(dataset, share)
    error_scale, linear = np.ones(dataset.targets.shape[1]), None
    if baselines is not None:
        error_scale, linear = baselines.residual, linear_starts(judged, baselines)
    judge = fault_judge(recipe, judged) if recipe.anomaly is not None and len(recipe.candidates) > 1 else None
    return fit_candidates(
        recipe, dataset, judged, error_scale, linear, judge=judge, device=device, run_dir=run_dir, resume=resume
    )


def _save_without_scores(recipe: Recipe, run_dir: Path, dataset: Dataset, fitted: Fitted) -> None:
    """Write a checkpoint that can be exported, although there is no time for an evaluation, and say so."""
    contract, _ = trained_contract(recipe, dataset, fitted)
    held_out = held_out_steps(dataset)
    truth = dataset.targets[held_out].astype(np.float32)
    provenance = _provenance(recipe, [], "interrupted before the evaluation", _optimism(dataset))
    save_checkpoint(run_dir, Checkpoint(fitted.model, contract, dataset.features[held_out], provenance, truth))
    write_file(run_dir / RECIPE, recipe_toml(recipe))
    for name in (METRICS, REPORT):  # of an earlier run
        (run_dir / name).unlink(missing_ok=True)
    click.echo(
        f"interrupted before the evaluation was done: {run_dir / CHECKPOINT} holds the weights of update "
        f"{fitted.best}, without scores; for these, continue with the same command and --resume",
        err=True,
    )


def _evaluated(recipe: Recipe, run_dir: Path, dataset: Dataset, baselines: Baselines | None, choice: Choice) -> Run:
    """The run with the chosen model evaluated on the test part, as a device runs it."""
    fitted = choice.chosen.fitted
    contract, rule = trained_contract(recipe, dataset, fitted)
    if rule is not None:
        click.echo(rule.sentence(), err=True)
    dataset = dataclasses.replace(dataset, contract=contract)
    predictions = predict(contract, fitted.model.network(), dataset.recording)
    for note in unlike_streams(dataset, predictions):
        click.echo(escaped(f"warning: {note}"), err=True)
    evaluation = evaluate(recipe, dataset, baselines, predictions, rule)
    dead = dead_sensors(recipe, dataset, fitted.model)
    provenance = _provenance(recipe, evaluation.figures["test"], evaluation.verdict, _optimism(dataset))
    if dead:
        provenance["dead_sensors"] = json.dumps(dead_sensors_figures(dead))
    held_out = held_out_steps(dataset)
    truth = dataset.targets[held_out].astype(np.float32)
    samples = dataset.samples.at(held_out)
    checkpoint = Checkpoint(fitted.model, contract, dataset.features[held_out], provenance, truth, samples)
    beside = opponents(dataset, baselines, predictions) if recipe.report.opponents else None
    return Run(run_dir, recipe, dataset, baselines, choice, checkpoint, predictions, evaluation, dead, beside)


def make_run_folder(run_dir: Path) -> None:
    """Make the folder and its parents. Raises EdgeLstmError if that is not possible."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeLstmError(
            f"expected to make a folder at {run_dir}, found: {error.strerror}", "choose another folder with -o"
        ) from None


def held_out_steps(dataset: Dataset) -> Integers:
    """The steps for the checkpoint's input sequence: steps outside the training part, the longest stream first.

    Several streams fill the sequence if the first is short: it may hold one class alone, and weights rounded for one
    class fit the others badly.
    """
    held_out = np.flatnonzero(dataset.part_of > PARTS.index("train"))
    counts = np.bincount(dataset.stream_of[held_out])
    streams = [held_out[dataset.stream_of[held_out] == stream] for stream in np.argsort(-counts, kind="stable")]
    chosen: Integers = np.concatenate(streams)[:_MOST_HELD_OUT_STEPS]
    return chosen


def _recording_digest(recipe: Recipe) -> str:
    """SHA-256 of the recording's files one after the other."""
    files = recording_files(recipe.recording.paths)
    return _files_digest(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@functools.lru_cache(1)  # Ctrl-C leaves no time to read a large recording again
def _files_digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    """files: path, size and time of the last change."""
    digest = hashlib.sha256()
    for file, _, _ in files:
        with file.open("rb") as opened:
            while chunk := opened.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _optimism(dataset: Dataset) -> list[str]:
    """Why the figures are optimistic, in sentences; none where they are not."""
    return [f"{actual_sentence(quantity)}." for quantity in dataset.recording.actual_ahead]


def _provenance(recipe: Recipe, test: Any, verdict: str, optimism: Sequence[str]) -> dict[str, str]:
    """`test`: the figures of the test part, as JSON values."""
    recording = recipe.recording
    nameless = dataclasses.replace(recording, path=recording.name)
    return {
        "recipe": recipe_toml(dataclasses.replace(recipe, recording=nameless)),
        "recording": recording.name,
        "recording_sha256": _recording_digest(recipe),
        "test": json.dumps(test),
        **({KNOWN_AHEAD: " ".join(optimism)} if optimism else {}),
        "verdict": verdict,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _metrics(run: Run) -> dict[str, Any]:
    """All figures of a run as JSON values; an unknown number is null."""
    return {
        "name": run.recipe.name,
        "task": run.recipe.task,
        "verdict": run.evaluation.verdict,
        **run.evaluation.figures,
        "dead_sensors": dead_sensors_figures(run.dead_sensors),
        "steps": {part: len(run.dataset.steps(part)) for part in PARTS},
        "dropped": run.dataset.dropped,
        **({"actual_ahead": dict(run.dataset.recording.actual_ahead)} if run.dataset.recording.actual_ahead else {}),
        "parameters": run.fitted.model.network().parameters,
        **candidates_figures(run.choice),
        **({} if run.opponents is None else {"opponents": run.opponents.figures()}),
        "seed": run.recipe.fit.seed,
        "kept_update": run.fitted.best,
        "refitted": run.fitted.refitted,
        "interrupted_at": run.choice.interrupted_at,
        "diverged_at": None if run.choice.diverged is None else run.choice.diverged.fitted.diverged_at,
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
        Section(
            "",
            [Paragraph(run.evaluation.verdict, "lead"), *(Paragraph(one, "warning") for one in _optimism(run.dataset))],
        ),
        *run.evaluation.sections,
        *dead_sensors_section(run.dead_sensors),
        candidates_section(run.choice, run.baselines),
        *([] if run.opponents is None else [run.opponents.section()]),
        *training_sections(run),
        *([] if trials is None else [trials]),
    ]


def training_sections(run: Run) -> list[Section]:
    """Report sections on the training: the learning curve and the settings."""
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
    caption = "Error over the updates, in units of the ridge's error on the training part"
    return Picture(svg, caption if relative else f"{loss} over the updates")


def _kept_text(fitted: Fitted) -> str:
    if fitted.refitted:
        return f"the best after {fitted.best}; then trained again for {fitted.best} on training and validation together"
    return f"weights of update {fitted.best} kept"


def _counts_text(dataset: Dataset) -> str:
    """Numbers of readings and values that were dropped, held or left out, by reason."""
    return ", ".join(f"{count} {name}" for name, count in dataset.dropped.items() if count)


def _model_options(recipe: Recipe) -> dict[str, str]:
    """The options of network and augmentation that differ from their defaults."""
    model, augment = recipe.model, recipe.augment
    levels = "level-free" if model.level_free else "with levels"
    options = {
        "highway": f"{model.earlier} samples, {levels}" if model.has_highway else "",
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
    return {name: text for name, text in options.items() if text}


def _network_text(model: ModelSection, parameters: int) -> str:
    layers = f"{model.cell}, {model.layers} x {model.hidden} units" if model.depth else "a linear path, no layers"
    return f"{layers}, {parameters:,} parameters"


def _split_text(split: SplitSection) -> str:
    shares = f"{split.train:g} training, {split.validation:g} validation, the rest test"
    if split.validation_from is not None:
        shares = f"validation from {split.validation_from}, test from {split.test_from or 'nowhere'}"
    left_out = f"; tested on {', '.join(split.leave_out)} alone" if split.leave_out else ""
    return f"by {split.by}: {shares}{left_out}"


def _settings(run: Run) -> Facts:
    recipe, dataset = run.choice.chosen.recipe, run.dataset
    model, section = recipe.model, recipe.fit
    method = f"windows of {section.window}" if section.method == "windows" else f"carried, chunks of {section.chunk}"
    choices = [] if run.baselines is None else run.baselines.ridge.choices
    targets = dataset.contract.targets
    quantiles = {name for target in targets for name in dataset.contract.output_names_of(target)[1:]}
    ridge = "; ".join(
        f"{output_label(target, horizon)}: {choice}"
        for (target, horizon), choice in zip(dataset.contract.network_outputs, choices, strict=bool(choices))
        if target not in quantiles
    )
    return Facts(
        {
            "recording": recipe.recording.name,
            "streams": str(len(dataset.recording.streams)),
            "steps": ", ".join(f"{len(dataset.steps(part)):,} {part}" for part in PARTS),
            "readings": _counts_text(dataset) or "all used",
            **{f"outlier in {one.section}": one.within for one in outliers(recipe, dataset.recording)},
            "inputs": ", ".join(dataset.contract.inputs),
            "network": _network_text(model, run.fitted.model.network().parameters),
            **_model_options(recipe),
            "split": _split_text(recipe.split),
            "method": f"{method}, {section.segments} side by side",
            "updates": f"{section.updates}, {_kept_text(run.fitted)}",
            "learning rate": f"{section.schedule}, at most {section.learning_rate:g}, "
            f"weight decay {section.weight_decay:g}, gradient clipped at a norm of {section.clip:g}",
            "loss": section.loss if recipe.classify is None else "cross-entropy",
            "seed": str(section.seed),
            **({"ridge": ridge} if ridge else {}),
        }
    )
