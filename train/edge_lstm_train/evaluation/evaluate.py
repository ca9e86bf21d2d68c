"""The evaluation of a run on its test part, for every task: verdict, table, figures and report sections."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from edge_lstm.streaming.reading import Prediction
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.evaluation import classification, intervals, regression
from edge_lstm_train.evaluation.alarms import detection
from edge_lstm_train.evaluation.alarms.alarm_rule import AlarmRule, truth_of
from edge_lstm_train.evaluation.alarms.alarm_sections import (
    alarm_pictures,
    alarm_rule,
    calibration_warnings,
    episode_blocks,
    key_figures,
    realized_rate,
    threshold_sections,
)
from edge_lstm_train.evaluation.alarms.episodes import episodes_of
from edge_lstm_train.evaluation.baselines import RIDGE, Baselines
from edge_lstm_train.evaluation.formatting import TextTable
from edge_lstm_train.evaluation.predictions import aligned, predictions_by_step
from edge_lstm_train.evaluation.regression import MODEL, Score
from edge_lstm_train.evaluation.report import Paragraph, Section, Table
from edge_lstm_train.evaluation.report_sections import (
    MOST_STREAMS,
    calibration_section,
    forecast_pictures,
    interval_section,
    not_shown,
    quantile_section,
    residual_pictures,
    score_tables,
    stream_tables,
    time_note,
)
from edge_lstm_train.recipe.recipe import Recipe

_BY_STREAM = "By stream, the worst first"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The model and its baselines on the test part."""

    verdict: str
    table: TextTable
    figures: dict[str, Any]  # JSON values
    make_sections: Callable[[], Iterator[Section]]
    scores: list[Score]  # of numeric outputs; empty for other tasks

    @cached_property
    def sections(self) -> list[Section]:
        """The report's sections. They are made on first use, since plots take longer than everything else."""
        return list(self.make_sections())


def evaluate(
    recipe: Recipe,
    dataset: Dataset,
    baselines: Baselines | None,
    predictions: Sequence[Prediction],
    rule: AlarmRule | None = None,
) -> Evaluation:
    """Evaluate the predictions for a whole recording on its test part, by the recipe's task.

    baselines: None for classification, which has baselines of its own. rule: how the alarm rule was found, if it was.
    """
    if recipe.classify is not None:
        return _evaluate_classes(recipe, dataset, predictions)
    assert baselines is not None  # all other tasks have numeric targets
    if recipe.anomaly is not None:
        return _evaluate_alarms(recipe, dataset, baselines, predictions, rule)
    return _evaluate_numbers(recipe, dataset, baselines, predictions)


def _evaluate_numbers(
    recipe: Recipe, dataset: Dataset, baselines: Baselines, predictions: Sequence[Prediction]
) -> Evaluation:
    scores = regression.score(dataset, baselines, predictions)
    coverage = regression.coverage(dataset, predictions)
    bands = intervals.held(dataset, predictions)
    by_stream = regression.scores_by_stream(dataset, baselines, predictions)

    def sections() -> Iterator[Section]:
        yield Section("Error on the test part", score_tables(scores))
        yield Section(
            f"The end of the test part{time_note(recipe)}",
            forecast_pictures(dataset, predictions, recipe.recording.row_s),
        )
        yield Section("Residuals", residual_pictures(dataset, predictions))
        if coverage:
            yield quantile_section(coverage)
        if bands:
            yield interval_section(bands)
        if len(dataset.recording.streams) > 1:
            yield Section(_BY_STREAM, stream_tables(by_stream))

    figures = {
        "test": [score_figures(one) for one in scores],
        "by_stream": {name: [score_figures(one) for one in own] for name, own in by_stream.items()},
        "coverage": [
            {"target": one.target, "horizon": one.horizon, "level": one.level, "below": _finite_or_none(one.below)}
            for one in coverage
        ],
        "intervals": intervals.figures(bands),
    }
    return Evaluation(regression.verdict(scores), regression.table(scores), figures, sections, scores)


def _evaluate_classes(recipe: Recipe, dataset: Dataset, predictions: Sequence[Prediction]) -> Evaluation:
    assert recipe.classify is not None  # the caller checks it
    published = np.full(len(dataset), classification.UNKNOWN)
    index_of = {name: index for index, name in enumerate(dataset.contract.targets)}
    for step, prediction in predictions_by_step(dataset, predictions):
        if prediction.label is not None:
            published[step] = index_of[prediction.label]
    pool, label = recipe.classify.pool, recipe.classify.label
    single, pooled = classification.single_and_pooled(dataset, aligned(dataset, predictions), pool)
    logits = classification.logistic_logits(recipe, dataset)
    baselines = classification.class_baselines(dataset, logits)
    # Labels of steps and of recordings are each judged by their own metric: votes help the one and harm the other.
    predicted = classification.likeliest(single) if pool else published
    of_steps = classification.class_score(dataset, baselines, predicted, label)
    losses = classification.log_losses(dataset, single, logits)
    scores = [dataclasses.replace(of_steps, log_loss=losses)]
    if pool or classification.one_class_each(dataset):
        voted = published if pool else classification.likeliest(pooled)
        scores.insert(0 if pool else 1, classification.recordings_score(dataset, baselines, voted, label))
    counts = " and ".join(f"{score.pairs:,} {score.counted}" for score in scores)
    note = Paragraph(f"Over {counts} of the test part; the state is carried from reading to reading.", "note")
    arguments = (dataset, baselines, predicted, label)
    by_stream = classification.class_scores_by_stream(*arguments)

    def sections() -> Iterator[Section]:
        yield Section("Labels on the test part", [Table(*classification.table(scores)), note])
        yield Section("Confusion matrix", [Table(*classification.confusion_table(scores[0]))])
        yield from calibration_section(dataset, predictions)
        if len(dataset.recording.streams) > 1:
            worst = sorted(by_stream.items(), key=lambda one: one[1].accuracy[MODEL])[:MOST_STREAMS]
            table = Table(*classification.stream_table(worst))
            yield Section(_BY_STREAM, [table, *not_shown(len(by_stream))])

    figures = {
        "test": classification.figures(scores),
        "by_stream": {name: classification.figures([one]) for name, one in by_stream.items()},
    }
    return Evaluation(classification.verdict(scores[0]), classification.table(scores), figures, sections, [])


def _evaluate_alarms(
    recipe: Recipe, dataset: Dataset, baselines: Baselines, predictions: Sequence[Prediction], rule: AlarmRule | None
) -> Evaluation:
    assert recipe.anomaly is not None  # the caller checks it
    scores, raised = np.full(len(dataset), math.nan), np.zeros(len(dataset), bool)
    for step, prediction in predictions_by_step(dataset, predictions):
        if prediction.score is not None:
            scores[step], raised[step] = prediction.score, bool(prediction.alarm)
    alarms = {MODEL: raised, RIDGE: detection.alarms_by_rule(dataset, baselines.predictions[RIDGE])}
    truth = truth_of(recipe, dataset)
    score = detection.alarm_score(dataset, alarms, np.isfinite(scores), truth)
    by_stream = detection.alarm_scores_by_stream(dataset, alarms, np.isfinite(scores), truth)
    found = episodes_of(dataset, raised, scores, truth)
    forecasts = regression.score(dataset, baselines, predictions)
    kind = "reconstruction" if recipe.anomaly.reconstruct else "forecast"

    def sections() -> Iterator[Section]:
        row_s = recipe.recording.row_s
        yield Section(
            "Alarms on the test part",
            [
                key_figures(found, score, rule),
                *calibration_warnings(recipe, dataset, predictions),
                *episode_blocks(found, row_s),
                *([] if rule is None else [Paragraph(realized_rate(found, rule), "note")]),
                Table(*detection.table(score)),
                Paragraph(alarm_rule(dataset.contract.alarm, rule), "note"),
            ],
        )
        yield Section(
            f"Scores{time_note(recipe)}", alarm_pictures(dataset, predictions, found, scores, raised, truth, row_s)
        )
        yield from threshold_sections(dataset, scores, truth)
        if len(dataset.recording.streams) > 1:
            worst = sorted(by_stream.items(), key=detection.worst_first)[:MOST_STREAMS]
            table = Table(*detection.stream_table(worst))
            yield Section(_BY_STREAM, [table, *not_shown(len(by_stream))])
        yield Section(f"Errors of the {kind}", score_tables(forecasts))
        yield Section(
            f"The end of the test part{time_note(recipe)}", forecast_pictures(dataset, predictions, row_s, kind)
        )
        yield Section("Residuals", residual_pictures(dataset, predictions))

    figures = {
        "test": [detection.figures(score)],
        "by_stream": {name: [detection.figures(one)] for name, one in by_stream.items()},
        "alarms": {**found.figures(), "rule": None if rule is None else rule.figures()},
        "forecast": [score_figures(one) for one in forecasts],
    }
    return Evaluation(detection.verdict(score), detection.table(score), figures, sections, [])


def score_figures(one: Score) -> dict[str, Any]:
    """A score as JSON values."""
    return {
        "target": one.target,
        "unit": one.unit,
        "horizon": one.horizon,
        "pairs": one.pairs,
        "rmse": {name: _finite_or_none(value) for name, value in one.rmse.items()},
        "mae": {name: _finite_or_none(value) for name, value in one.mae.items()},
        "r2": {name: _finite_or_none(value) for name, value in one.r2.items()},
        "skill": _finite_or_none(one.skill()),
    }


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
