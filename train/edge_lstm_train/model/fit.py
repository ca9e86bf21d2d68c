"""The search for weights: AdamW on carried chunks or windows, judged by validations that stream as a device does.

It keeps the best of all validations, the untrained start among them, and so never hands on something worse than that.
Where the recipe says so, what was best then learns anew from the validation part as well.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import math
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge_lstm.foundation.arrays import Doubles, Floats
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.files import write_file
from edge_lstm.foundation.progress import Tick, progress
from edge_lstm_train.data.augment import AugmentedRuns, Noise
from edge_lstm_train.data.batches import Batch, carried_chunks, cropped_runs, windows
from edge_lstm_train.data.dataset import Dataset, target_columns
from edge_lstm_train.data.split import Part
from edge_lstm_train.model.forecaster import Forecaster, Shape, State
from edge_lstm_train.model.losses import Objective, objective
from edge_lstm_train.model.ridge_start import started_at_ridge
from edge_lstm_train.recipe.recipe import Recipe

_VALIDATIONS = 8
_WARM_UP = 0.1  # share of the updates in which the learning rate rises
_THREADS = 1  # networks this small lose more to a second thread's hand-over than they gain
_RUNS_AT_ONCE = 64
PROGRESS = "progress.pt"


@dataclass(frozen=True)
class Point:
    """One validation."""

    update: int
    training_loss: float  # mean since the last validation; NaN before the first update
    validation_error: float  # by task: RMSE over the ridge's (mean of all outputs), or cross-entropy


@dataclass(frozen=True, eq=False)
class Fitted:
    """The best weights found, and how they were found."""

    model: Forecaster
    curve: list[Point] = field(default_factory=list)
    best: int = 0  # the update whose weights these are
    interrupted_at: int | None = None  # the update at which Ctrl-C came
    diverged_at: int | None = None  # the update whose loss was not finite
    refitted: bool = False  # whether the weights were learned anew from the validation part as well


def fit(
    recipe: Recipe,
    dataset: Dataset,
    spread: Doubles,
    *,
    device: str = "cpu",
    run_dir: Path | None = None,
    resume: bool = False,
) -> Fitted:
    """Train a network on the dataset's training part; equal arguments give equal weights.

    spread (outputs,): each output's typical error in its target's unit, by which its loss is divided. Ctrl-C or a
    loss that is not finite ends the search early; what was best by then is kept. At each validation all of the search
    goes into `run_dir`, and with `resume` it goes on from there to what it would have come to. Where the recipe says
    `refit`, a network learns anew from training and validation part together, along the same schedule, for as many
    updates as were best.

    Raises EdgeLstmError where the device is not here, or what is there to resume is of another recipe.
    """
    with _repeatable(recipe.fit.seed):
        model = untrained(recipe, dataset, spread).to(_device(device))
        search = _Search(model, dataset, objective(recipe, dataset, spread), recipe, run_dir)
        resumed = resume and search.resumed()
        with progress(recipe.fit.updates, "training", search.update) as tick:
            try:
                if not resumed:
                    search.validate(0, math.nan)
                diverged_at = _descend(model, recipe, dataset, search, tick)
                found = search.result(diverged_at=diverged_at)
            except KeyboardInterrupt:
                return search.result(interrupted_at=search.update)
        if not recipe.fit.refit or diverged_at is not None:
            return found
        with progress(found.best, "training on both parts") as tick:
            try:
                return _refitted(found, recipe, dataset, spread, device, tick)
            except KeyboardInterrupt:
                return dataclasses.replace(found, interrupted_at=recipe.fit.updates)


def _refitted(found: Fitted, recipe: Recipe, dataset: Dataset, spread: Doubles, device: str, tick: Tick) -> Fitted:
    """What was found, its weights learned anew; as they were where the loss was not finite on the way."""
    torch.manual_seed(recipe.fit.seed)  # from the start that led to what was found
    model = untrained(recipe, dataset, spread, refit=True).to(_device(device))
    search = _Search(model, dataset, objective(recipe, dataset, spread), recipe, None)
    diverged_at = _descend(model, recipe, dataset.together(), search, tick, until=found.best)
    if diverged_at is None and not all(torch.isfinite(weights).all() for weights in model.state_dict().values()):
        diverged_at = found.best  # the last gradient was not finite, and no loss comes after it
    if diverged_at is not None:
        return dataclasses.replace(found, diverged_at=diverged_at)
    model.to("cpu").eval()
    return dataclasses.replace(found, model=model, refitted=True)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise EdgeLstmError(
            f"expected a CUDA device that torch {torch.__version__} can use, found none", "train with --device cpu"
        )
    if name == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not repeatable
    return torch.device(name)


def untrained(recipe: Recipe, dataset: Dataset, spread: Doubles, *, refit: bool = False) -> Forecaster:
    """The network before its first update: the highway's ridge, or else persistence, each target's mean, or how
    frequent each class is. With `refit` the ridge is that of training and validation part together."""
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
            section.learned_start,
        )
    )
    train = dataset.steps("train")
    mean, scale = input_statistics(dataset)
    with torch.no_grad():
        model.mean[:] = torch.from_numpy(mean)
        model.scale[:] = torch.from_numpy(scale)
        model.seen[: len(recipe.unseen)] = torch.tensor([not unseen for unseen in recipe.unseen]).float()
        model.output_scale[:] = torch.from_numpy(_head_unit(recipe, dataset, spread))
        nn.init.zeros_(model.head.weight)
        nn.init.zeros_(model.head.bias)
        if recipe.change:
            model.change_of = torch.tensor(target_columns(contract), dtype=torch.int64)
        else:
            usual = np.nanmean(dataset.targets[train], axis=0)
            usual = np.log(np.maximum(usual, 1e-4)) if recipe.classify is not None else usual
            model.output_offset[:] = torch.from_numpy(usual)
        if section.highway and recipe.classify is None:
            started_at_ridge(model, dataset, refit)
    return model


def _head_unit(recipe: Recipe, dataset: Dataset, spread: Doubles) -> Doubles:
    """(outputs,): what a one at the head is in each target's unit, about the size of what the head has to say.

    Beside a highway, or added to the newest value, that is what a ridge leaves. Without either the head says all of its
    target: in the ridge's small unit its weights would have to grow by more than the updates carry them.
    """
    if recipe.classify is not None or recipe.change or recipe.model.highway:
        return spread
    return np.maximum(np.nanstd(dataset.targets[dataset.steps("train")], axis=0), spread)


def input_statistics(dataset: Dataset) -> tuple[Floats, Floats]:
    """Mean and standard deviation (inputs,) that the network standardizes by; 0 and 1 for masks, classes and clock."""
    contract = dataset.contract
    inputs = contract.inputs
    mean, scale = np.zeros(len(inputs), np.float32), np.ones(len(inputs), np.float32)
    features = dataset.features[dataset.steps("train")]
    for column, feature in enumerate(contract.features):
        mean[column], scale[column] = feature.mean, feature.scale
        for text in feature.derived:
            at = inputs.index(f"{feature.name} {text}")
            values = features[:, at].astype(np.float64)
            mean[at] = values.mean()
            scale[at] = values.std() if values.std() > 1e-6 * feature.scale else feature.scale
    if "elapsed" in inputs:
        values = features[:, inputs.index("elapsed")].astype(np.float64)
        mean[-1], scale[-1] = values.mean(), max(values.std(), 1e-3)
    return mean, scale


class _Search:
    """The best weights so far and the way to them."""

    def __init__(
        self, model: Forecaster, dataset: Dataset, aim: Objective, recipe: Recipe, run_dir: Path | None
    ) -> None:
        self.update = 0
        self.aim = aim
        self.extra: dict[str, Any] = {}  # of the optimizer, where the search was resumed
        self._model = model
        self._dataset = dataset
        self._recipe = repr(recipe)
        self._run_dir = run_dir
        self._curve: list[Point] = []
        self._best = Point(0, math.nan, math.inf)
        self._weights = copy.deepcopy(model.state_dict())

    def validate(self, update: int, training_loss: float) -> Point:
        predictions = streamed(self._model, self._dataset, "validation")
        chosen = self._dataset.steps("validation")
        point = Point(update, training_loss, self.aim.error(predictions[chosen], self._dataset.targets[chosen]))
        self._curve.append(point)
        if point.validation_error < self._best.validation_error:
            self._best, self._weights = point, copy.deepcopy(self._model.state_dict())
        return point

    def result(self, interrupted_at: int | None = None, diverged_at: int | None = None) -> Fitted:
        self._model.load_state_dict(self._weights)
        self._model.to("cpu").eval()
        return Fitted(self._model, self._curve, self._best.update, interrupted_at, diverged_at)

    def keep(self, optimizer: Any, schedule: Any, state: State | None) -> None:
        """Write down all that the search needs to go on from here."""
        if self._run_dir is None:
            return
        content = {
            "recipe": self._recipe,
            "recording": _digest(self._dataset),
            "update": self.update,
            "curve": [(point.update, point.training_loss, point.validation_error) for point in self._curve],
            "best": self._best.update,
            "best_weights": self._weights,
            "weights": self._model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "state": state,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if self._model.mean.is_cuda else None,  # draws its dropout
        }
        file = io.BytesIO()
        torch.save(content, file)
        write_file(self._run_dir / PROGRESS, file.getvalue())

    def resumed(self) -> bool:
        """Whether there was something to go on from, and all is as it was then."""
        assert self._run_dir is not None  # who resumes says where
        path = self._run_dir / PROGRESS
        if not path.exists():
            return False
        try:
            content = torch.load(path, map_location=self._model.mean.device, weights_only=True)
            content["update"]
        except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError):
            raise EdgeLstmError(
                f"expected the progress of a search at {path}, found another kind of file", "train without --resume"
            ) from None
        for what, now in (("recipe", self._recipe), ("recording", _digest(self._dataset))):
            if content.get(what) != now:
                raise EdgeLstmError(
                    f"{path}: expected the progress of this {what}, found that of another one",
                    f"train without --resume, or into another folder than {self._run_dir}",
                )
        self.update = content["update"]
        self._curve = [Point(*one) for one in content["curve"]]
        self._best = next(point for point in self._curve if point.update == content["best"])
        self._weights = content["best_weights"]
        self._model.load_state_dict(content["weights"])
        torch.set_rng_state(content["random"].cpu())
        if self._model.mean.is_cuda and content.get("random_cuda") is not None:
            torch.cuda.set_rng_state(content["random_cuda"].cpu())
        self.extra = content
        return True


def _digest(dataset: Dataset) -> str:
    """Tells datasets apart: a state of the search goes with one."""
    digest = hashlib.sha256(np.ascontiguousarray(dataset.features).data)
    digest.update(np.ascontiguousarray(dataset.targets).data)
    return digest.hexdigest()


def _descend(
    model: Forecaster, recipe: Recipe, dataset: Dataset, search: _Search, tick: Tick, until: int | None = None
) -> int | None:
    """All the updates, with a validation after every eighth of them, or those `until` one, without any.

    Returns the update whose loss was not finite.
    """
    section = recipe.fit
    rate, decay = section.learning_rate, section.weight_decay
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=max(2, section.updates), pct_start=_WARM_UP
    )
    marks = {math.ceil(section.updates * part / _VALIDATIONS) for part in range(1, _VALIDATIONS + 1)}
    marks, last = (marks, section.updates) if until is None else (set(), until)
    losses: list[float] = []
    state: State | None = None
    if search.extra:
        optimizer.load_state_dict(search.extra["optimizer"])
        schedule.load_state_dict(search.extra["schedule"])
        state = search.extra["state"]
    done = search.update
    batches = _batches(dataset, recipe, model.scale.cpu().numpy(), model.seen.cpu().numpy())
    for update, batch in zip(range(1, last + 1), batches, strict=False):
        if update <= done:
            continue  # what came before the search was resumed
        search.update = update
        model.train()
        predictions, state = carried(model, batch, state)
        loss = search.aim.loss(predictions, torch.from_numpy(batch.targets).to(predictions.device))
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
            search.keep(optimizer, schedule, state)
        tick(text)
    return None


def _batches(dataset: Dataset, recipe: Recipe, scale: Floats, seen: Floats) -> Iterator[Batch]:
    section = recipe.fit
    random = np.random.default_rng(section.seed)
    worn = AugmentedRuns(recipe.augment, dataset.contract) or None
    if section.method == "windows":
        assert section.window is not None  # the recipe says so
        batches = windows(dataset, section.window, section.segments, random)
        batches = batches if worn is None else (worn(batch, random) for batch in batches)
    elif recipe.augment.crop:
        batches = cropped_runs(dataset, section.segments, section.chunk, random, worn)
    else:
        batches = carried_chunks(dataset, section.segments, section.chunk, random, worn)
    if not recipe.augment.noise:
        return batches
    noise = Noise.of(recipe.augment, dataset.contract, scale, seen)
    return (noise(batch, random) for batch in batches)


def carried(model: Forecaster, batch: Batch, state: State | None) -> tuple[Tensor, State]:
    """Predictions (segments, steps, outputs) and the state after them, cut off from what came before the batch.

    The fused kernel cannot restart a state midway, so the batch goes in pieces that begin where any segment restarts.
    """
    device = model.mean.device
    features = torch.from_numpy(batch.features).to(device)
    segments, steps = batch.restart.shape
    start = model.initial_state(segments)
    if state is None or state[0].shape[1] != segments:
        state = start
    state = [tensor.detach() for tensor in state]
    cuts = sorted({0, *np.flatnonzero(batch.restart.any(axis=0)).tolist()})
    pieces = []
    for first, last in zip(cuts, [*cuts[1:], steps], strict=True):
        anew = torch.from_numpy(batch.restart[:, first].copy()).to(device)[:, None]  # (segments, 1)
        state = [torch.where(anew, fresh, tensor) for fresh, tensor in zip(start, state, strict=True)]
        prediction, state = model(features[:, first:last], state)
        pieces.append(prediction)
    return torch.cat(pieces, dim=1), state


def streamed(model: Forecaster, dataset: Dataset, last: Part = "test") -> Doubles:
    """(steps, outputs): what the network says at every step up to the end of the part `last`, its state carried.

    The same as one step at a time, in the kernel that takes whole sequences; NaN after that part in each stream.
    """
    predictions = np.full(dataset.targets.shape, np.nan)
    needed = dataset.until(last)
    begins = np.flatnonzero(dataset.restart)
    runs = np.split(np.arange(len(dataset)), begins[1:])
    runs = [run[needed[run]] for run in runs]
    runs = sorted((run for run in runs if run.size), key=len)
    device = model.mean.device
    model.eval()
    with torch.no_grad():
        for first in range(0, len(runs), _RUNS_AT_ONCE):
            group = runs[first : first + _RUNS_AT_ONCE]
            features = np.zeros((len(group), len(group[-1]), dataset.features.shape[1]), np.float32)
            for row, run in zip(features, group, strict=True):
                row[: len(run)] = dataset.features[run]
            state = [tensor.contiguous() for tensor in model.initial_state(len(group))]
            said, _ = model(torch.from_numpy(features).to(device), state)
            for row, run in zip(said.cpu().numpy(), group, strict=True):
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
