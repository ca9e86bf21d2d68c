"""How well alarms meet the truth: a device's alarms beside "always" and a ridge forecast judged by the same rule.

F1 alone means little where most steps are anomalous, so false-alarm and missed-alarm rates stand beside it.
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

MODEL = "model"
ALWAYS, RIDGE = "always", "ridge"


@dataclass(frozen=True, eq=False)
class AlarmScore:
    """How the model and each baseline did over the same steps; rates are NaN where the truth is not known."""

    steps: int  # judged
    anomalous: float  # share of them, NaN where the truth is not known
    f1: dict[str, float]  # by name ("model", "always", "ridge"); NaN where there was no anomaly
    false_alarms: dict[str, float]  # share of the normal steps
    missed: dict[str, float]  # share of the anomalous steps
    alarms: dict[str, float]  # share of all steps
    episodes: dict[str, int]  # how often an alarm began

    @property
    def best_baseline(self) -> str:
        return max((name for name in self.f1 if name != MODEL), key=lambda name: self.f1[name])


def judged_alike(dataset: Dataset, forecasts: Doubles) -> Flags:
    """(steps,): the alarms that the contract's own rule raises for any forecasts (steps, outputs) of a dataset."""
    values, outputs = dataset.values.astype(np.float32), forecasts.astype(np.float32)
    return decide_all(dataset.contract, dataset.stream_of, dataset.restart, values, outputs)[2]


def alarm_score(
    dataset: Dataset,
    alarms: dict[str, Flags],
    judged: Flags,
    truth: Doubles | None,
    part: Part = "test",
) -> AlarmScore:
    """alarms (steps,) by name, over the part's steps that were judged; judged, truth (steps,), NaN where unknown."""
    return _alarm_score(dataset, alarms, _asked(dataset, judged, truth, part), truth)


def alarm_scores_by_stream(
    dataset: Dataset,
    alarms: dict[str, Flags],
    judged: Flags,
    truth: Doubles | None,
    part: Part = "test",
) -> dict[str, AlarmScore]:
    """`alarm_score` for each stream that was judged, by its name."""
    asked = _asked(dataset, judged, truth, part)
    return {name: _alarm_score(dataset, alarms, steps, truth) for name, steps in dataset.by_stream(asked).items()}


def _asked(dataset: Dataset, judged: Flags, truth: Doubles | None, part: Part) -> Integers:
    steps = dataset.steps(part)
    known = judged if truth is None else judged & np.isfinite(truth)
    asked: Integers = steps[known[steps]]
    return asked


def _alarm_score(dataset: Dataset, alarms: dict[str, Flags], asked: Integers, truth: Doubles | None) -> AlarmScore:
    known = truth is not None and len(asked) > 0
    real = np.zeros(len(asked), bool) if truth is None else truth[asked] > 0
    usual = ~real if known else real  # where the truth is not known, no step is known to be normal
    raised = {**{name: one[asked] for name, one in alarms.items()}, ALWAYS: np.ones(len(asked), bool)}
    other = np.diff(dataset.stream_of[asked], prepend=-1) != 0  # an alarm of another stream is another one
    return AlarmScore(
        len(asked),
        float(real.mean()) if known else math.nan,
        {name: f1(real, one) if real.any() else math.nan for name, one in raised.items()},
        {name: _share(one[usual]) for name, one in raised.items()},
        {name: _share(~one[real]) for name, one in raised.items()},
        {name: _share(one) for name, one in raised.items()},
        {name: int((one & (other | ~np.roll(one, 1))).sum()) for name, one in raised.items()},
    )


def f1(truth: Flags, said: Flags) -> float:
    """The harmonic mean of precision and recall; 0 where nothing was hit."""
    both = truth.sum() + said.sum()
    return float(2 * (truth & said).sum() / both) if both else 0.0


def _share(flags: Flags) -> float:
    return float(flags.mean()) if flags.size else math.nan


def verdict(score: AlarmScore) -> str:
    """In words, whether the model is worth having."""
    if not score.steps:
        return "No step was judged: the test part is shorter than the calibration of its streams."
    if math.isnan(score.anomalous):
        return (
            f"The truth is not known here. The model raised {score.episodes[MODEL]} alarms, over "
            f"{100 * score.alarms[MODEL]:.1f} % of {score.steps:,} steps; ridge {score.episodes[RIDGE]}, over "
            f"{100 * score.alarms[RIDGE]:.1f} %."
        )
    if not score.anomalous:
        return (
            f"There was no anomaly in the {score.steps:,} steps that were judged, so only false alarms could be made: "
            f"the model was in alarm for {100 * score.false_alarms[MODEL]:.1f} % of them, ridge for "
            f"{100 * score.false_alarms[RIDGE]:.1f} %."
        )
    name = score.best_baseline
    said = (
        f"F1 {score.f1[MODEL]:.3f} at {100 * score.false_alarms[MODEL]:.1f} % false and "
        f"{100 * score.missed[MODEL]:.1f} % missed alarms"
    )
    other = (
        f"{name} has {score.f1[name]:.3f} at {100 * score.false_alarms[name]:.1f} % false and "
        f"{100 * score.missed[name]:.1f} % missed"
    )
    if score.f1[MODEL] > score.f1[name]:
        return f"The model beats every baseline: {said}; {other}."
    advice = "Use the baseline, which needs no network."
    if name == ALWAYS:
        advice = "An alarm that never ends scores better, so what is raised here tells nothing."
    return f"The model does not beat the baselines: {said}; {other}. {advice}"


def table(score: AlarmScore) -> tuple[list[str], list[list[str]]]:
    """Header and rows, as texts, of the model and of each baseline."""
    names = list(score.f1)
    rows = [
        ["F1", *(_number(score.f1[name]) for name in names)],
        ["false alarms", *(_percent(score.false_alarms[name]) for name in names)],
        ["missed", *(_percent(score.missed[name]) for name in names)],
        ["alarm episodes", *(str(score.episodes[name]) for name in names)],
    ]
    return ["alarms", *names], rows


def selection_error(stream: tuple[str, AlarmScore]) -> tuple[float, float]:
    """To sort streams by, the worst first: the lowest F1, or where there was no anomaly the most false alarms."""
    score = stream[1]
    return (score.f1[MODEL] if math.isfinite(score.f1[MODEL]) else 1.0, -score.alarms[MODEL])


def stream_table(scores: Sequence[tuple[str, AlarmScore]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, as texts: what the model's alarms came to for each stream, and ridge's F1."""
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
    """Thresholds, and the shares of normal steps above each and of anomalous steps not above it, where there are any.

    Scores (steps,), NaN where a step was not judged. Where the truth is not known, all steps count as normal.
    """
    asked = _asked(dataset, np.isfinite(scores), truth, part)
    real = np.zeros(len(asked), bool) if truth is None else truth[asked] > 0
    if not asked.size:
        return [], [], []
    levels = np.linspace(0.0, 3.0, 61)
    usual, found = np.sort(scores[asked[~real]]), np.sort(scores[asked[real]])
    false = 1 - np.searchsorted(usual, levels, side="right") / max(1, len(usual))
    missed = np.searchsorted(found, levels, side="right") / len(found) if len(found) else np.zeros(0)
    return levels.tolist(), false.tolist(), missed.tolist()


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "unknown"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if math.isfinite(value) else "unknown"


def numbers(score: AlarmScore) -> dict[str, object]:
    """The figures, JSON-able: what is not known is null."""

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
