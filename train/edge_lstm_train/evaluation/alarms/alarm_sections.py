"""The sections of a report on alarms: figures to read first, warnings, episodes, plots of the streams that alarmed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edge_lstm.bundle.contract import Alarm
from edge_lstm.foundation.arrays import Doubles, Flags, Integers
from edge_lstm.streaming.reading import Prediction
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.evaluation import plots
from edge_lstm_train.evaluation.alarms import detection
from edge_lstm_train.evaluation.alarms.alarm_rule import AlarmRule, averaged, residuals_of, truth_of
from edge_lstm_train.evaluation.alarms.detection import MODEL, AlarmScore
from edge_lstm_train.evaluation.alarms.episodes import Episodes, episode_table, rate_interval
from edge_lstm_train.evaluation.formatting import rate, with_unit
from edge_lstm_train.evaluation.predictions import aligned
from edge_lstm_train.evaluation.report import Block, KeyFigures, Paragraph, Picture, Section, Table
from edge_lstm_train.recipe.recipe import Recipe

_MOST_PLOTS = 6  # streams
_MOST_MEASURED = 3  # quantities above the score
_MOST_EPISODES = 40
_SUSPICIOUS = 4.0  # times the median distance of a calibration, over a whole span
_SUSPICIOUS_SHARE = 0.05  # of its steps
_MOST_WARNINGS = 5


def key_figures(found: Episodes, score: AlarmScore, rule: AlarmRule | None) -> KeyFigures:
    """Events found, false alarms and how often they come, with the objective beside it."""
    items = {}
    if found.known:
        items["events found"] = f"{found.found} of {len(found.events)}"
        items["false alarms"] = str(found.false)
    else:
        items["alarms"] = str(len(found.episodes))
    if rule is not None and found.normal_steps:
        periods = found.normal_steps / rule.period_steps
        what = "false alarms" if found.known else "alarms"
        items[f"{what} per {rule.period} of a stream"] = f"{found.false / periods:.2g}"
    if math.isfinite(score.f1[MODEL]):
        items["F1"] = f"{score.f1[MODEL]:.3f}"
        items["false alarms, share of normal steps"] = f"{100 * score.false_alarms[MODEL]:.1f} %"
    return KeyFigures(items)


def alarm_rule(alarm: Alarm | None, rule: AlarmRule | None) -> str:
    """The alarm rule in words, and how it was found."""
    assert alarm is not None  # the caller checks the task
    first = alarm.settle_steps + alarm.calibrate_steps
    text = (
        f"The first {first} steps of each stream calibrate its alarm and are not scored. An alarm begins where the "
        f"distance exceeds {alarm.factor:g} times its {alarm.quantile:g} quantile in these steps. The distance is that "
        f"of residuals averaged over {alarm.span_steps} steps."
    )
    if alarm.hold_steps:
        text += f" It ends after {alarm.hold_steps} steps at or below {alarm.release:g}."
    return text if rule is None else f"{text} {rule.sentence()}"


def episode_blocks(found: Episodes, row_s: float | None) -> list[Block]:
    """The table of episodes, and the rate on the test part with its interval."""
    shown = found.episodes
    if len(shown) > _MOST_EPISODES:
        highest = sorted(shown, key=lambda one: -one.peak)[:_MOST_EPISODES]
        shown = [one for one in shown if one in highest]
    if not shown:
        return [Paragraph("No alarm was raised.", "note")]
    blocks: list[Block] = [Table(*episode_table(shown, row_s))]
    if len(found.episodes) > len(shown):
        text = f"The {_MOST_EPISODES} highest of {len(found.episodes)} episodes; metrics.json has them all."
        blocks.append(Paragraph(text, "note"))
    return blocks


def realized_rate(found: Episodes, rule: AlarmRule) -> str:
    """The rate of false alarms on held-out data in words, with its interval and the length of the data."""
    periods = found.normal_steps / rule.period_steps
    if periods <= 0:
        return "No step of the test part is known to be normal."
    low, high = rate_interval(found.false, periods)
    expected = ""
    if rule.data_steps:
        how = ", extrapolated by the tail of the scores" if rule.extrapolated else ""
        least, most = (rate(one) for one in rule.interval)
        expected = f" Expected: {rate(rule.expected)}{how}, 90 % interval {least} to {most}."
    return (
        f"On the test part: {found.false} {'false ' if found.known else ''}alarm{'' if found.false == 1 else 's'} in "
        f"{found.normal_steps:,} {'normal ' if found.known else ''}steps ({periods:.2g} {rule.period}s): "
        f"{found.false / periods:.2g} per {rule.period}, 90 % interval {rate(low)} to {rate(high)}."
    ) + expected


def calibration_warnings(recipe: Recipe, dataset: Dataset, predictions: Sequence[Prediction]) -> list[Block]:
    """A warning for each stream whose calibration holds labelled anomalies or a suspicious stretch."""
    alarm = dataset.contract.alarm
    assert alarm is not None  # the caller checks the task
    smoothed, known = averaged(dataset, residuals_of(dataset, aligned(dataset, predictions)), alarm)
    settled = (np.arange(len(dataset)) - dataset.run_start >= alarm.settle_steps) & (known > 0)
    truth = truth_of(recipe, dataset)
    texts = []
    for name, own in dataset.by_stream(np.flatnonzero(settled)).items():
        own = own[: alarm.calibrate_steps]
        labelled = 0 if truth is None else int((truth[own] > 0).sum())
        if labelled:
            texts.append(
                f"Stream {name}: {labelled} of the {len(own)} steps of its calibration are labelled as anomalies."
            )
            continue
        rows = smoothed[own]
        deviation = np.maximum(1.4826 * np.median(np.abs(rows - np.median(rows, axis=0)), axis=0), 1e-4)
        away = np.sqrt((((rows - np.median(rows, axis=0)) / deviation) ** 2).mean(axis=1))
        far = away > _SUSPICIOUS * max(1e-9, float(np.median(away)))
        if far.sum() > max(alarm.span_steps, _SUSPICIOUS_SHARE * len(own)):
            first, last = np.flatnonzero(far)[[0, -1]]
            texts.append(
                f"Stream {name}: {int(far.sum())} steps of its calibration are unusual, between its steps "
                f"{own[first] - own[0] + alarm.settle_steps} and {own[last] - own[0] + alarm.settle_steps}. "
                "Was the equipment in normal operation?"
            )
    more = (
        [f"{len(texts) - _MOST_WARNINGS} more streams have such calibrations."] if len(texts) > _MOST_WARNINGS else []
    )
    return [Paragraph(text, "warning") for text in [*texts[:_MOST_WARNINGS], *more]]


def alarm_pictures(
    dataset: Dataset,
    predictions: Sequence[Prediction],
    found: Episodes,
    scores: Doubles,
    alarms: Flags,
    truth: Doubles | None,
    row_s: float | None,
) -> list[Block]:
    """Measured values above the score for the streams that alarmed, the highest first; else for the highest score."""
    test = np.isin(np.arange(len(dataset)), dataset.steps("test")) & np.isfinite(scores)
    streams = dataset.by_stream(np.flatnonzero(test))
    if not streams:
        return [Paragraph("No step of the test part was scored.", "note")]
    peaks = {name: float(scores[own].max()) for name, own in streams.items()}
    alarmed = {one.stream for one in found.episodes} | {one.stream for one in found.events if not one.found}
    names = sorted(alarmed or [max(peaks, key=lambda name: peaks[name])], key=lambda name: -peaks[name])
    shown = names[:_MOST_PLOTS]
    top = max(1.5, min(6.0, 1.1 * max(peaks[name] for name in shown)))
    residuals = residuals_of(dataset, aligned(dataset, predictions))
    blocks: list[Block] = []
    for name in shown:
        own = streams[name]
        lines = plots.AlarmLines(
            name,
            dataset.times[own],
            scores[own],
            np.zeros(len(own), bool) if truth is None else truth[own] > 0,
            alarms[own],
            _measured(dataset, residuals, own, alarms[own]),
        )
        blocks.append(
            Picture(
                plots.alarm_plot(lines, top, row_s),
                f"Stream {name}: measured values, and the score, above which an alarm begins at 1",
            )
        )
    if len(names) > len(shown):
        blocks.append(Paragraph(f"The {len(shown)} highest of {len(names)} streams with alarms or events.", "note"))
    return blocks


def _measured(dataset: Dataset, residuals: Doubles, own: Integers, alarms: Flags) -> dict[str, Doubles]:
    """The measured values (steps,) of the targets whose residuals are largest while the alarm lasts."""
    contract = dataset.contract
    inside = own[alarms] if alarms.any() else own
    size = np.nan_to_num(np.abs(np.nan_to_num(residuals[inside]).mean(axis=0)))
    columns = [feature.name for feature in contract.features]
    chosen = sorted(np.argsort(-size, kind="stable")[:_MOST_MEASURED].tolist())
    return {
        with_unit(target, contract.target_units[target]): dataset.values[own, columns.index(target)]
        for target in (contract.targets[place] for place in chosen)
    }


def threshold_sections(dataset: Dataset, scores: Doubles, truth: Doubles | None) -> list[Section]:
    """The rates of false and missed alarms at other thresholds; empty without scored steps."""
    thresholds, false, missed = detection.over_thresholds(dataset, scores, truth)
    if not thresholds:
        return []
    shares = {"in alarm" if truth is None else "false alarms": false, **({"missed": missed} if missed else {})}
    caption = "Share of steps, over the score at which an alarm begins; the line is the threshold in use"
    note = Paragraph("Left of the line is a smaller factor under [anomaly], right of it a larger one.", "note")
    return [Section("Threshold", [Picture(plots.threshold_plot(thresholds, shares), caption), note])]
