"""Scores of alarms: the model beside an alarm that never ends, and beside a ridge forecast under the same alarm rule.

F1 alone says little where most steps are anomalous, so the rates of false and missed alarms are reported too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_lstm.decisions.decider import decide_all
from edge_lstm.foundation.arrays import Doubles, Flags, Integers
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.split import Part
from edge_lstm_train.evaluation.formatting import TextTable

MODEL = "model"
ALWAYS, RIDGE = "always", "ridge"


@dataclass(frozen=True, eq=False)
class AlarmScore:
    """Alarms of the model and of each baseline over the same steps; rates are NaN where the truth is not known."""

    steps: int  # evaluated
    anomalous: float  # share of them, NaN where the truth is not known
    f1: dict[str, float]  # by name ("model", "always", "ridge"); NaN where there was no anomaly
    false_alarms: dict[str, float]  # share of the normal steps
    missed: dict[str, float]  # share of the anomalous steps
    alarms: dict[str, float]  # share of all steps
    episodes: dict[str, int]  # how often an alarm began

    @property
    def best_baseline(self) -> str:
        return max((name for name in self.f1 if name != MODEL), key=lambda name: self.f1[name])


def alarms_by_rule(dataset: Dataset, forecasts: Doubles) -> Flags:
    """(steps,): the alarms that the contract's own rule raises for the forecasts (steps, outputs)."""
    values, outputs = dataset.values.astype(np.float32), forecasts.astype(np.float32)
    return decide_all(dataset.contract, dataset.stream_of, dataset.restart, values, outputs)[2]


def alarm_score(
    dataset: Dataset,
    alarms: dict[str, Flags],
    scored: Flags,
    truth: Doubles | None,
    part: Part = "test",
) -> AlarmScore:
    """The score of the alarms (steps,) by name, over the part's steps that have a score.

    scored (steps,): whether the step has a score; truth (steps,): NaN where it is not known.
    """
    return _alarm_score(dataset, alarms, _evaluated_steps(dataset, scored, truth, part), truth)


def alarm_scores_by_stream(
    dataset: Dataset,
    alarms: dict[str, Flags],
    scored: Flags,
    truth: Doubles | None,
    part: Part = "test",
) -> dict[str, AlarmScore]:
    """`alarm_score` for each stream that has scored steps, by its name."""
    evaluated = _evaluated_steps(dataset, scored, truth, part)
    return {name: _alarm_score(dataset, alarms, steps, truth) for name, steps in dataset.by_stream(evaluated).items()}


def _evaluated_steps(dataset: Dataset, scored: Flags, truth: Doubles | None, part: Part) -> Integers:
    steps = dataset.steps(part)
    known = scored if truth is None else scored & np.isfinite(truth)
    evaluated: Integers = steps[known[steps]]
    return evaluated


def _alarm_score(dataset: Dataset, alarms: dict[str, Flags], evaluated: Integers, truth: Doubles | None) -> AlarmScore:
    known = truth is not None and len(evaluated) > 0
    anomalous = np.zeros(len(evaluated), bool) if truth is None else truth[evaluated] > 0
    normal = ~anomalous if known else anomalous  # where the truth is not known, no step is known to be normal
    raised = {**{name: one[evaluated] for name, one in alarms.items()}, ALWAYS: np.ones(len(evaluated), bool)}
    other = np.diff(dataset.stream_of[evaluated], prepend=-1) != 0  # an alarm of another stream is another episode
    return AlarmScore(
        len(evaluated),
        float(anomalous.mean()) if known else math.nan,
        {name: f1(anomalous, one) if anomalous.any() else math.nan for name, one in raised.items()},
        {name: _share(one[normal]) for name, one in raised.items()},
        {name: _share(~one[anomalous]) for name, one in raised.items()},
        {name: _share(one) for name, one in raised.items()},
        {name: int((one & (other | ~np.roll(one, 1))).sum()) for name, one in raised.items()},
    )


def _alarms(count: int) -> str:
    return f"{count or 'no'} alarm{'' if count == 1 else 's'}"


def f1(truth: Flags, predicted: Flags) -> float:
    """The harmonic mean of precision and recall; 0 without a true positive."""
    both = truth.sum() + predicted.sum()
    return float(2 * (truth & predicted).sum() / both) if both else 0.0


def _share(flags: Flags) -> float:
    return float(flags.mean()) if flags.size else math.nan


def verdict(score: AlarmScore) -> str:
    """One or more sentences that compare the model with the best baseline."""
    if not score.steps:
        return "No step was scored: the test part is shorter than the calibration of its streams."
    if math.isnan(score.anomalous):
        return (
            f"The truth is not known. The model raised {_alarms(score.episodes[MODEL])}, over "
            f"{100 * score.alarms[MODEL]:.1f} % of {score.steps:,} steps; ridge {_alarms(score.episodes[RIDGE])}, over "
            f"{100 * score.alarms[RIDGE]:.1f} %."
        )
    if not score.anomalous:
        return (
            f"The {score.steps:,} scored steps hold no anomaly, so every alarm is a false one: "
            f"the model was in alarm for {100 * score.false_alarms[MODEL]:.1f} % of them, ridge for "
            f"{100 * score.false_alarms[RIDGE]:.1f} %."
        )
    name = score.best_baseline
    model = (
        f"F1 {score.f1[MODEL]:.3f} at {100 * score.false_alarms[MODEL]:.1f} % false and "
        f"{100 * score.missed[MODEL]:.1f} % missed alarms"
    )
    other = (
        f"{name} has {score.f1[name]:.3f} at {100 * score.false_alarms[name]:.1f} % false and "
        f"{100 * score.missed[name]:.1f} % missed"
    )
    if score.f1[MODEL] > score.f1[name]:
        return f"The model beats every baseline: {model}; {other}."
    advice = ""
    if name == RIDGE:
        advice = ' With candidates = ["linear"] under [model], the model is that ridge.'
    if name == ALWAYS:
        advice = " An alarm that never ends scores better, so these alarms carry no information."
    return f"The model does not beat the baselines: {model}; {other}.{advice}"


def table(score: AlarmScore) -> TextTable:
    """The rates of the model and of each baseline."""
    names = list(score.f1)
    rows = [
        ["F1", *(_number(score.f1[name]) for name in names)],
        ["false alarms", *(_percent(score.false_alarms[name]) for name in names)],
        ["missed", *(_percent(score.missed[name]) for name in names)],
        ["alarm episodes", *(str(score.episodes[name]) for name in names)],
    ]
    return ["alarms", *names], rows


def worst_first(stream: tuple[str, AlarmScore]) -> tuple[float, float]:
    """Sort key of streams, the worst first: the lowest F1, or without an anomaly the most false alarms."""
    score = stream[1]
    return (score.f1[MODEL] if math.isfinite(score.f1[MODEL]) else 1.0, -score.alarms[MODEL])


def stream_table(scores: Sequence[tuple[str, AlarmScore]]) -> TextTable:
    """The rates of the model's alarms and the F1 of ridge, a row per stream."""
    rows = [
        [
            name,
            _number(one.f1[MODEL]),
            _number(one.f1[RIDGE]),
            _percent(one.false_alarms[MODEL]),
            _percent(one.missed[MODEL]),
            str(one.episodes[MODEL]),
            f"{one.steps:,}",
        ]
        for name, one in scores
    ]
    return ["stream", "F1", "F1 of ridge", "false alarms", "missed", "alarms", "steps"], rows


def over_thresholds(
    dataset: Dataset, scores: Doubles, truth: Doubles | None, part: Part = "test"
) -> tuple[list[float], list[float], list[float]]:
    """Thresholds, and for each the share of normal steps above it and of anomalous steps not above it, if any.

    scores (steps,): NaN where a step has none. Where the truth is not known, all steps count as normal.
    """
    evaluated = _evaluated_steps(dataset, np.isfinite(scores), truth, part)
    anomalous = np.zeros(len(evaluated), bool) if truth is None else truth[evaluated] > 0
    if not evaluated.size:
        return [], [], []
    thresholds = np.linspace(0.0, 3.0, 61)
    normal, found = np.sort(scores[evaluated[~anomalous]]), np.sort(scores[evaluated[anomalous]])
    false = 1 - np.searchsorted(normal, thresholds, side="right") / max(1, len(normal))
    missed = np.searchsorted(found, thresholds, side="right") / len(found) if len(found) else np.zeros(0)
    return thresholds.tolist(), false.tolist(), missed.tolist()


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "unknown"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if math.isfinite(value) else "unknown"


def figures(score: AlarmScore) -> dict[str, object]:
    """The score as JSON values; an unknown rate is null."""

    def known(values: dict[str, float]) -> dict[str, float | None]:
        return {name: value if math.isfinite(value) else None for name, value in values.items()}

    return {
        "steps": score.steps,
        "anomalous": score.anomalous if math.isfinite(score.anomalous) else None,
        "f1": known(score.f1),
        "false_alarms": known(score.false_alarms),
        "missed": known(score.missed),
        "alarms": known(score.alarms),
        "episodes": score.episodes,
    }
