"""What a run comes to, whatever its task: a verdict, a table, figures for programs, and sections of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lstm.reading import Prediction
from edge_lstm_train import classification, detection, evaluate, plots
from edge_lstm_train.baselines import MEAN, NAIVE, RIDGE, Baselines
from edge_lstm_train.dataset import Dataset
from edge_lstm_train.evaluate import MODEL, Score, labelled, percent, r2_text, rounded, steps, steps_ahead, where
from edge_lstm_train.recipe import Recipe
from edge_lstm_train.report import Block, Paragraph, Picture, Section, Table

_MOST_PLOTS = 6
_PLOTTED_STEPS = 120  # where no season says how long a few periods are
_PLOTTED_SEASONS = 4
_MOST_STREAMS = 40  # rows of a table by stream


@dataclass(frozen=True, eq=False)
class Judgement:
    """The model beside its baselines on the test part."""

    verdict: str
    table: tuple[list[str], list[list[str]]]  # header and rows
    figures: dict[str, Any]  # JSON-able
    sections: list[Section]
    scores: list[Score]  # of numbers; none where the task is another


def judge(
    recipe: Recipe, dataset: Dataset, baselines: Baselines | None, predictions: Sequence[Prediction]
) -> Judgement:
    """The predictions for a whole recording, judged by the recipe's task. A classifier brings its own baselines."""
    if recipe.classify is not None:
        return _labels(recipe, dataset, predictions)
    assert baselines is not None  # all the rest are numbers
    if recipe.anomaly is not None:
        return _alarms(recipe, dataset, baselines, predictions)
    return _numbers(recipe, dataset, baselines, predictions)


def _numbers(recipe: Recipe, dataset: Dataset, baselines: Baselines, predictions: Sequence[Prediction]) -> Judgement:
    scores = evaluate.score(dataset, baselines, predictions)
    coverage = evaluate.coverage(dataset, predictions)
    title = f"The end of the test part{_clock(recipe)}"
    said = evaluate.aligned(dataset, predictions)
    sections = [
        Section("Error on the test part", score_tables(scores)),
        Section(title, forecast_pictures(dataset, predictions, recipe.recording.row_s)),
        Section("Residuals", _residual_pictures(dataset, said)),
    ]
    if coverage:
        rows = [[where(one.target, one.horizon), f"{one.level:g}", f"{one.below:.3f}"] for one in coverage]
        note = Paragraph("How often the truth lay below each quantile; well calibrated, both columns agree.", "note")
        picture = Picture(
            plots.calibration_plot([one.level for one in coverage], [one.below for one in coverage]),
            "Quantiles: the share of the truth below, over the share that should be",
        )
        sections.append(Section("Calibration", [Table(["quantile of", "level", "found"], rows), note, picture]))
    if len(dataset.recording.streams) > 1:
        sections.append(Section("By stream, the worst first", [_by_stream(dataset, said)]))
    figures = {
        "test": [score_figures(one) for one in scores],
        "coverage": [
            {"target": one.target, "horizon": one.horizon, "level": one.level, "below": _known(one.below)}
            for one in coverage
        ],
    }
    return Judgement(evaluate.verdict(scores), evaluate.table(scores), figures, sections, scores)


def _by_stream(dataset: Dataset, said: NDArray[np.float64]) -> Table:
    """RMSE of each output for each stream of the test part, the worst first."""
    outputs = [
        (column, labelled(where(target, horizon), dataset.contract.target_units[target]))
        for column, (target, horizon) in enumerate(dataset.contract.outputs)
        if target in dataset.contract.targets
    ][:_MOST_PLOTS]
    test = dataset.steps("test")
    found = []
    for stream, name in enumerate(dataset.recording.streams):
        own = test[dataset.stream_of[test] == stream]
        errors = [_rmse(said[own, column] - dataset.targets[own, column]) for column, _ in outputs]
        if any(map(math.isfinite, errors)):
            found.append((name, errors))
    found.sort(key=lambda one: -np.nan_to_num(one[1]).sum())
    rows = [[name, *rounded(errors)] for name, errors in found[:_MOST_STREAMS]]
    return Table(["RMSE", *(name for _, name in outputs)], rows)


def _rmse(errors: NDArray[np.float64]) -> float:
    known = errors[np.isfinite(errors)]
    return float(np.sqrt((known**2).mean())) if known.size else math.nan


def _residual_pictures(dataset: Dataset, said: NDArray[np.float64]) -> list[Block]:
    test = dataset.steps("test")
    blocks: list[Block] = []
    for output, (target, horizon) in enumerate(dataset.contract.outputs):
        errors = (said - dataset.targets)[test, output]
        errors = errors[np.isfinite(errors)]
        if target in dataset.contract.targets and errors.size and len(blocks) < _MOST_PLOTS:
            quantity = labelled(f"error of {target}", dataset.contract.target_units[target])
            caption = f"{where(target, horizon)}: how far off, and how often"
            blocks.append(Picture(plots.residual_plot(errors, quantity), caption))
    return blocks


def _labels(recipe: Recipe, dataset: Dataset, predictions: Sequence[Prediction]) -> Judgement:
    assert recipe.classify is not None  # asked for it
    said = np.full(len(dataset), classification.UNKNOWN)
    place = {name: index for index, name in enumerate(dataset.contract.targets)}
    for row, prediction in evaluate.rows_of(dataset, predictions):
        if prediction.label is not None:
            said[row] = place[prediction.label]
    score = classification.class_score(dataset, classification.class_baselines(dataset), said, recipe.classify.label)
    note = Paragraph(
        f"Over {score.pairs:,} steps of the test part; the state is carried from reading to reading.", "note"
    )
    sections = [
        Section("Labels on the test part", [Table(*classification.table(score)), note]),
        Section("Which for which", [Table(*classification.confusion_table(score))]),
        *_sureness(dataset, predictions),
    ]
    figures = {"test": classification.numbers([score])}
    return Judgement(classification.verdict(score), classification.table(score), figures, sections, [])


def _sureness(dataset: Dataset, predictions: Sequence[Prediction]) -> list[Section]:
    """How often the likeliest class is the true one, over the probability that was said of it."""
    shares, found = classification.reliability(dataset, evaluate.aligned(dataset, predictions))
    if not shares:
        return []
    picture = Picture(
        plots.calibration_plot(shares, found, ("probability", "share right")),
        "Each step's likeliest class: how often it is right, over the probability said of it",
    )
    note = Paragraph("Well calibrated, points lie on the line: below it the model is surer than it should be.", "note")
    return [Section("Calibration", [picture, note])]


def _alarms(recipe: Recipe, dataset: Dataset, baselines: Baselines, predictions: Sequence[Prediction]) -> Judgement:
    assert recipe.anomaly is not None  # asked for it
    scores, raised = np.full(len(dataset), math.nan), np.zeros(len(dataset), bool)
    for row, prediction in evaluate.rows_of(dataset, predictions):
        if prediction.score is not None:
            scores[row], raised[row] = prediction.score, bool(prediction.alarm)
    alarms = {MODEL: raised, RIDGE: detection.judged_alike(dataset, baselines.predictions[RIDGE])}
    name = recipe.anomaly.truth
    truth = None if name is None else dataset.labels.get(name)
    score = detection.alarm_score(dataset, alarms, np.isfinite(scores), truth)
    forecasts = evaluate.score(dataset, baselines, predictions)
    sections = [
        Section("Alarms on the test part", [Table(*detection.table(score)), Paragraph(_rule(recipe), "note")]),
        Section(f"Scores{_clock(recipe)}", _score_pictures(dataset, scores, truth, recipe.recording.row_s)),
        Section("The forecast behind it", score_tables(forecasts)),
    ]
    figures = {"test": [detection.numbers(score)], "forecast": [score_figures(one) for one in forecasts]}
    return Judgement(detection.verdict(score), detection.table(score), figures, sections, [])


def _rule(recipe: Recipe) -> str:
    alarm = recipe.anomaly
    assert alarm is not None  # asked for it
    return (
        f"Each stream's first {alarm.calibrate_steps} steps say what is usual for it; they are not scored. An alarm is "
        f"a distance over {alarm.factor:g} times the {alarm.quantile:g} quantile there, of residuals averaged over "
        f"{alarm.span_steps} steps."
    )


def _clock(recipe: Recipe) -> str:
    return "" if recipe.recording.row_s is not None else " (times in UTC)"


def _score_pictures(
    dataset: Dataset, scores: NDArray[np.float64], truth: NDArray[np.float64] | None, row_s: float | None
) -> list[Block]:
    blocks: list[Block] = []
    test = dataset.steps("test")
    for stream in np.unique(dataset.stream_of[test])[:_MOST_PLOTS]:
        own = test[dataset.stream_of[test] == stream]
        own = own[np.isfinite(scores[own])]
        if own.size:
            real = np.zeros(len(own), bool) if truth is None else truth[own] > 0
            svg = plots.score_plot(dataset.times[own], scores[own], real, row_s)
            blocks.append(Picture(svg, f"{dataset.recording.streams[stream]}: an alarm is a score above 1"))
    return blocks


def score_figures(one: Score) -> dict[str, Any]:
    """A score, JSON-able."""
    return {
        "target": one.target,
        "unit": one.unit,
        "horizon": one.horizon,
        "pairs": one.pairs,
        "rmse": {name: _known(value) for name, value in one.rmse.items()},
        "mae": {name: _known(value) for name, value in one.mae.items()},
        "r2": {name: _known(value) for name, value in one.r2.items()},
        "skill": _known(one.skill()),
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def score_tables(scores: list[Score]) -> list[Block]:
    """RMSE of the model and the baselines, the best in bold: a table for each target with several horizons."""
    targets = list(dict.fromkeys(one.target for one in scores))
    several = len(scores) > len(targets)
    groups = [[one for one in scores if one.target == target] for target in targets] if several else [list(scores)]
    return [*(_score_table(group, several) for group in groups), Paragraph(_how_to_read(scores), "note")]


def _score_table(scores: list[Score], one_target: bool) -> Table:
    names = list(scores[0].rmse)
    head = labelled(scores[0].target, scores[0].unit) if one_target else steps_ahead(scores[0].horizon) or "estimated"
    estimates = not any(one.horizon for one in scores)
    rows, strong = [], set()
    for row, one in enumerate(scores):
        name = steps(one.horizon) if one_target else labelled(one.target, one.unit)
        rows.append(
            [
                name,
                *rounded([one.rmse[name] for name in names]),
                percent(one.skill()),
                *([r2_text(one)] if estimates else []),
            ]
        )
        strong.add((row, 1 + names.index(min(names, key=lambda name: one.rmse[name]))))
    return Table([head, *names, "skill", *(["R²"] if estimates else [])], rows, frozenset(strong))


def _how_to_read(scores: list[Score]) -> str:
    fewest, most = min(one.pairs for one in scores), max(one.pairs for one in scores)
    pairs = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    naive = [name for name in NAIVE if name in scores[0].rmse]
    opponent = "the better naive baseline" if len(naive) > 1 else "the mean" if naive == [MEAN] else naive[0]
    return (
        f"RMSE over {pairs} predictions, the best of each row in bold; the state is carried from reading to reading. "
        f"Skill is how far the model's RMSE lies below that of {opponent}."
    )


def forecast_pictures(dataset: Dataset, predictions: Sequence[Prediction], row_s: float | None = None) -> list[Block]:
    """For each output, what was measured and what the model said, over the last few seasons of the test part.

    `row_s`: the times are no clock's, but rows so far apart.
    """
    said = evaluate.aligned(dataset, predictions)
    test = dataset.steps("test")
    stream = np.bincount(dataset.stream_of[test]).argmax()
    shown = test[dataset.stream_of[test] == stream]
    season = dataset.season
    plotted = _PLOTTED_SEASONS * season if season and season <= _PLOTTED_STEPS else _PLOTTED_STEPS
    units = dataset.contract.target_units
    blocks: list[Block] = []
    for output, (target, horizon) in enumerate(dataset.contract.outputs[:_MOST_PLOTS]):
        known = shown[np.isfinite(dataset.targets[shown, output]) & np.isfinite(said[shown, output])][-plotted:]
        if not known.size:
            continue
        times = dataset.times[known + horizon]
        quantity = labelled(target, units[target])
        name = "forecast" if horizon else "estimate"
        svg = plots.forecast_plot(times, dataset.targets[known, output], said[known, output], quantity, name, row_s)
        caption = f"{target}, forecast {steps_ahead(horizon)}" if horizon else f"{target}, estimated"
        blocks.append(Picture(svg, caption))
    return blocks
