"""Scores of numeric predictions, forecasts and estimates: errors of the model and of each baseline on equal steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_lstm.decisions.angles import difference, position, sine_and_cosine
from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm.streaming.reading import Prediction
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.split import Part
from edge_lstm_train.evaluation.baselines import NAIVE, Baselines
from edge_lstm_train.evaluation.formatting import TextTable, as_text, output_label, percent, rounded, with_unit
from edge_lstm_train.evaluation.predictions import aligned

MODEL = "model"
_LEAST_MARGIN = 0.01  # a smaller gain or loss could change sign with another seed or month


@dataclass(frozen=True)
class Score:
    """Errors of the model and of each baseline for one target at one horizon, over the same steps."""

    target: str
    unit: str
    horizon: int  # steps
    pairs: int  # predictions compared with a measured value
    rmse: dict[str, float]  # by name ("model", "persistence", ...), in `unit`
    mae: dict[str, float]
    r2: dict[str, float]  # 1 - MSE / variance of the target over the same steps

    def skill(self, name: str = MODEL) -> float:
        """1 - RMSE / RMSE of the better naive baseline: 0 is equal to it, 1 is perfect."""
        naive = min(self.rmse[baseline] for baseline in NAIVE if baseline in self.rmse)
        return 1 - self.rmse[name] / naive if naive > 0 else math.nan

    @property
    def best_baseline(self) -> str:
        return min((name for name in self.rmse if name != MODEL), key=lambda name: self.rmse[name])

    @property
    def margin(self) -> float:
        """1 - RMSE / RMSE of the best baseline: above 0 the model is better."""
        best = self.rmse[self.best_baseline]
        return 1 - self.rmse[MODEL] / best if best > 0 else -math.inf


def score(
    dataset: Dataset, baselines: Baselines, predictions: Iterable[Prediction], part: Part = "test"
) -> list[Score]:
    """A score for each output except quantiles, over the part's steps that have a prediction and a measured target."""
    predicted = {MODEL: aligned(dataset, predictions), **baselines.predictions}
    return _scores(dataset, predicted, dataset.steps(part))


def scores_by_stream(
    dataset: Dataset, baselines: Baselines, predictions: Iterable[Prediction], part: Part = "test"
) -> dict[str, list[Score]]:
    """`score` for each stream that has steps to compare, by its name."""
    predicted = {MODEL: aligned(dataset, predictions), **baselines.predictions}
    found = {name: _scores(dataset, predicted, steps) for name, steps in dataset.by_stream(dataset.steps(part)).items()}
    return {name: scores for name, scores in found.items() if any(one.pairs for one in scores)}


def _scores(dataset: Dataset, predicted: dict[str, Doubles], steps: Integers) -> list[Score]:
    """Scores of the predictions (steps, outputs) by name, at the indices `steps`."""
    units, periods = dataset.contract.target_units, dataset.contract.circles
    targets, scores = dataset.truth, []
    for output, (target, horizon) in enumerate(dataset.contract.outputs):
        if target not in dataset.contract.targets:
            continue
        known = steps[np.isfinite(targets[steps, output]) & np.isfinite(predicted[MODEL][steps, output])]
        truth, period = targets[known, output], periods.get(target)
        errors = {name: errors_of(table[known, output], truth, period) for name, table in predicted.items()}
        rmse = {name: _mean(error**2) ** 0.5 for name, error in errors.items()}
        mae = {name: _mean(np.abs(error)) for name, error in errors.items()}
        variance = _variance(truth, period) if truth.size else math.nan
        r2 = {name: 1 - _mean(error**2) / variance if variance > 0 else math.nan for name, error in errors.items()}
        scores.append(Score(target, units[target], horizon, len(known), rmse, mae, r2))
    return scores


def errors_of(predicted: Doubles, truth: Doubles, period: float | None) -> Doubles:
    """predicted - truth; on a circle the shorter way around it."""
    return predicted - truth if period is None else difference(predicted, truth, period)


def _variance(values: Doubles, period: float | None) -> float:
    """The mean squared distance from the mean, on a circle along it."""
    if period is None:
        return float(values.var())
    sine, cosine = sine_and_cosine(values, period)
    return float((difference(values, position(sine.mean(), cosine.mean(), period), period) ** 2).mean())


@dataclass(frozen=True)
class Coverage:
    """How often the truth was below a quantile, and how often it should be."""

    target: str
    horizon: int
    level: float
    below: float  # share of the pairs
    pairs: int


def coverage(dataset: Dataset, predictions: Iterable[Prediction], part: Part = "test") -> list[Coverage]:
    """The calibration of each quantile output, over the part's steps."""
    contract = dataset.contract
    level_of = {
        name: (target, level)
        for target in contract.targets
        for name, level in zip(contract.output_names_of(target)[1:], contract.quantiles, strict=True)
    }
    predicted, targets = aligned(dataset, predictions), dataset.truth
    steps = dataset.steps(part)
    found = []
    for output, (name, horizon) in enumerate(contract.outputs):
        if name in level_of:
            target, level = level_of[name]
            known = steps[np.isfinite(targets[steps, output]) & np.isfinite(predicted[steps, output])]
            below = targets[known, output] < predicted[known, output]
            found.append(Coverage(target, horizon, level, float(below.mean()) if known.size else math.nan, len(known)))
    return found


def _mean(values: Doubles) -> float:
    return float(values.mean()) if values.size else math.nan


def verdict(scores: Sequence[Score]) -> str:
    """One or more sentences that compare the model with the best baseline of each output, and say an R² below zero."""
    return " ".join([_comparison(scores), *_below_the_mean(scores)])


def _comparison(scores: Sequence[Score]) -> str:
    if not all(one.pairs for one in scores):
        return "Some outputs have no predictions to evaluate."
    better = [one for one in scores if one.margin > _LEAST_MARGIN]
    equal = [one for one in scores if abs(one.margin) <= _LEAST_MARGIN]
    worse = [one for one in scores if not one.margin >= -_LEAST_MARGIN]
    no_gain = f"adds nothing {'; '.join(_tie_text(one) for one in equal)}"
    losses = "; ".join(_loss_text(one) for one in worse)
    if not better:
        sentences = [f"The model {no_gain}."] if equal else []
        sentences += [f"The model does not beat the baselines: {losses}."] if worse else []
        return " ".join(sentences)
    low, high = (round(100 * choose(one.margin for one in better)) for choose in (min, max))
    span = f"{high} %" if low == high else f"{low} to {high} %"
    if len(better) == len(scores):
        return f"The model beats every baseline on every output: its RMSE is {span} below the best of them."
    part = f"on {len(better)} of {len(scores)} outputs (RMSE {span} below the best of them)"
    sentences = [f"The model beats every baseline {part}{f', but not on the rest: {losses}' if worse else ''}."]
    return " ".join([*sentences, *([f"It {no_gain}."] if equal else [])])


def _below_the_mean(scores: Sequence[Score]) -> list[str]:
    """A sentence on outputs whose R² is below zero, or none."""
    below = [one for one in scores if one.r2[MODEL] < 0]
    if not below:
        return []
    named = "; ".join(f"{output_label(one.target, one.horizon)} (R² {r2_text(one)})" for one in below)
    return [f"Its error is larger than that of the test part's own mean, a constant: {named}."]


def _tie_text(one: Score) -> str:
    name = one.best_baseline
    model, best = rounded([one.rmse[MODEL], one.rmse[name]])
    output = output_label(one.target, one.horizon)
    return f"to {name} for {output} (RMSE {model} and {best} {one.unit}".strip() + ")"


def _loss_text(one: Score) -> str:
    name = one.best_baseline
    model, best = rounded([one.rmse[MODEL], one.rmse[name]])
    output = output_label(one.target, one.horizon)
    return f"{output}, {name} has an RMSE of {best} and the model {model} {one.unit}".strip()


def r2_text(one: Score) -> str:
    return f"{one.r2[MODEL]:.3f}" if math.isfinite(one.r2[MODEL]) else "none"


def table(scores: Sequence[Score]) -> TextTable:
    """RMSE of the model and of each baseline, and the model's skill."""
    names = list(scores[0].rmse)
    estimates = not any(one.horizon for one in scores)
    header = ["target", "steps ahead", *names, "skill", *(["R²"] if estimates else []), "pairs"]
    return header, list(_rows(scores, names, estimates))


def _rows(scores: Sequence[Score], names: Sequence[str], estimates: bool) -> Iterator[list[str]]:
    for one in scores:
        rmse = rounded([one.rmse[name] for name in names])
        label = with_unit(one.target, one.unit)
        r2 = [r2_text(one)] if estimates else []
        yield [label, str(one.horizon), *rmse, percent(one.skill()), *r2, str(one.pairs)]


def table_text(scores: Sequence[Score]) -> str:
    """`table` for a terminal."""
    return as_text(*table(scores))
