"""How well labels are told apart: a device's labels beside those of the majority, a Markov chain and a linear model.

It refuses to flatter: where a baseline is as good, `verdict` says so in words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.split import Part
from edge_lstm_train.model.fit import input_statistics

MODEL = "model"
MAJORITY, SAME, MARKOV, LOGISTIC = "majority", "the same again", "Markov chain", "logistic"
UNKNOWN = -1
_PENALTIES = (1e-4, 1e-2)
_LOGISTIC_STEPS = 40


@dataclass(frozen=True, eq=False)
class ClassScore:
    """How the model and each baseline did over the same steps."""

    label: str
    classes: list[str]
    pairs: int
    accuracy: dict[str, float]  # by name ("model", "majority", ...)
    f1: dict[str, float]  # mean over the classes that occur
    confusion: Integers  # (classes, classes): true class by said class, of the model
    what: Literal["steps", "recordings"] = "steps"  # that were told apart

    @property
    def best_baseline(self) -> str:
        return max((name for name in self.accuracy if name != MODEL), key=lambda name: self.accuracy[name])

    @property
    def margin(self) -> float:
        """How far the model's accuracy lies above that of the best baseline."""
        return self.accuracy[MODEL] - self.accuracy[self.best_baseline]


def true_classes(dataset: Dataset) -> Integers:
    """(steps,): the index of what each step should have said, `UNKNOWN` where that is not known."""
    known = np.isfinite(dataset.targets[:, 0])
    return np.where(known, np.nan_to_num(dataset.targets).argmax(axis=1), UNKNOWN)


def class_baselines(dataset: Dataset) -> dict[str, Integers]:
    """What each baseline says at every step, (steps,), learned from the training part alone."""
    truth, train = true_classes(dataset), dataset.steps("train")
    classes = dataset.targets.shape[1]
    known = train[truth[train] != UNKNOWN]
    majority = int(np.bincount(truth[known], minlength=classes).argmax())
    baselines = {MAJORITY: np.full(len(dataset), majority)}
    if dataset.contract.horizons[0] > 0:
        before = _before(dataset, truth)
        baselines[SAME] = np.where(before == UNKNOWN, majority, before)
        counts = np.ones((classes, classes)) * 1e-6
        counts[:, majority] += 1e-3  # after what was never followed by anything in training
        followed = known[before[known] != UNKNOWN]
        np.add.at(counts, (before[followed], truth[followed]), 1)
        baselines[MARKOV] = np.where(before == UNKNOWN, majority, counts.argmax(axis=1)[before])
    baselines[LOGISTIC] = _logistic(dataset, truth)
    return baselines


def _before(dataset: Dataset, truth: Integers) -> Integers:
    """(steps,): the class that a step itself has, where the target is a later one's."""
    ahead = dataset.contract.horizons[0]
    found = np.full(len(dataset), UNKNOWN)
    found[ahead:] = truth[:-ahead]
    found[np.arange(len(dataset)) - dataset.run_start < ahead] = UNKNOWN
    return found


def _logistic(dataset: Dataset, truth: Integers) -> Integers:
    """Multinomial logistic regression on the feature vector of the step alone; its penalty from the validation part."""
    mean, scale = input_statistics(dataset)
    x = torch.from_numpy((dataset.features - mean) / scale).double()
    train, validation = (
        steps[truth[steps] != UNKNOWN] for steps in (dataset.steps("train"), dataset.steps("validation"))
    )
    y = torch.from_numpy(truth)
    best, said = -1.0, np.zeros(len(dataset), np.int64)
    for penalty in _PENALTIES:
        weight = torch.zeros((x.shape[1], dataset.targets.shape[1]), dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(dataset.targets.shape[1], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=_LOGISTIC_STEPS, line_search_fn="strong_wolfe")

        def loss(weight: torch.Tensor = weight, bias: torch.Tensor = bias, penalty: float = penalty) -> torch.Tensor:
            found = F.cross_entropy(x[train] @ weight + bias, y[train]) + penalty * (weight**2).sum()
            weight.grad = bias.grad = None
            found.backward()  # type: ignore[no-untyped-call]
            return found

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            candidate = (x @ weight + bias).argmax(dim=1).numpy()
        right = float((candidate[validation] == truth[validation]).mean())
        if right > best:
            best, said = right, candidate
    return said


def class_score(
    dataset: Dataset, baselines: dict[str, Integers], said: Integers, label: str, part: Part = "test"
) -> ClassScore:
    """The score over the part's steps; `said` (steps,) is what a device said, `UNKNOWN` where it said nothing."""
    asked = _asked(dataset, said, part)
    return _class_score(dataset, {MODEL: said, **baselines}, label, asked)


def class_scores_by_stream(
    dataset: Dataset, baselines: dict[str, Integers], said: Integers, label: str, part: Part = "test"
) -> dict[str, ClassScore]:
    """`class_score` for each stream that has steps to compare, by its name."""
    asked, named = _asked(dataset, said, part), {MODEL: said, **baselines}
    return {name: _class_score(dataset, named, label, steps) for name, steps in dataset.by_stream(asked).items()}


def recordings_score(
    dataset: Dataset, baselines: dict[str, Integers], said: Integers, label: str, part: Part = "test"
) -> ClassScore:
    """One label a recording, which is what lies between two (re)starts of the state.

    A device's is that of the last step; a baseline's is what it says most often, since it carries no votes of its own.
    """
    asked = _asked(dataset, said, part)
    run_of = dataset.run_start[asked]
    last = asked[np.flatnonzero(np.diff(run_of, append=-1) != 0)]
    voted = {name: one.copy() for name, one in baselines.items()}
    for end in last.tolist():
        steps = asked[run_of == dataset.run_start[end]]
        for one in voted.values():
            one[end] = np.bincount(one[steps]).argmax()
    score = _class_score(dataset, {MODEL: said, **voted}, label, last)
    return dataclasses.replace(score, what="recordings")


def _asked(dataset: Dataset, said: Integers, part: Part) -> Integers:
    truth, steps = true_classes(dataset), dataset.steps(part)
    asked: Integers = steps[(truth[steps] != UNKNOWN) & (said[steps] != UNKNOWN)]
    return asked


def _class_score(dataset: Dataset, named: dict[str, Integers], label: str, asked: Integers) -> ClassScore:
    truth, classes = true_classes(dataset), dataset.contract.targets
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (truth[asked], named[MODEL][asked]), 1)
    accuracy = {name: float((one[asked] == truth[asked]).mean()) for name, one in named.items()}
    f1 = {name: _macro_f1(truth[asked], one[asked], len(classes)) for name, one in named.items()}
    return ClassScore(label, classes, len(asked), accuracy, f1, confusion)


def _macro_f1(truth: Integers, said: Integers, classes: int) -> float:
    found = []
    for one in range(classes):
        hits = ((truth == one) & (said == one)).sum()
        if (truth == one).any():
            found.append(2 * hits / ((truth == one).sum() + (said == one).sum()))
    return float(np.mean(found)) if found else float("nan")


def verdict(score: ClassScore) -> str:
    """In words, whether the model is worth having."""
    name = score.best_baseline
    model, best = 100 * score.accuracy[MODEL], 100 * score.accuracy[name]
    asked = f"{score.pairs:,} {score.what}"
    if score.margin <= 0:
        return (
            f"The model does not beat the baselines: {name} is right in {best:.1f} % of {asked}, the model in "
            f"{model:.1f} %. Use the baseline, which needs no network."
        )
    right = f"it is right in {model:.1f} % of {asked}, {name} in {best:.1f} %"
    rival = max((one for one in score.f1 if one != MODEL), key=lambda one: score.f1[one])
    if score.f1[MODEL] >= score.f1[rival]:
        return f"The model beats every baseline: {right}."
    often = f"The model is right in {model:.1f} % of {asked}, {name} in {best:.1f} %: more often than "
    rare = f"{rival} has a mean F1 of {score.f1[rival]:.3f} and the model {score.f1[MODEL]:.3f}"
    return f"{often}every baseline, but not class by class, since {rare}."


def reliability(dataset: Dataset, probabilities: Doubles, part: Part = "test") -> tuple[list[float], list[float]]:
    """Mean probability of the likeliest class, and how often it was right, in tenths of steps from least to most sure.

    probabilities (steps, classes), NaN where nothing was said.
    """
    truth, asked = true_classes(dataset), dataset.steps(part)
    asked = asked[(truth[asked] != UNKNOWN) & np.isfinite(probabilities[asked]).all(axis=1)]
    sure = probabilities[asked].max(axis=1, initial=0.0)
    right = probabilities[asked].argmax(axis=1) == truth[asked]
    tenths = [one for one in np.array_split(np.argsort(sure, kind="stable"), 10) if one.size]
    return [float(sure[one].mean()) for one in tenths], [float(right[one].mean()) for one in tenths]


def table(scores: Sequence[ClassScore]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, as texts: accuracy and mean F1 of the model and of each baseline."""
    names, rows = list(scores[0].accuracy), []
    for score in scores:
        of = f" of {score.what}" if len(scores) > 1 else ""
        rows.append([f"accuracy{of}", *(f"{100 * score.accuracy[name]:.1f} %" for name in names)])
        rows.append([f"mean F1{of}", *(f"{score.f1[name]:.3f}" for name in names)])
    return [scores[0].label, *names], rows


def stream_table(scores: Sequence[tuple[str, ClassScore]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, as texts: the accuracy of the model and of each baseline for each stream."""
    names = list(scores[0][1].accuracy)
    rows = [[name, *(f"{100 * one.accuracy[said]:.1f} %" for said in names), f"{one.pairs:,}"] for name, one in scores]
    return ["accuracy", *names, "steps"], rows


def confusion_table(score: ClassScore) -> tuple[list[str], list[list[str]]]:
    """Header and rows, as texts: how often each true class (rows) was said to be which (columns)."""
    rows = [[name, *map(str, counts)] for name, counts in zip(score.classes, score.confusion.tolist(), strict=True)]
    return ["true, said:", *score.classes], rows


def numbers(scores: Sequence[ClassScore]) -> list[dict[str, object]]:
    """The figures, JSON-able."""
    return [
        {
            "label": score.label,
            "pairs": score.pairs,
            "of": score.what,
            "accuracy": score.accuracy,
            "f1": score.f1,
            "classes": score.classes,
            "confusion": score.confusion.tolist(),
        }
        for score in scores
    ]
