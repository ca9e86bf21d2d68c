"""The search for weights: AdamW on carried chunks or windows, judged by validations that stream as a device does.

It keeps the best of all validations, the untrained start among them, and so never hands on something worse than that.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edge_lstm.progress import Tick, progress
from edge_lstm_train.dataset import Batch, Dataset, carried_chunks, target_columns, windows
from edge_lstm_train.model import Forecaster, Shape, State
from edge_lstm_train.recipe import FitSection, Recipe
from edge_lstm_train.split import Part

_VALIDATIONS = 8
_WARM_UP = 0.1  # share of the updates in which the learning rate rises
_THREADS = 1  # networks this small lose more to a second thread's hand-over than they gain
_RUNS_AT_ONCE = 64


@dataclass(frozen=True)
class Point:
    """One validation."""

    update: int
    training_loss: float  # mean since the last validation; NaN before the first update
    validation_error: float  # RMSE over the ridge's, mean of all outputs


@dataclass(frozen=True, eq=False)
class Fitted:
    """The best weights found, and how they were found."""

    model: Forecaster
    curve: list[Point] = field(default_factory=list)
    best: int = 0  # the update whose weights these are
    interrupted_at: int | None = None  # the update at which Ctrl-C came
    diverged_at: int | None = None  # the update whose loss was not finite


def fit(recipe: Recipe, dataset: Dataset, spread: NDArray[np.float64]) -> Fitted:
    """Train a network on the dataset's training part; equal arguments give equal weights.

    spread (outputs,): each output's typical error in its target's unit, by which its loss is divided. Ctrl-C or a
    loss that is not finite ends the search early; what was best by then is kept.
    """
    with _repeatable(recipe.fit.seed):
        model = untrained(recipe, dataset, spread)
        search = _Search(model, dataset, spread)
        with progress(recipe.fit.updates, "training") as tick:
            try:
                search.validate(0, math.nan)
                diverged_at = _descend(model, recipe.fit, dataset, spread, search, tick)
                return search.result(diverged_at=diverged_at)
            except KeyboardInterrupt:
                return search.result(interrupted_at=search.update)


def untrained(recipe: Recipe, dataset: Dataset, spread: NDArray[np.float64]) -> Forecaster:
    """The network before its first update: persistence where it predicts changes, else each target's mean."""
    contract = dataset.contract
    section = recipe.model
    model = Forecaster(
        Shape(
            section.cell,
            len(contract.inputs),
            section.hidden,
            section.layers,
            len(contract.outputs),
            section.dropout,
            section.recurrent_dropout,
            section.highway,
            section.level_free,
        )
    )
    features = len(contract.features)
    with torch.no_grad():
        model.mean[:features] = torch.tensor([feature.mean for feature in contract.features])
        model.scale[:features] = torch.tensor([feature.scale for feature in contract.features])
        model.output_scale[:] = torch.from_numpy(spread)
        nn.init.zeros_(model.head.weight)
        nn.init.zeros_(model.head.bias)
        if recipe.forecast.change:
            model.change_of = torch.tensor(target_columns(contract), dtype=torch.int64)
        else:
            model.output_offset[:] = model.mean[target_columns(contract)]
    return model


class _Search:
    """The best weights so far and the way to them."""

    def __init__(self, model: Forecaster, dataset: Dataset, spread: NDArray[np.float64]) -> None:
        self.update = 0
        self._model = model
        self._dataset = dataset
        self._spread = spread
        self._curve: list[Point] = []
        self._best = Point(0, math.nan, math.inf)
        self._weights = copy.deepcopy(model.state_dict())

    def validate(self, update: int, training_loss: float) -> Point:
        predictions = streamed(self._model, self._dataset, "validation")
        chosen = self._dataset.steps("validation")
        error = np.sqrt(np.nanmean((predictions[chosen] - self._dataset.targets[chosen]) ** 2, axis=0))  # (outputs,)
        point = Point(update, training_loss, float((error / self._spread).mean()))
        self._curve.append(point)
        if point.validation_error < self._best.validation_error:
            self._best, self._weights = point, copy.deepcopy(self._model.state_dict())
        return point

    def result(self, interrupted_at: int | None = None, diverged_at: int | None = None) -> Fitted:
        self._model.load_state_dict(self._weights)
        self._model.eval()
        return Fitted(self._model, self._curve, self._best.update, interrupted_at, diverged_at)


def _descend(
    model: Forecaster, section: FitSection, dataset: Dataset, spread: NDArray[np.float64], search: _Search, tick: Tick
) -> int | None:
    """All the updates, with a validation after every eighth of them. Returns the update whose loss was not finite."""
    optimizer = torch.optim.AdamW(model.parameters(), section.learning_rate, weight_decay=section.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, section.learning_rate, total_steps=max(2, section.updates), pct_start=_WARM_UP
    )
    scale = torch.from_numpy(spread.astype(np.float32))
    marks = {math.ceil(section.updates * part / _VALIDATIONS) for part in range(1, _VALIDATIONS + 1)}
    losses: list[float] = []
    state: State | None = None
    for update, batch in zip(range(1, section.updates + 1), _batches(dataset, section), strict=False):
        search.update = update
        model.train()
        predictions, state = _carry(model, batch, state)
        loss = _loss(section, predictions, torch.from_numpy(batch.targets), scale)
        if not math.isfinite(loss.item()):
            return update
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), section.clip)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        text = ""
        if update in marks:
            point = search.validate(update, float(np.mean(losses)))
            text = f"loss {point.training_loss:.3f}  validation {point.validation_error:.3f}"
            losses.clear()
        tick(text)
    return None


def _batches(dataset: Dataset, section: FitSection) -> Iterator[Batch]:
    random = np.random.default_rng(section.seed)
    if section.method == "windows":
        assert section.window is not None  # the recipe says so
        return windows(dataset, section.window, section.segments, random)
    return carried_chunks(dataset, section.segments, section.chunk, random)


def _carry(model: Forecaster, batch: Batch, state: State | None) -> tuple[Tensor, State]:
    """Predictions (segments, steps, outputs) and the state after them, cut off from what came before the batch.

    The fused kernel cannot restart a state midway, so the batch goes in pieces that begin where any segment restarts.
    """
    features = torch.from_numpy(batch.features)
    segments, steps = batch.restart.shape
    if state is None or state[0].shape[1] != segments:
        state = model.initial_state(segments)
    state = [tensor.detach() for tensor in state]
    cuts = sorted({0, *np.flatnonzero(batch.restart.any(axis=0)).tolist()})
    pieces = []
    for first, last in zip(cuts, [*cuts[1:], steps], strict=True):
        stays = torch.from_numpy(~batch.restart[:, first].copy()).to(torch.float32)[:, None]  # (segments, 1)
        state = [tensor * stays for tensor in state]  # (layers, segments, hidden)
        prediction, state = model(features[:, first:last], state)
        pieces.append(prediction)
    return torch.cat(pieces, dim=1), state


def _loss(section: FitSection, predictions: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    known = torch.isfinite(targets)
    error = (predictions - targets.nan_to_num()) / scale  # (segments, steps, outputs)
    each = F.huber_loss(error, torch.zeros_like(error), reduction="none") if section.loss == "huber" else error**2
    return each[known].sum() / known.sum().clamp(min=1)


def streamed(model: Forecaster, dataset: Dataset, last: Part = "test") -> NDArray[np.float64]:
    """(steps, outputs): what the network says at every step up to the end of the part `last`, its state carried.

    The same as one step at a time, in the kernel that takes whole sequences; NaN after that part in each stream.
    """
    predictions = np.full(dataset.targets.shape, np.nan)
    needed = dataset.until(last)
    begins = np.flatnonzero(dataset.restart)
    runs = np.split(np.arange(len(dataset)), begins[1:])
    runs = [run[needed[run]] for run in runs]
    runs = sorted((run for run in runs if run.size), key=len)
    model.eval()
    with torch.no_grad():
        for first in range(0, len(runs), _RUNS_AT_ONCE):
            group = runs[first : first + _RUNS_AT_ONCE]
            features = np.zeros((len(group), len(group[-1]), dataset.features.shape[1]), np.float32)
            for row, run in zip(features, group, strict=True):
                row[: len(run)] = dataset.features[run]
            said, _ = model(torch.from_numpy(features), model.initial_state(len(group)))
            for row, run in zip(said.numpy(), group, strict=True):
                predictions[run] = row[: len(run)]
    return predictions


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Torch seeded, on one thread and held to deterministic kernels; afterwards as the caller had it."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(_THREADS)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)
