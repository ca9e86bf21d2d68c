"""What a run comes to, whatever its task: a verdict, a table, figures for programs, and sections of the report."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from edge_lstm.foundation.arrays import Doubles
from edge_lstm.streaming.reading import Prediction
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.evaluation import classification, detection, plots
from edge_lstm_train.evaluation import scores as evaluate
from edge_lstm_train.evaluation.baselines import MEAN, NAIVE, RIDGE, Baselines
from edge_lstm_train.evaluation.report import Block, Paragraph, Picture, Section, Table
from edge_lstm_train.evaluation.scores import (
    MODEL,
    Coverage,
    Score,
    labelled,
    percent,
    r2_text,
    rounded,
    steps,
    steps_ahead,
    where,
)
from edge_lstm_train.recipe.recipe import Recipe

_MOST_PLOTS = 6
_PLOTTED_STEPS = 120  # where no season says how long a few periods are
_PLOTTED_SEASONS = 4
_MOST_STREAMS = 12  # rows of a table by stream
_BY_STREAM = "By stream, the worst first"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The model beside its baselines on the test part."""

    verdict: str
    table: tuple[list[str], list[list[str]]]  # header and rows
    figures: dict[str, Any]  # JSON-able
    draw: Callable[[], Iterator[Section]]
    scores: list[Score]  # of numbers; none where the task is another

    @cached_property
    def sections(self) -> list[Section]:
        """Those of the report; drawn when they are asked for, since pictures take longer than all the rest."""
        return list(self.draw())


def evaluate_run(
    recipe: Recipe, dataset: Dataset, baselines: Baselines | None, predictions: Sequence[Prediction]
) -> Evaluation:
    """The predictions for a whole recording, judged by the recipe's task. A classifier brings its own baselines."""
    if recipe.classify is not None:
        return _labels(recipe, dataset, predictions)
    assert baselines is not None  # all the rest are numbers
    if recipe.anomaly is not None:
        return _alarms(recipe, dataset, baselines, predictions)
    return _numbers(recipe, dataset, baselines, predictions)


def _numbers(recipe: Recipe, dataset: Dataset, baselines: Baselines, predictions: Sequence[Prediction]) -> Evaluation:
    scores = evaluate.score(dataset, baselines, predictions)
    coverage = evaluate.coverage(dataset, predictions)
    by_stream = evaluate.scores_by_stream(dataset, baselines, predictions)

    def sections() -> Iterator[Section]:
        yield Section("Error on the test part", score_tables(scores))
        yield Section(
            f"The end of the test part{_clock(recipe)}",
            forecast_pictures(dataset, predictions, recipe.recording.row_s),
        )
        yield Section("Residuals", _residual_pictures(dataset, predictions))
        if coverage:
            yield _quantiles(coverage)
        if len(dataset.recording.streams) > 1:
            yield Section(_BY_STREAM, _stream_tables(by_stream))

    figures = {
        "test": [score_figures(one) for one in scores],
        "by_stream": {name: [score_figures(one) for one in own] for name, own in by_stream.items()},
        "coverage": [
            {"target": one.target, "horizon": one.horizon, "level": one.level, "below": _known(one.below)}
            for one in coverage
        ],
    }
    return Evaluation(evaluate.verdict(scores), evaluate.table(scores), figures, sections, scores)


def _quantiles(coverage: Sequence[Coverage]) -> Section:
    rows = [[where(one.target, one.horizon), f"{one.level:g}", f"{one.below:.3f}"] for one in coverage]
    note = Paragraph("How often the truth lay below each quantile; well calibrated, both columns agree.", "note")
    picture = Picture(
        plots.calibration_plot([one.level for one in coverage], [one.below for one in coverage]),
        "Quantiles: the share of the truth below, over the share that should be",
    )
    return Section("Calibration", [Table(["quantile of", "level", "found"], rows), note, picture])


def _stream_tables(by_stream: dict[str, list[Score]]) -> list[Block]:
    """RMSE of the model and the baselines for each stream, a table for each of the first outputs."""
    blocks: list[Block] = []
    for scores in list(zip(*by_stream.values(), strict=True))[:_MOST_PLOTS]:
        asked = [(name, one) for name, one in zip(by_stream, scores, strict=True) if one.pairs]
        asked.sort(key=lambda one: -one[1].rmse[MODEL])
        head, names = scores[0], list(scores[0].rmse)
        rows, strong = [], set()
        for row, (name, one) in enumerate(asked[:_MOST_STREAMS]):
            rows.append([name, *rounded([one.rmse[name] for name in names])])
            strong.add((row, 1 + names.index(min(names, key=lambda name: one.rmse[name]))))
        blocks.append(Table([labelled(where(head.target, head.horizon), head.unit), *names], rows, frozenset(strong)))
    return [*blocks, *_not_shown(len(by_stream))]


def _not_shown(streams: int) -> list[Block]:
    if streams <= _MOST_STREAMS:
        return []
    return [Paragraph(f"The {_MOST_STREAMS} worst of {streams} streams; metrics.json has them all.", "note")]


def _residual_pictures(dataset: Dataset, predictions: Sequence[Prediction]) -> list[Block]:
    said, test = evaluate.aligned(dataset, predictions), dataset.steps("test")
    blocks: list[Block] = []
    for output, (target, horizon) in enumerate(dataset.contract.outputs):
        errors = (said - dataset.targets)[test, output]
        errors = errors[np.isfinite(errors)]
        if target in dataset.contract.targets and errors.size and len(blocks) < _MOST_PLOTS:
            quantity = labelled(f"error of {target}", dataset.contract.target_units[target])
            caption = f"{where(target, horizon)}: how far off, and how often"
            blocks.append(Picture(plots.residual_plot(errors, quantity), caption))
    return blocks


def _labels(recipe: Recipe, dataset: Dataset, predictions: Sequence[Prediction]) -> Evaluation:
    assert recipe.classify is not None  # asked for it
    said = np.full(len(dataset), classification.UNKNOWN)
    place = {name: index for index, name in enumerate(dataset.contract.targets)}
    for row, prediction in evaluate.rows_of(dataset, predictions):
        if prediction.label is not None:
            said[row] = place[prediction.label]
    asked = (dataset, classification.class_baselines(dataset), said, recipe.classify.label)
    scores = [classification.class_score(*asked)]
    if recipe.classify.pool:  # what is asked of it is one label a recording
        scores.insert(0, classification.recordings_score(*asked))
    of = " and ".join(f"{score.pairs:,} {score.what}" for score in scores)
    note = Paragraph(f"Over {of} of the test part; the state is carried from reading to reading.", "note")
    by_stream = classification.class_scores_by_stream(*asked)

    def sections() -> Iterator[Section]:
        yield Section("Labels on the test part", [Table(*classification.table(scores)), note])
        yield Section("Which for which", [Table(*classification.confusion_table(scores[0]))])
        yield from _sureness(dataset, predictions)
        if len(dataset.recording.streams) > 1:
            worst = sorted(by_stream.items(), key=lambda one: one[1].accuracy[MODEL])[:_MOST_STREAMS]
            table = Table(*classification.stream_table(worst))
            yield Section(_BY_STREAM, [table, *_not_shown(len(by_stream))])

    figures = {
        "test": classification.numbers(scores),
        "by_stream": {name: classification.numbers([one]) for name, one in by_stream.items()},
    }
    return Evaluation(classification.verdict(scores[0]), classification.table(scores), figures, sections, [])


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


def _alarms(recipe: Recipe, dataset: Dataset, baselines: Baselines, predictions: Sequence[Prediction]) -> Evaluation:
    assert recipe.anomaly is not None  # asked for it
    scores, raised = np.full(len(dataset), math.nan), np.zeros(len(dataset), bool)
    for row, prediction in evaluate.rows_of(dataset, predictions):
        if prediction.score is not None:
            scores[row], raised[row] = prediction.score, bool(prediction.alarm)
    alarms = {MODEL: raised, RIDGE: detection.judged_alike(dataset, baselines.predictions[RIDGE])}
    name = recipe.anomaly.truth
    truth = None if name is None else dataset.labels.get(name)
    score = detection.alarm_score(dataset, alarms, np.isfinite(scores), truth)
    by_stream = detection.alarm_scores_by_stream(dataset, alarms, np.isfinite(scores), truth)
    forecasts = evaluate.score(dataset, baselines, predictions)
    behind = "reconstruction" if recipe.anomaly.reconstruct else "forecast"

    def sections() -> Iterator[Section]:
        yield Section("Alarms on the test part", [Table(*detection.table(score)), Paragraph(_rule(recipe), "note")])
        yield Section(f"Scores{_clock(recipe)}", _score_pictures(dataset, scores, truth, recipe.recording.row_s))
        yield from _threshold(dataset, scores, truth)
        yield Section(f"The {behind} behind it", score_tables(forecasts))
        yield Section(
            f"The end of the test part{_clock(recipe)}",
            forecast_pictures(dataset, predictions, recipe.recording.row_s, behind),
        )
        yield Section("Residuals", _residual_pictures(dataset, predictions))
        if len(dataset.recording.streams) > 1:
            worst = sorted(by_stream.items(), key=detection.selection_error)[:_MOST_STREAMS]
            table = Table(*detection.stream_table(worst))
            yield Section(_BY_STREAM, [table, *_not_shown(len(by_stream))])

    figures = {
        "test": [detection.numbers(score)],
        "by_stream": {name: [detection.numbers(one)] for name, one in by_stream.items()},
        "forecast": [score_figures(one) for one in forecasts],
    }
    return Evaluation(detection.verdict(score), detection.table(score), figures, sections, [])


def _threshold(dataset: Dataset, scores: Doubles, truth: Doubles | None) -> list[Section]:
    """What another threshold would have cost."""
    levels, false, missed = detection.over_thresholds(dataset, scores, truth)
    if not levels:
        return []
    shares = {"in alarm" if truth is None else "false alarms": false, **({"missed": missed} if missed else {})}
    caption = "Share of steps over the score at which an alarm would begin; the line is where it does"
    note = Paragraph("Left of the line is a smaller factor under [anomaly], right of it a larger one.", "note")
    return [Section("Threshold", [Picture(plots.threshold_plot(levels, shares), caption), note])]


def _rule(recipe: Recipe) -> str:
    alarm = recipe.anomaly
    assert alarm is not None  # asked for it
    usual = alarm.settle_steps + alarm.calibrate_steps
    return (
        f"Each stream's first {usual} steps say what is usual for it; they are not scored. An alarm is a distance over "
        f"{alarm.factor:g} times the {alarm.quantile:g} quantile there, of residuals averaged over {alarm.span_steps} "
        "steps."
    )


def _clock(recipe: Recipe) -> str:
    return "" if recipe.recording.row_s is not None else " (times in UTC)"


def _score_pictures(dataset: Dataset, scores: Doubles, truth: Doubles | None, row_s: float | None) -> list[Block]:
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


def forecast_pictures(
    dataset: Dataset, predictions: Sequence[Prediction], row_s: float | None = None, name: str | None = None
) -> list[Block]:
    """For each target and horizon, what was measured and what the model said, over the last seasons of the test part.

    `row_s`: the times are no clock's, but rows so far apart. `name`: what that is called which the model said.
    """
    said = evaluate.aligned(dataset, predictions)
    test = dataset.steps("test")
    stream = np.bincount(dataset.stream_of[test]).argmax()
    shown = test[dataset.stream_of[test] == stream]
    season = dataset.season
    plotted = _PLOTTED_SEASONS * season if season and season <= _PLOTTED_STEPS else _PLOTTED_STEPS
    contract = dataset.contract
    blocks: list[Block] = []
    for target in contract.targets:
        for horizon in contract.horizons:
            columns = [contract.outputs.index((each, horizon)) for each in contract.output_names_of(target)]
            output = columns[0]
            known = shown[np.isfinite(dataset.targets[shown, output]) & np.isfinite(said[shown, output])][-plotted:]
            if not known.size or len(blocks) == _MOST_PLOTS:
                continue
            called = name or ("forecast" if horizon else "estimate")
            lines = plots.Lines(dataset.times[known + horizon], dataset.targets[known, output], said[known, output])
            band = said[known][:, columns[1:]]
            if band.shape[1] > 1:
                least, most = min(contract.quantiles), max(contract.quantiles)
                share = f"{100 * least:g} to {100 * most:g} %"
                lines = dataclasses.replace(lines, band=(share, band.min(axis=1), band.max(axis=1)))
            quantity = labelled(target, contract.target_units[target])
            svg = plots.forecast_plot(lines, quantity, called, row_s)
            blocks.append(Picture(svg, f"{target}, {called} {steps_ahead(horizon)}".strip()))
    return blocks
