"""Scores of predicted classes: the model beside the majority class, a Markov chain and logistic regression.

If a baseline is as good as the model, `verdict` reports it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.group_folds import group_folds
from edge_lstm_train.data.split import Part
from edge_lstm_train.evaluation.formatting import TextTable
from edge_lstm_train.model.logistic_start import chosen_penalty, logistic_regression
from edge_lstm_train.model.losses import step_log_losses
from edge_lstm_train.recipe.recipe import Recipe

MODEL = "model"
MAJORITY, LAST_CLASS, MARKOV, LOGISTIC = "majority", "the same again", "Markov chain", "logistic"
UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class ClassScore:
    """Accuracy and F1 of the model and of each baseline, over the same steps."""

    label: str
    classes: list[str]
    pairs: int
    accuracy: dict[str, float]  # by name ("model", "majority", ...)
    f1: dict[str, float]  # mean over the classes that occur
    confusion: Integers  # (classes, classes): true class by predicted class, of the model
    counted: Literal["steps", "recordings"] = "steps"  # what `pairs` counts
    log_loss: dict[str, float] = field(default_factory=dict)  # by name, for those with probabilities

    @property
    def best_baseline(self) -> str:
        return max((name for name in self.accuracy if name != MODEL), key=lambda name: self.accuracy[name])

    @property
    def margin(self) -> float:
        """The model's accuracy minus that of the best baseline."""
        return self.accuracy[MODEL] - self.accuracy[self.best_baseline]


def true_classes(dataset: Dataset) -> Integers:
    """(steps,): the index of each step's true class, `UNKNOWN` where it is not known."""
    known = np.isfinite(dataset.targets[:, 0])
    return np.where(known, np.nan_to_num(dataset.targets).argmax(axis=1), UNKNOWN)


def class_baselines(dataset: Dataset, logits: Doubles) -> dict[str, Integers]:
    """The class that each baseline predicts at every step, (steps,), by its name; learned from the training part.

    logits (steps, classes): of the logistic regression.
    """
    truth, train = true_classes(dataset), dataset.steps("train")
    classes = dataset.targets.shape[1]
    known = train[truth[train] != UNKNOWN]
    majority = int(np.bincount(truth[known], minlength=classes).argmax())
    baselines = {MAJORITY: np.full(len(dataset), majority)}
    if dataset.contract.horizons[0] > 0:
        before = _class_before(dataset, truth)
        baselines[LAST_CLASS] = np.where(before == UNKNOWN, majority, before)
        counts = np.ones((classes, classes)) * 1e-6
        counts[:, majority] += 1e-3  # a class that nothing follows in training is followed by the majority
        followed = known[before[known] != UNKNOWN]
        np.add.at(counts, (before[followed], truth[followed]), 1)
        baselines[MARKOV] = np.where(before == UNKNOWN, majority, counts.argmax(axis=1)[before])
    baselines[LOGISTIC] = logits.argmax(axis=1)
    return baselines


def _class_before(dataset: Dataset, truth: Integers) -> Integers:
    """(steps,): the class of the step itself, where the target is the class of a later step."""
    ahead = dataset.contract.horizons[0]
    result = np.full(len(dataset), UNKNOWN)
    result[ahead:] = truth[:-ahead]
    result[np.arange(len(dataset)) - dataset.run_start < ahead] = UNKNOWN
    return result


def logistic_logits(recipe: Recipe, dataset: Dataset) -> Doubles:
    """(steps, classes): the logits of the logistic regression that training compares the network with."""
    by_groups = bool(group_folds(recipe, dataset))
    learned = dataset.with_validation_in_training() if by_groups else dataset
    logits: Doubles = (
        logistic_regression(recipe, learned, chosen_penalty(recipe, dataset)).logits(dataset.features).numpy()
    )
    return logits


def log_losses(dataset: Dataset, probabilities: Doubles, logits: Doubles, part: Part = "test") -> dict[str, float]:
    """The mean log loss over the part's steps of the model and of the logistic regression, by name.

    probabilities (steps, classes): of the model, NaN where there is none; logits (steps, classes).
    """
    steps = dataset.steps(part)
    steps = steps[np.isfinite(probabilities[steps]).all(axis=1)]
    model = np.log(np.maximum(probabilities[steps], 1e-12))
    targets = dataset.targets[steps]
    both = {MODEL: step_log_losses(model, targets), LOGISTIC: step_log_losses(logits[steps], targets)}
    return {name: float(np.nanmean(losses)) for name, losses in both.items() if np.isfinite(losses).any()}


def single_and_pooled(dataset: Dataset, probabilities: Doubles, pool: bool) -> tuple[Doubles, Doubles]:
    """The probabilities (steps, classes) of each step alone, and the mean of those of its run so far.

    `probabilities` are as published: with `pool` means, without it those of single steps. NaN where there is none.
    """
    other = np.full_like(probabilities, np.nan)
    for run in np.split(np.arange(len(dataset)), np.flatnonzero(dataset.restart)[1:]):
        count = np.arange(1, len(run) + 1)[:, None]
        if pool:
            other[run] = np.clip(np.diff(count * probabilities[run], axis=0, prepend=0.0), 0.0, 1.0)
        else:
            other[run] = np.cumsum(probabilities[run], axis=0) / count
    return (other, probabilities) if pool else (probabilities, other)


def likeliest(probabilities: Doubles) -> Integers:
    """(steps,): the most probable class, `UNKNOWN` where there are no probabilities."""
    known = np.isfinite(probabilities).all(axis=1)
    return np.where(known, np.nan_to_num(probabilities).argmax(axis=1), UNKNOWN)


def one_class_each(dataset: Dataset, part: Part = "test") -> bool:
    """Whether the part holds several runs between restarts, each of one class alone: one label per run makes sense."""
    truth, steps = true_classes(dataset), dataset.steps(part)
    steps = steps[truth[steps] != UNKNOWN]
    runs = np.unique(dataset.run_start[steps])
    pairs = np.unique(np.stack([dataset.run_start[steps], truth[steps]]), axis=1)
    return len(runs) > 1 and pairs.shape[1] == len(runs)


def class_score(
    dataset: Dataset, baselines: dict[str, Integers], predicted: Integers, label: str, part: Part = "test"
) -> ClassScore:
    """The score over the part's steps; `predicted` (steps,) holds a device's classes, `UNKNOWN` where there is none."""
    evaluated = _evaluated_steps(dataset, predicted, part)
    return _class_score(dataset, {MODEL: predicted, **baselines}, label, evaluated)


def class_scores_by_stream(
    dataset: Dataset, baselines: dict[str, Integers], predicted: Integers, label: str, part: Part = "test"
) -> dict[str, ClassScore]:
    """`class_score` for each stream that has steps to compare, by its name."""
    evaluated, by_name = _evaluated_steps(dataset, predicted, part), {MODEL: predicted, **baselines}
    return {name: _class_score(dataset, by_name, label, steps) for name, steps in dataset.by_stream(evaluated).items()}


def recordings_score(
    dataset: Dataset, baselines: dict[str, Integers], predicted: Integers, label: str, part: Part = "test"
) -> ClassScore:
    """The score with one label per recording; a recording is the run of steps between two restarts of the state.

    The model's label is that of the last step: `predicted` are the classes of the mean probabilities so far. A
    baseline's label is its most frequent one, since it counts no votes.
    """
    evaluated = _evaluated_steps(dataset, predicted, part)
    run_of = dataset.run_start[evaluated]
    last = evaluated[np.flatnonzero(np.diff(run_of, append=-1) != 0)]
    voted = {name: one.copy() for name, one in baselines.items()}
    for end in last.tolist():
        steps = evaluated[run_of == dataset.run_start[end]]
        for one in voted.values():
            one[end] = np.bincount(one[steps]).argmax()
    score = _class_score(dataset, {MODEL: predicted, **voted}, label, last)
    return dataclasses.replace(score, counted="recordings")


def _evaluated_steps(dataset: Dataset, predicted: Integers, part: Part) -> Integers:
    truth, steps = true_classes(dataset), dataset.steps(part)
    evaluated: Integers = steps[(truth[steps] != UNKNOWN) & (predicted[steps] != UNKNOWN)]
    return evaluated


def _class_score(dataset: Dataset, by_name: dict[str, Integers], label: str, evaluated: Integers) -> ClassScore:
    truth, classes = true_classes(dataset), dataset.contract.targets
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (truth[evaluated], by_name[MODEL][evaluated]), 1)
    accuracy = {name: float((one[evaluated] == truth[evaluated]).mean()) for name, one in by_name.items()}
    f1 = {name: _macro_f1(truth[evaluated], one[evaluated], len(classes)) for name, one in by_name.items()}
    return ClassScore(label, classes, len(evaluated), accuracy, f1, confusion)


def _macro_f1(truth: Integers, predicted: Integers, classes: int) -> float:
    result = []
    for one in range(classes):
        hits = ((truth == one) & (predicted == one)).sum()
        if (truth == one).any():
            result.append(2 * hits / ((truth == one).sum() + (predicted == one).sum()))
    return float(np.mean(result)) if result else float("nan")


def verdict(score: ClassScore) -> str:
    """Sentences that compare the model with the best baseline, and with a guess where it is no better than that."""
    return _against_baselines(score) + _against_a_guess(score)


def _against_a_guess(score: ClassScore) -> str:
    """A sentence where equal probabilities for all classes would have been as good; else empty."""
    count = len(score.classes)
    if score.accuracy[MODEL] < 1 / count:
        return f" A guess among {count} classes is right more often, in {100 / count:.1f} %."
    loss, uniform = score.log_loss.get(MODEL), math.log(count)
    if loss is not None and loss >= uniform:
        return f" Its probabilities are no better than equal ones: log loss {loss:.3f}, of equal ones {uniform:.3f}."
    return ""


def _against_baselines(score: ClassScore) -> str:
    name = score.best_baseline
    model, best = 100 * score.accuracy[MODEL], 100 * score.accuracy[name]
    evaluated = f"{score.pairs:,} {score.counted}"
    if score.margin <= 0:
        return (
            f"The model does not beat the baselines: {name} is right in {best:.1f} % of {evaluated}, the model in "
            f"{model:.1f} %."
        )
    right = f"it is right in {model:.1f} % of {evaluated}, {name} in {best:.1f} %"
    rival = max((one for one in score.f1 if one != MODEL), key=lambda one: score.f1[one])
    if score.f1[MODEL] >= score.f1[rival]:
        return f"The model beats every baseline: {right}."
    accuracy = f"The model is right in {model:.1f} % of {evaluated}, {name} in {best:.1f} %: more often than "
    classwise = f"{rival} has a mean F1 of {score.f1[rival]:.3f} and the model {score.f1[MODEL]:.3f}"
    return f"{accuracy}every baseline, but not class by class, since {classwise}."


def reliability(dataset: Dataset, probabilities: Doubles, part: Part = "test") -> tuple[list[float], list[float]]:
    """Mean probability of the most likely class and its accuracy, in ten groups of steps from least to most certain.

    probabilities (steps, classes), NaN where there is no prediction.
    """
    truth, evaluated = true_classes(dataset), dataset.steps(part)
    evaluated = evaluated[(truth[evaluated] != UNKNOWN) & np.isfinite(probabilities[evaluated]).all(axis=1)]
    largest = probabilities[evaluated].max(axis=1, initial=0.0)
    right = probabilities[evaluated].argmax(axis=1) == truth[evaluated]
    tenths = [one for one in np.array_split(np.argsort(largest, kind="stable"), 10) if one.size]
    return [float(largest[one].mean()) for one in tenths], [float(right[one].mean()) for one in tenths]


def table(scores: Sequence[ClassScore]) -> TextTable:
    """Accuracy and mean F1 of the model and of each baseline."""
    names, rows = list(scores[0].accuracy), []
    for score in scores:
        of = f" of {score.counted}" if len(scores) > 1 else ""
        rows.append([f"accuracy{of}", *(f"{100 * score.accuracy[name]:.1f} %" for name in names)])
        rows.append([f"mean F1{of}", *(f"{score.f1[name]:.3f}" for name in names)])
        if score.log_loss:
            known = (score.log_loss.get(name) for name in names)
            rows.append([f"log loss{of}", *("" if loss is None else f"{loss:.3f}" for loss in known)])
    return [scores[0].label, *names], rows


def stream_table(scores: Sequence[tuple[str, ClassScore]]) -> TextTable:
    """The accuracy of the model and of each baseline, a row per stream."""
    names = list(scores[0][1].accuracy)
    rows = [
        [stream, *(f"{100 * one.accuracy[name]:.1f} %" for name in names), f"{one.pairs:,}"] for stream, one in scores
    ]
    return ["accuracy", *names, "steps"], rows


def confusion_table(score: ClassScore) -> TextTable:
    """How often each true class (rows) was predicted as each class (columns)."""
    rows = [[name, *map(str, counts)] for name, counts in zip(score.classes, score.confusion.tolist(), strict=True)]
    return ["true, predicted:", *score.classes], rows


def figures(scores: Sequence[ClassScore]) -> list[dict[str, object]]:
    """The scores as JSON values."""
    return [
        {
            "label": score.label,
            "pairs": score.pairs,
            "of": score.counted,
            "accuracy": score.accuracy,
            "f1": score.f1,
            "log_loss": score.log_loss,
            "classes": score.classes,
            "confusion": score.confusion.tolist(),
        }
        for score in scores
    ]
