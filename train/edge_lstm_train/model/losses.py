"""What training makes small, task by task, and the streamed validation's figure of the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edge_lstm.foundation.arrays import Doubles
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.recipe.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Objective:
    """A loss for updates, and an error for validations; both see targets that may be unknown (NaN)."""

    loss: Callable[[Tensor, Tensor], Tensor]  # predictions, targets (..., outputs) -> a mean
    error: Callable[[Doubles, Doubles], float]  # predictions, targets (steps, outputs) -> the lower the better


def objective(recipe: Recipe, dataset: Dataset, spread: Doubles) -> Objective:
    """The recipe's. spread (outputs,): each output's typical error in its unit, by which its loss is divided."""
    if recipe.classify is not None:
        return _cross_entropy(recipe, dataset)
    levels = np.array([_quantile(dataset, name) for name, _ in dataset.contract.outputs])
    if np.isnan(levels).all():
        return _squared(recipe, spread)
    return _pinball(recipe, spread, levels)


def _squared(recipe: Recipe, spread: Doubles) -> Objective:
    scale = torch.from_numpy(spread.astype(np.float32))

    def loss(predictions: Tensor, targets: Tensor) -> Tensor:
        known = torch.isfinite(targets)
        error = (predictions - targets.nan_to_num()) / scale.to(predictions.device)
        return (_size(recipe, error) * known).sum() / known.sum().clamp(min=1)

    def error(predictions: Doubles, targets: Doubles) -> float:
        return float((np.sqrt(np.nanmean((predictions - targets) ** 2, axis=0)) / spread).mean())

    return Objective(loss, error)


def _size(recipe: Recipe, error: Tensor) -> Tensor:
    if recipe.fit.loss == "huber":
        return F.huber_loss(error, torch.zeros_like(error), reduction="none")
    return error**2


def _pinball(recipe: Recipe, spread: Doubles, levels: Doubles) -> Objective:
    """Squares for what is expected, and the pinball loss (Koenker & Bassett 1978) for quantiles."""
    scale = torch.from_numpy(spread.astype(np.float32))
    level = torch.from_numpy(np.nan_to_num(levels).astype(np.float32))
    expected = torch.from_numpy(np.isnan(levels))

    def loss(predictions: Tensor, targets: Tensor) -> Tensor:
        known = torch.isfinite(targets)
        device = predictions.device
        below = (targets.nan_to_num() - predictions) / scale.to(device)  # above 0 where the prediction lies below
        tilted = torch.maximum(level.to(device) * below, (level.to(device) - 1) * below)
        each = torch.where(expected.to(device), _size(recipe, below), tilted)
        return (each * known).sum() / known.sum().clamp(min=1)

    def error(predictions: Doubles, targets: Doubles) -> float:
        below = (targets - predictions) / spread
        tilted = np.nanmean(np.maximum(np.nan_to_num(levels) * below, (np.nan_to_num(levels) - 1) * below), axis=0)
        return float(np.where(np.isnan(levels), np.sqrt(np.nanmean(below**2, axis=0)), tilted).mean())

    return Objective(loss, error)


def _cross_entropy(recipe: Recipe, dataset: Dataset) -> Objective:
    assert recipe.classify is not None  # asked for it
    classes, smoothing = len(recipe.classify.classes), recipe.classify.smoothing
    weights = torch.ones(classes)
    if recipe.classify.balance:
        share = np.nanmean(dataset.targets[dataset.steps("train")], axis=0)
        weights = torch.from_numpy((1 / (classes * np.maximum(share, 1e-6))).astype(np.float32))

    def loss(predictions: Tensor, targets: Tensor) -> Tensor:
        known = torch.isfinite(targets[..., 0])
        truth = targets[known]  # (steps, classes): 1 for the class that it is
        weight = (truth * weights.to(truth.device)).sum(dim=1)
        truth = truth * (1 - smoothing) + smoothing / classes
        each = -(truth * F.log_softmax(predictions[known], dim=1)).sum(dim=1)
        return (each * weight).sum() / weight.sum().clamp(min=1e-6)

    def error(predictions: Doubles, targets: Doubles) -> float:
        known = np.isfinite(targets[:, 0])
        logits = predictions[known] - predictions[known].max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return float(-(targets[known] * log_p).sum(axis=1).mean())

    return Objective(loss, error)


def _quantile(dataset: Dataset, name: str) -> float:
    """The level of the quantile of that name; NaN where it is what is expected."""
    contract = dataset.contract
    level_of = {
        said: level
        for target in contract.targets
        for said, level in zip(contract.output_names_of(target), (float("nan"), *contract.quantiles), strict=True)
    }
    return level_of[name]
