"""The choice of a classifier by groups left out: the network beside its logistic regression, or that alone.

Each group of the training part is left out in turn. The network trains on the others, and its log loss on the group
left out is measured along the training: with all that the network adds to the logistic regression, and with half of it,
which is the mean of both log-probabilities. No choice sees the test part.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_lstm.foundation.arrays import Doubles
from edge_lstm.foundation.progress import Tick, progress
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.group_folds import GroupFold
from edge_lstm_train.model.candidates import Candidate, Choice
from edge_lstm_train.model.carried_state import predict_streamed
from edge_lstm_train.model.fit import Fitted, reproducible, run_updates, torch_device
from edge_lstm_train.model.forecaster import Forecaster
from edge_lstm_train.model.initial_model import initial_model
from edge_lstm_train.model.logistic_start import chosen_penalty
from edge_lstm_train.model.losses import loss_functions
from edge_lstm_train.model.training_progress import TrainingProgress, Validation
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.training_sections import CandidateName

LOGISTIC, BOTH, MEAN = "logistic regression alone", "layers beside it", "mean of the log-probabilities of both"
_BEYOND_NOISE = 0.8  # of the resamples in which the network has to be better; there are six groups at most
_RESAMPLES = 2000
_SHARES = {BOTH: 1.0, MEAN: 0.5}  # of what the layers add to the logits


@dataclass(frozen=True, eq=False)
class GroupChoice(Choice):
    """A choice by groups left out, with the log losses of the candidates on each."""

    groups: list[str]  # of each fold, by commas
    log_losses: dict[str, list[float]]  # by candidate and fold, at the update that is best for the candidate
    taken: str  # the chosen one of these candidates
    uniform: float  # log loss of the uniform guess
    unsure: str | None  # the first groups in which the best candidate does not beat the uniform guess

    @property
    def below(self) -> int:
        """In how many folds the chosen candidate is worse than the logistic regression."""
        pairs = zip(self.log_losses[self.taken], self.log_losses[LOGISTIC], strict=True)
        return sum(own > logistic for own, logistic in pairs)

    def sentence(self) -> str:
        """What is chosen and by how much, and how often that was worse than the logistic regression."""
        if not self.groups:
            return "The choice was interrupted: the model is the logistic regression alone."
        means = {name: float(np.mean(losses)) for name, losses in self.log_losses.items()}
        others = ", ".join(f"{mean:.3f} for the {name}" for name, mean in means.items() if name != self.taken)
        count = len(self.groups)
        found = (
            f"The {self.taken} is chosen by groups left out: log loss {means[self.taken]:.3f} over {count} parts, "
            f"{others}. It was worse than the logistic regression in {self.below} of {count}."
        )
        if self.unsure is None:
            return found
        return (
            f"{found} Warning: the best candidate is no better than the uniform guess ({self.uniform:.3f}) in "
            f"{self.unsure}, so the logistic regression is taken: record more people or machines, or look at "
            "the labels of that group."
        )


def chosen_by_groups(recipe: Recipe) -> bool:
    """Whether the recipe leaves a choice between logistic regression and a network beside it."""
    return recipe.classify is not None and "linear" in recipe.candidates and len(recipe.candidates) > 1


def fit_by_groups(recipe: Recipe, dataset: Dataset, folds: Sequence[GroupFold], *, device: str = "cpu") -> GroupChoice:
    """Choose by the folds, then train the chosen candidate on training and validation part together.

    The recurrent layers always have the logistic regression beside them: alone, they carry over worst to new groups.
    Ctrl-C ends the choice, and the logistic regression is fitted. Equal arguments give equal weights.
    """
    beside = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, linear=True))
    with reproducible(recipe.fit.seed):
        penalty = chosen_penalty(recipe, dataset)
        curves: list[dict[str, dict[int, float]]] = []
        try:
            with progress(len(folds) * recipe.fit.updates, "choosing by groups left out") as tick:
                for fold in folds:
                    curves.append(_curves(beside, fold.dataset, penalty, device, tick))
            updates, losses = _best_of_each(curves)
            taken, unsure = _taken(folds, losses, dataset.targets.shape[1])
            name = taken if taken != LOGISTIC else min(_SHARES, key=lambda one: float(np.mean(losses[one])))
            fitted = Fitted(_start(beside, dataset, penalty), best=updates[name])
            if taken != LOGISTIC:
                with progress(updates[name], "training on all groups") as tick:
                    fitted = _trained(beside, dataset, penalty, updates[name], device, tick)
                    fitted = dataclasses.replace(fitted, model=shrunk(fitted.model, _SHARES[name]))
        except KeyboardInterrupt:
            return _interrupted(recipe, dataset, penalty)
    linear = _linear(recipe, dataset, penalty, losses[LOGISTIC])
    both = _candidate("both", beside, fitted, losses[name])
    chosen, other = (linear, both) if taken == LOGISTIC else (both, linear)
    ahead: dict[CandidateName, float] = {other.name: share_better(chosen.errors[:, 0], other.errors[:, 0])}
    return GroupChoice(
        [linear, both],
        chosen,
        ahead,
        len(folds),
        "groups left out",
        {},
        [", ".join(fold.groups) for fold in folds],
        losses,
        taken,
        math.log(dataset.targets.shape[1]),
        unsure,
    )


def _interrupted(recipe: Recipe, dataset: Dataset, penalty: float) -> GroupChoice:
    linear = _linear(recipe, dataset, penalty, [math.nan])
    linear = dataclasses.replace(linear, fitted=dataclasses.replace(linear.fitted, interrupted_at=0))
    return GroupChoice([linear], linear, {}, 0, "groups left out", {}, [], {LOGISTIC: []}, LOGISTIC, math.nan, None)


def _linear(recipe: Recipe, dataset: Dataset, penalty: float, losses: list[float]) -> Candidate:
    alone = dataclasses.replace(
        recipe.model, cell="none", highway=0, dropout=0.0, recurrent_dropout=0.0, learned_start=False
    )
    own = dataclasses.replace(recipe, model=alone)
    return _candidate("linear", own, Fitted(_start(own, dataset, penalty), refitted=True), losses)


def _candidate(name: CandidateName, recipe: Recipe, fitted: Fitted, losses: list[float]) -> Candidate:
    return Candidate(name, recipe, fitted, float(np.mean(losses)), np.array(losses)[:, None])


def _start(recipe: Recipe, dataset: Dataset, penalty: float) -> Forecaster:
    scale = np.ones(dataset.targets.shape[1])
    return initial_model(recipe, dataset, scale, refit=True, penalty=penalty).eval()


class _FoldProgress(TrainingProgress):
    """The log losses of each share along the training of one fold; keeps no weights and no file."""

    def __init__(self, model: Forecaster, dataset: Dataset, recipe: Recipe) -> None:
        super().__init__(model, dataset, loss_functions(recipe, dataset, np.ones(1)).validation_error, recipe, None)
        self.errors: dict[str, dict[int, float]] = {name: {} for name in _SHARES}  # by update
        self._fold, self._network = dataset, model

    def validate(self, update: int, training_loss: float) -> Validation:
        steps = self._fold.steps("validation")
        for name, share in _SHARES.items():
            logits = predict_streamed(shrunk(self._network, share), self._fold, "validation")
            self.errors[name][update] = self._error(logits[steps], self._fold.targets[steps])
        return Validation(update, training_loss, self.errors[BOTH][update])


def _curves(recipe: Recipe, fold: Dataset, penalty: float, device: str, tick: Tick) -> dict[str, dict[int, float]]:
    """The log loss on the groups left out, by candidate and update; that of the logistic regression at update 0."""
    scale = np.ones(fold.targets.shape[1])
    model = initial_model(recipe, fold, scale, penalty=penalty).to(torch_device(device))
    progress = _FoldProgress(model, fold, recipe)
    progress.validate(0, math.nan)
    logistic = progress.errors[BOTH][0]
    diverged_at = run_updates(model, recipe, fold, loss_functions(recipe, fold, scale), progress, tick)
    if diverged_at is not None:  # then no later update counts
        for errors in progress.errors.values():
            errors.update(dict.fromkeys(range(diverged_at, recipe.fit.updates + 1), math.inf))
    return {LOGISTIC: {0: logistic}, **progress.errors}


def _best_of_each(curves: Sequence[dict[str, dict[int, float]]]) -> tuple[dict[str, int], dict[str, list[float]]]:
    """For each candidate the update with the least mean log loss over the folds, and its log loss in each."""
    updates, losses = {}, {}
    for name in (LOGISTIC, MEAN, BOTH):
        shared = sorted(set.intersection(*(set(one[name]) for one in curves)))
        table = np.array([[one[name][update] for update in shared] for one in curves])  # (folds, updates)
        best = int(table.mean(axis=0).argmin())
        updates[name], losses[name] = shared[best], table[:, best].tolist()
    return updates, losses


def _taken(folds: Sequence[GroupFold], losses: dict[str, list[float]], classes: int) -> tuple[str, str | None]:
    """The candidate with the least mean log loss, or the logistic regression where it is no better beyond noise.

    Also the first groups in which that candidate does not beat the uniform guess; then it is not taken either.
    """
    best = min(losses, key=lambda name: float(np.mean(losses[name])))
    failed = [fold for fold, loss in zip(folds, losses[best], strict=True) if loss >= math.log(classes)]
    if failed:
        return LOGISTIC, ", ".join(failed[0].groups)
    if share_better(np.array(losses[best]), np.array(losses[LOGISTIC])) < _BEYOND_NOISE:
        return LOGISTIC, None
    return best, None


def share_better(losses: Doubles, simpler: Doubles) -> float:
    """The share of resamples of the folds, with replacement, in which the mean of `losses` (folds,) is below `simpler`.

    A paired bootstrap (Efron & Tibshirani 1993).
    """
    random = np.random.default_rng(1)
    drawn = random.integers(len(losses), size=(_RESAMPLES, len(losses)))
    return float(((simpler - losses)[drawn].mean(axis=1) > 0).mean())


def shrunk(model: Forecaster, share: float) -> Forecaster:
    """A copy of the model whose recurrent layers add that share to the logits.

    With one half, the log-probabilities are the mean of those of the model and of its linear path, but for a constant.
    """
    found = copy.deepcopy(model)
    found.head.weight.data *= share
    return found


def _trained(recipe: Recipe, dataset: Dataset, penalty: float, updates: int, device: str, tick: Tick) -> Fitted:
    """The network after so many updates on training and validation part together."""
    both = dataset.with_validation_in_training()
    scale = np.ones(dataset.targets.shape[1])
    model = initial_model(recipe, dataset, scale, refit=True, penalty=penalty).to(torch_device(device))
    losses = loss_functions(recipe, both, scale)
    training = TrainingProgress(model, dataset, losses.validation_error, recipe, None)
    diverged_at = run_updates(model, recipe, both, losses, training, tick, until=updates)
    if diverged_at is not None:
        return Fitted(_start(recipe, dataset, penalty), diverged_at=diverged_at)
    return Fitted(model.to("cpu").eval(), best=updates, refitted=True)
