"""The choice of the network: a linear path alone, the recurrent layers alone, or both, by their streamed validations.

The simplest candidate is chosen that no other beats beyond noise. So the model is never worse on the validation part
than the baselines that a device can run. What counts is the error of the task, or where there is one, the judgement of
a `Judge`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm.foundation.progress import work
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.model.carried_state import predict_streamed
from edge_lstm_train.model.fit import Fitted, fit, refitted
from edge_lstm_train.model.forecaster import Forecaster
from edge_lstm_train.model.linear_start import LinearFits
from edge_lstm_train.model.losses import LossFunctions, loss_functions
from edge_lstm_train.model.training_progress import PROGRESS_FILE
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.training_sections import CandidateName

_BEYOND_NOISE = 0.9  # of the resamples in which a candidate has to be better than a simpler one
_RESAMPLES = 1000
_LEAST_STREAMS = 8  # with fewer in the validation part, blocks of time are resampled
_MOST_BLOCKS, _LEAST_BLOCKS = 40, 8
TITLES: dict[CandidateName, str] = {
    "linear": "linear path alone",
    "network": "recurrent layers alone",
    "both": "layers beside a linear path",
}


class Judge(Protocol):
    """Judges candidates by something else than their errors on the validation part."""

    @property
    def measure(self) -> str:
        """What it measures, lower is better, in words."""
        ...

    @property
    def blocks(self) -> list[Integers]:
        """Which cases may be taken as independent of the others."""
        ...

    @property
    def blocks_are(self) -> str:
        """What the blocks are, in words."""
        ...

    def __call__(self, model: Forecaster) -> Doubles:
        """(cases,): lower is better."""
        ...


@dataclass(frozen=True, eq=False)
class Candidate:
    """One of the networks to choose from, trained."""

    name: CandidateName
    recipe: Recipe  # with its [model] section
    fitted: Fitted
    validation: float  # its error on the validation part, streamed: the task's own, lower is better
    errors: Doubles  # (validation steps, outputs): what `validation` is a mean of; NaN where the target is unknown
    judged: Doubles | None = None  # (cases, 1): what the choice is by, instead of the errors

    @property
    def cost(self) -> float:
        """What the choice is by; lower is better."""
        return self.validation if self.judged is None else float(self.judged.mean())


@dataclass(frozen=True, eq=False)
class Choice:
    """The candidates, the simplest first, and the chosen one."""

    candidates: list[Candidate]
    chosen: Candidate
    ahead: dict[CandidateName, float]  # share of the resamples in which the chosen one is better than each other
    blocks: int  # that were resampled: streams, or stretches of time
    blocks_are: str
    left_out: dict[CandidateName, str]  # candidates that could not be trained, with the reason
    measure: str = dataclasses.field(default="error", kw_only=True)  # what the choice is by, in words

    @property
    def interrupted_at(self) -> int | None:
        """The update at which Ctrl-C came, of whichever candidate was in training."""
        found = [one.fitted.interrupted_at for one in [*self.candidates, self.chosen]]
        return next((update for update in found if update is not None), None)

    @property
    def diverged(self) -> Candidate | None:
        """The first candidate whose loss was not finite."""
        trained = [*self.candidates, self.chosen]
        return next((one for one in trained if one.fitted.diverged_at is not None), None)

    def sentence(self) -> str:
        """Which one is chosen, and by how much."""
        name, chosen = TITLES[self.chosen.name], self.chosen
        if len(self.candidates) == 1:
            return f"The model is the {name}, the only candidate."
        better = [self._compared(one) for one in self.candidates if one is not chosen]
        return f"Chosen by the validation part: the {name}. Its {self.measure} is {'; '.join(better)}."

    def _compared(self, other: Candidate) -> str:
        change = 100 * (1 - self.chosen.cost / other.cost) if other.cost > 0 else 0.0
        whose = f"{'that' if self.measure == 'error' else 'the one'} of the {TITLES[other.name]}"
        if abs(change) < 0.05:
            return f"as large as {whose}"
        size = f"{abs(change):.1f} % {'below' if change >= 0 else 'above'} {whose}"
        simpler = "" if change >= 0 else ", which is less simple and no better beyond noise"
        share = f"better in {100 * self.ahead[other.name]:.0f} % of the resamples of {self.blocks} {self.blocks_are}"
        return f"{size} ({share}{simpler})"


def candidate_recipes(recipe: Recipe, linear: LinearFits | None) -> dict[CandidateName, Recipe]:
    """The recipe of each candidate, the simplest first; linear: the start of a numeric task's linear path."""
    model = recipe.model
    earlier = 0 if linear is None else linear.searched.earlier
    free: dict[str, Any] = {"linear": True, "level_free": False, "highway": earlier}
    alone: dict[str, Any] = {**free, "cell": "none", "learned_start": False, "dropout": 0.0, "recurrent_dropout": 0.0}
    if model.cell == "none" and model.highway:
        alone = {}  # the recipe says what the path sees
    beside = {} if model.has_highway else free
    changes: dict[CandidateName, dict[str, Any]] = {"linear": alone, "network": {}, "both": beside}
    return {
        name: dataclasses.replace(recipe, model=dataclasses.replace(model, **changes[name]))
        for name in recipe.candidates
    }


def start_of(name: CandidateName, candidate: Recipe, recipe: Recipe, linear: LinearFits | None) -> LinearFits | None:
    """The start of a candidate's linear path: None where the recipe itself says what the path sees, or has none."""
    return None if name == "network" or candidate.model == recipe.model else linear


def fit_candidates(
    recipe: Recipe,
    dataset: Dataset,
    judged: Dataset,
    error_scale: Doubles,
    linear: LinearFits | None,
    *,
    judge: Judge | None = None,
    device: str = "cpu",
    run_dir: Path | None = None,
    resume: bool = False,
) -> Choice:
    """Train the recipe's candidates, and choose one; with `refit` in the recipe, that one is trained again on more.

    judged: the dataset whose validation part judges them, by their errors or by `judge`. error_scale and linear: as in
    `fit`. After Ctrl-C, the choice is among the candidates so far. Raises what `fit` raises.
    """
    losses = loss_functions(recipe, dataset, error_scale)
    candidates: list[Candidate] = []
    left_out: dict[CandidateName, str] = {}
    progress_file = PROGRESS_FILE
    if run_dir is not None and not resume:
        for name in get_args(CandidateName):  # of an earlier training; a later candidate would resume from it
            (run_dir / _later_progress(name)).unlink(missing_ok=True)
    for name, own in candidate_recipes(recipe, linear).items():
        if own.parameters > own.model.most_parameters:
            left_out[name] = f"{own.parameters:,} parameters, more than most_parameters ({own.model.most_parameters:,})"
            continue
        search = dataclasses.replace(own, fit=dataclasses.replace(own.fit, refit=False))
        try:
            with work(f"fitting the {TITLES[name]}"):
                fitted = fit(
                    search,
                    judged,
                    error_scale,
                    device=device,
                    run_dir=run_dir,
                    resume=resume,
                    linear=start_of(name, own, recipe, linear),
                    progress_file=progress_file,
                )
                candidates.append(_validated(name, own, fitted, judged, losses, judge))
        except KeyboardInterrupt:  # before its first update, or in its last validation
            if not candidates:
                raise
            candidates[-1] = _interrupted(candidates[-1])
        if own.model.depth:
            progress_file = _later_progress("both" if name == "network" else "network")
        if candidates[-1].fitted.interrupted_at is not None:
            break
    choice = _choose(candidates, left_out, dataset, losses, judge)
    if not recipe.fit.refit or choice.interrupted_at is not None or choice.chosen.fitted.diverged_at is not None:
        return choice
    chosen = choice.chosen
    start = start_of(chosen.name, chosen.recipe, recipe, linear)
    try:
        again = refitted(chosen.fitted, chosen.recipe, dataset, error_scale, device=device, linear=start)
    except KeyboardInterrupt:  # before its first update
        return dataclasses.replace(choice, chosen=_interrupted(chosen))
    return dataclasses.replace(choice, chosen=dataclasses.replace(chosen, fitted=again))


def _interrupted(candidate: Candidate) -> Candidate:
    """The candidate, complete, with Ctrl-C after its last update."""
    curve = candidate.fitted.curve
    update = curve[-1].update if curve else candidate.fitted.best
    return dataclasses.replace(candidate, fitted=dataclasses.replace(candidate.fitted, interrupted_at=update))


def _later_progress(name: CandidateName) -> str:
    """The file of a candidate that is not the first with layers."""
    return f"progress_{name}.pt"


def _validated(
    name: CandidateName, recipe: Recipe, fitted: Fitted, dataset: Dataset, losses: LossFunctions, judge: Judge | None
) -> Candidate:
    steps = dataset.steps("validation")
    predictions = predict_streamed(fitted.model, dataset, "validation")[steps]
    errors = losses.step_errors(predictions, dataset.targets[steps])
    judged = None if judge is None else judge(fitted.model)[:, None]
    return Candidate(name, recipe, fitted, losses.mean_error(errors), errors, judged)


def _choose(
    candidates: list[Candidate],
    left_out: dict[CandidateName, str],
    dataset: Dataset,
    losses: LossFunctions,
    judge: Judge | None,
) -> Choice:
    blocks, what = _blocks(dataset) if judge is None else (judge.blocks, judge.blocks_are)
    mean_error = losses.mean_error if judge is None else np.mean
    chosen = min(candidates, key=lambda one: one.cost)
    for one in candidates:  # the simplest first
        if one is chosen or _share_better(chosen, one, blocks, mean_error) < _BEYOND_NOISE:
            chosen = one
            break
    ahead = {one.name: _share_better(chosen, one, blocks, mean_error) for one in candidates if one is not chosen}
    measure = "error" if judge is None else judge.measure
    return Choice(candidates, chosen, ahead, len(blocks), what, left_out, measure=measure)


def _share_better(
    one: Candidate, other: Candidate, blocks: list[Integers], mean_error: Callable[[Doubles], Any]
) -> float:
    """The share of resamples of the blocks, with replacement, in which `one` has the smaller error.

    Both are compared over the same resamples (paired bootstrap, Efron & Tibshirani 1993); neighbouring steps stay
    together, since their errors are alike (Künsch 1989).
    """
    random = np.random.default_rng(0)
    weights = random.multinomial(len(blocks), [1 / len(blocks)] * len(blocks), _RESAMPLES)  # (resamples, blocks)
    first, second = (
        _resampled(found.errors if found.judged is None else found.judged, blocks, weights, mean_error)
        for found in (one, other)
    )
    comparable = np.isfinite(first) & np.isfinite(second)
    return float((first < second)[comparable].mean()) if comparable.any() else 0.0


def _resampled(
    errors: Doubles, blocks: list[Integers], weights: Integers, mean_error: Callable[[Doubles], Any]
) -> Doubles:
    """(resamples,): the mean error of each resample, from the sums of its blocks; NaN where an output has no target."""
    sums = np.stack([np.nansum(errors[block], axis=0) for block in blocks])  # (blocks, outputs)
    counts = np.stack([np.isfinite(errors[block]).sum(axis=0) for block in blocks])
    with np.errstate(invalid="ignore"):  # an output without any target in a resample
        means = (weights @ sums) / (weights @ counts)  # (resamples, outputs)
    return np.array([mean_error(row[None]) if np.isfinite(row).all() else np.nan for row in means])


def _blocks(dataset: Dataset) -> tuple[list[Integers], str]:
    """The validation steps, as positions among them, in blocks that may be taken as independent."""
    steps = dataset.steps("validation")
    streams = dataset.stream_of[steps]
    by_stream = [np.flatnonzero(streams == stream) for stream in np.unique(streams)]
    if len(by_stream) >= _LEAST_STREAMS:
        return by_stream, "streams"
    longest = max(dataset.contract.horizons)
    length = max(-(-len(steps) // _MOST_BLOCKS), 2 * longest)
    if dataset.season and len(steps) >= _LEAST_BLOCKS * dataset.season:
        length = max(length, dataset.season)
    blocks = [own[first : first + length] for own in by_stream for first in range(0, len(own), length)]
    return blocks, "blocks of time"
