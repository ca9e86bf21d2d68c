"""Training: AdamW on carried chunks or windows, and the choice of the best weights by streamed validations.

The initial model is one of the candidates, so the result is never worse than it on the validation part.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edge_lstm.foundation.arrays import Doubles, Floats
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.progress import Tick, progress
from edge_lstm_train.data.augment import Noise, RunAugmentation
from edge_lstm_train.data.batches import Batch, carried_chunks, cropped_runs, windows, with_rare_chunks
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.model.carried_state import forward_batch
from edge_lstm_train.model.forecaster import Forecaster, State
from edge_lstm_train.model.initial_model import initial_model
from edge_lstm_train.model.linear_start import LinearFits
from edge_lstm_train.model.losses import LossFunctions, loss_functions
from edge_lstm_train.model.training_progress import PROGRESS_FILE, TrainingProgress, Validation
from edge_lstm_train.recipe.recipe import Recipe

_VALIDATIONS = 8
_WARM_UP = 0.1  # share of the updates in which the learning rate rises
_THREADS = 1  # with networks this small, a second thread costs more than it saves


@dataclass(frozen=True, eq=False)
class Fitted:
    """The best weights found, and how the training went."""

    model: Forecaster
    curve: list[Validation] = field(default_factory=list)
    best: int = 0  # the update of the best weights
    interrupted_at: int | None = None  # the update at which Ctrl-C came
    diverged_at: int | None = None  # the update whose loss was not finite
    refitted: bool = False  # whether the weights were trained again on training and validation part together
    validated: Forecaster | None = None  # if so, the model before that, which has not learned from the validation part

    @property
    def judged(self) -> Forecaster:
        """The model whose errors on the validation part are those of steps that it has not learned from."""
        return self.model if self.validated is None else self.validated


def fit(
    recipe: Recipe,
    dataset: Dataset,
    error_scale: Doubles,
    *,
    device: str = "cpu",
    run_dir: Path | None = None,
    resume: bool = False,
    linear: LinearFits | None = None,
    progress_file: str = PROGRESS_FILE,
) -> Fitted:
    """Train a network on the dataset's training part; equal arguments give equal weights.

    error_scale (outputs,): the typical error of each output in its target's unit, by which its loss is divided.
    linear: the start of the network's linear path; None: that of the recipe. A network without layers is its start.
    Ctrl-C or a loss that is not finite ends the training early, and the best weights so far are kept. Each validation
    saves the progress as `progress_file` in `run_dir`; with `resume`, training continues from there with the same
    result. With `refit` in the recipe, a new network is then trained on training and validation part together, with the
    same schedule, for as many updates as were best.

    Raises EdgeLstmError if the device is missing, or if the saved progress is of another recipe or recording.
    """
    with reproducible(recipe.fit.seed):
        model = initial_model(recipe, dataset, error_scale, linear=linear).to(torch_device(device))
        losses = loss_functions(recipe, dataset, error_scale)
        training = TrainingProgress(model, dataset, losses.validation_error, recipe, run_dir, progress_file)
        if not model.shape.layers:
            training.validate(0, math.nan)
            found = _best(model, training)
            return _refitted(found, recipe, dataset, error_scale, device, linear) if recipe.fit.refit else found
        resumed = resume and training.resume()
        with progress(recipe.fit.updates, "training", training.update) as tick:
            try:
                if not resumed:
                    training.validate(0, math.nan)
                diverged_at = run_updates(model, recipe, dataset, losses, training, tick)
                found = _best(model, training, diverged_at=diverged_at)
            except KeyboardInterrupt:
                return _best(model, training, interrupted_at=training.update)
        if not recipe.fit.refit or diverged_at is not None:
            return found
        return _refitted(found, recipe, dataset, error_scale, device, linear)


def refitted(
    found: Fitted,
    recipe: Recipe,
    dataset: Dataset,
    error_scale: Doubles,
    *,
    device: str = "cpu",
    linear: LinearFits | None = None,
) -> Fitted:
    """The result of `fit` with a new network trained on training and validation part, for as many updates as were best.

    It is unchanged if a loss is not finite on the way, and after Ctrl-C.
    """
    with reproducible(recipe.fit.seed):
        return _refitted(found, recipe, dataset, error_scale, device, linear)


def _best(
    model: Forecaster, training: TrainingProgress, interrupted_at: int | None = None, diverged_at: int | None = None
) -> Fitted:
    model.load_state_dict(training.best_weights)
    model.to("cpu").eval()
    return Fitted(model, training.curve, training.best.update, interrupted_at, diverged_at)


def _refitted(
    found: Fitted,
    recipe: Recipe,
    dataset: Dataset,
    error_scale: Doubles,
    device: str,
    linear: LinearFits | None,
) -> Fitted:
    torch.manual_seed(recipe.fit.seed)  # the same initial weights as in the training before
    model = initial_model(recipe, dataset, error_scale, refit=True, linear=linear).to(torch_device(device))
    losses = loss_functions(recipe, dataset, error_scale)
    training = TrainingProgress(model, dataset, losses.validation_error, recipe, None)
    both = dataset.with_validation_in_training()
    diverged_at = None
    if model.shape.layers:
        with progress(found.best, "training on both parts") as tick:
            try:
                diverged_at = run_updates(model, recipe, both, losses, training, tick, until=found.best)
            except KeyboardInterrupt:
                return dataclasses.replace(found, interrupted_at=recipe.fit.updates)
    if diverged_at is None and not all(torch.isfinite(weights).all() for weights in model.state_dict().values()):
        diverged_at = found.best  # the last gradient was not finite, and no loss follows that would show it
    if diverged_at is not None:
        return dataclasses.replace(found, diverged_at=diverged_at)
    model.to("cpu").eval()
    return dataclasses.replace(found, model=model, refitted=True, validated=found.model)


def torch_device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise EdgeLstmError(
            f"expected a CUDA device that torch {torch.__version__} can use, found none", "train with --device cpu"
        )
    if name == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is not reproducible without it
    return torch.device(name)


def run_updates(
    model: Forecaster,
    recipe: Recipe,
    dataset: Dataset,
    losses: LossFunctions,
    training: TrainingProgress,
    tick: Tick,
    until: int | None = None,
) -> int | None:
    """All updates, with a validation after each eighth of them; or the updates up to `until`, without validations.

    Returns the update whose loss was not finite, or None.
    """
    section = recipe.fit
    rate, decay = section.learning_rate, section.weight_decay
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(trained, rate, weight_decay=decay, fused=True)
    schedule = _schedule(recipe, optimizer)
    validated = {math.ceil(section.updates * part / _VALIDATIONS) for part in range(1, _VALIDATIONS + 1)}
    validated, last = (validated, section.updates) if until is None else (set(), until)
    since_validation: list[float] = []  # losses
    state: State | None = None
    if training.resumed:
        optimizer.load_state_dict(training.resumed["optimizer"])
        schedule.load_state_dict(training.resumed["schedule"])
        state = training.resumed["state"]
    done = training.update
    batches = _batches(dataset, recipe, model.scale.cpu().numpy(), model.seen.cpu().numpy())
    for update, batch in zip(range(1, last + 1), batches, strict=False):
        if update <= done:
            continue  # before the update that the training was resumed from
        training.update = update
        model.train()
        predictions, state = forward_batch(model, batch, state)
        loss = losses.loss(predictions, torch.from_numpy(batch.targets).to(predictions.device))
        if not math.isfinite(loss.item()):
            return update
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, section.clip)
        optimizer.step()
        schedule.step()
        since_validation.append(loss.item())
        text = ""
        if update in validated:
            validation = training.validate(update, float(np.mean(since_validation)))
            text = f"loss {validation.training_loss:.3f}  validation {validation.validation_error:.3f}"
            since_validation.clear()
            training.save(optimizer, schedule, state)
        tick(text)
    return None


def _schedule(recipe: Recipe, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate by update: one cycle (Smith & Topin 2019) or a cosine (Loshchilov & Hutter 2017)."""
    section = recipe.fit
    if section.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, section.updates)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, section.learning_rate, total_steps=max(2, section.updates), pct_start=_WARM_UP
    )


def _batches(dataset: Dataset, recipe: Recipe, scale: Floats, seen: Floats) -> Iterator[Batch]:
    """Endless batches as the recipe wants them; scale and seen (inputs,) are those of the network."""
    section = recipe.fit
    random = np.random.default_rng(section.seed)
    augment = RunAugmentation(recipe.augment, dataset.contract) or None
    if section.method == "windows":
        assert section.window is not None  # the recipe's faults() requires it
        batches = windows(dataset, section.window, section.segments, random)
        batches = batches if augment is None else (augment(batch, random) for batch in batches)
    else:
        rare = 0.0 if recipe.classify is None else recipe.classify.rare_chunks
        rows = math.ceil(rare * section.segments)
        cut = cropped_runs if recipe.augment.crop else carried_chunks
        batches = cut(dataset, max(1, section.segments - rows), section.chunk, random, augment)
        batches = with_rare_chunks(batches, dataset, rows, random, augment) if rows else batches
    if not recipe.augment.noise:
        return batches
    noise = Noise.of(recipe.augment, dataset.contract, scale, seen)
    return (noise(batch, random) for batch in batches)


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seeds torch, with one thread and deterministic kernels; restores the caller's settings afterwards."""
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
