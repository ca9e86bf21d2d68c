"""The loss of training and the error of validation, by task: squared or Huber, pinball, cross-entropy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edge_lstm.foundation.arrays import Doubles
from edge_lstm_train.data.batches import share_in_rare_chunks
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.model.logistic_start import class_weights
from edge_lstm_train.recipe.recipe import Recipe


@dataclass(frozen=True, eq=False)
class LossFunctions:
    """A loss for updates and an error for validations; both ignore unknown targets (NaN).

    The error of a part is a mean of step errors, so that it can be computed again for any choice of steps.
    """

    loss: Callable[[Tensor, Tensor], Tensor]  # predictions, targets (..., outputs) -> a mean
    step_errors: Callable[[Doubles, Doubles], Doubles]  # predictions, targets (steps, outputs) -> (steps, outputs)
    mean_error: Callable[[Doubles], float]  # step errors -> the error of a part, lower is better

    def validation_error(self, predictions: Doubles, targets: Doubles) -> float:
        """The error over all steps of predictions and targets (steps, outputs); lower is better."""
        return self.mean_error(self.step_errors(predictions, targets))


def loss_functions(recipe: Recipe, dataset: Dataset, error_scale: Doubles) -> LossFunctions:
    """The functions for the recipe's task.

    error_scale (outputs,): the typical error of each output in its target's unit, by which its loss is divided.
    """
    if recipe.classify is not None:
        return _cross_entropy(recipe, dataset)
    levels = quantile_levels(dataset)
    if np.isnan(levels).all():
        return _squared(recipe, error_scale)
    return _pinball(recipe, error_scale, levels)


def _squared(recipe: Recipe, error_scale: Doubles) -> LossFunctions:
    scale = torch.from_numpy(error_scale.astype(np.float32))

    def loss(predictions: Tensor, targets: Tensor) -> Tensor:
        known = torch.isfinite(targets)
        error = (predictions - targets.nan_to_num()) / scale.to(predictions.device)
        return (_point_loss(recipe, error) * known).sum() / known.sum().clamp(min=1)

    def step_errors(predictions: Doubles, targets: Doubles) -> Doubles:
        squared: Doubles = (predictions - targets) ** 2
        return squared

    def mean_error(errors: Doubles) -> float:
        return float((np.sqrt(np.nanmean(errors, axis=0)) / error_scale).mean())

    return LossFunctions(loss, step_errors, mean_error)


def _point_loss(recipe: Recipe, error: Tensor) -> Tensor:
    if recipe.fit.loss == "huber":
        return F.huber_loss(error, torch.zeros_like(error), reduction="none")
    return error**2


def _pinball(recipe: Recipe, error_scale: Doubles, levels: Doubles) -> LossFunctions:
    """The squared error for expected values, and the pinball loss (Koenker & Bassett 1978) for quantiles."""
    scale = torch.from_numpy(error_scale.astype(np.float32))
    level = torch.from_numpy(np.nan_to_num(levels).astype(np.float32))
    expected = torch.from_numpy(np.isnan(levels))

    def loss(predictions: Tensor, targets: Tensor) -> Tensor:
        known = torch.isfinite(targets)
        device = predictions.device
        below = (targets.nan_to_num() - predictions) / scale.to(device)  # above 0 where the prediction is too low
        tilted = torch.maximum(level.to(device) * below, (level.to(device) - 1) * below)
        each = torch.where(expected.to(device), _point_loss(recipe, below), tilted)
        return (each * known).sum() / known.sum().clamp(min=1)

    def step_errors(predictions: Doubles, targets: Doubles) -> Doubles:
        below = (targets - predictions) / error_scale
        tilted = np.maximum(np.nan_to_num(levels) * below, (np.nan_to_num(levels) - 1) * below)
        return np.where(np.isnan(levels), below**2, tilted)

    def mean_error(errors: Doubles) -> float:
        means = np.nanmean(errors, axis=0)
        return float(np.where(np.isnan(levels), np.sqrt(means), means).mean())

    return LossFunctions(loss, step_errors, mean_error)


def _cross_entropy(recipe: Recipe, dataset: Dataset) -> LossFunctions:
    assert recipe.classify is not None  # the caller checks it
    classes, smoothing = len(recipe.classify.classes), recipe.classify.smoothing
    wanted = class_weights(dataset, recipe)
    weights = wanted.float() / _frequency_in_chunks(recipe, dataset)

    def loss(predictions: Tensor, targets: Tensor) -> Tensor:
        known = torch.isfinite(targets[..., 0])
        truth = targets[known]  # (steps, classes): one-hot
        weight = (truth * weights.to(truth.device)).sum(dim=1)
        truth = truth * (1 - smoothing) + smoothing / classes
        each = -(truth * F.log_softmax(predictions[known], dim=1)).sum(dim=1)
        return (each * weight).sum() / weight.sum().clamp(min=1e-6)

    def step_errors(predictions: Doubles, targets: Doubles) -> Doubles:
        weight = targets @ wanted.numpy()  # (steps,): NaN where unknown
        weight = weight / np.nanmean(weight) if np.nansum(weight) > 0 else np.ones(len(weight))
        return (step_log_losses(predictions, targets) * weight)[:, None]  # (steps, 1)

    def mean_error(errors: Doubles) -> float:
        return float(np.nanmean(errors))

    return LossFunctions(loss, step_errors, mean_error)


def _frequency_in_chunks(recipe: Recipe, dataset: Dataset) -> Tensor:
    """(classes,): how often each class comes in the batches, relative to the training part.

    By its inverse, chunks that are drawn for the rarer classes show them more often without making them more probable.
    """
    assert recipe.classify is not None  # the caller checks it
    drawn = recipe.classify.rare_chunks
    if not drawn:
        return torch.ones(len(recipe.classify.classes))
    share = np.nanmean(dataset.targets[dataset.steps("train")], axis=0)
    mixed = (1 - drawn) * share + drawn * share_in_rare_chunks(dataset, recipe.fit.chunk)
    return torch.from_numpy(np.where(share > 0, mixed / np.maximum(share, 1e-12), 1.0)).float()


def step_log_losses(logits: Doubles, targets: Doubles) -> Doubles:
    """(steps,): the negative log-probability of the true class, NaN where it is unknown.

    logits, targets (steps, classes): one-hot. The uniform guess has log(classes).
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    losses: Doubles = -(targets * log_p).sum(axis=1)
    return losses


def quantile_levels(dataset: Dataset) -> Doubles:
    """(outputs,): the level of each quantile output of the network, NaN for an expected value."""
    return np.array([_quantile(dataset, name) for name, _ in dataset.contract.network_outputs])


def _quantile(dataset: Dataset, name: str) -> float:
    """The level of the quantile output of that name; NaN for an expected value, also of a sine or cosine."""
    contract = dataset.contract
    level_of = {
        output: level
        for target in contract.targets
        for output, level in zip(contract.output_names_of(target), (float("nan"), *contract.quantiles), strict=True)
    }
    return level_of.get(name, float("nan"))
