"""Multinomial logistic regression on each step's own inputs: a classifier's linear path starts there and stays.

It is fitted on augmented copies of the recording too, since a linear path that has seen one strap position or one pace
alone gives the wrong class with certainty at another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edge_lstm.foundation.arrays import Floats
from edge_lstm_train.data.augment import augmented_copy
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.group_folds import group_folds
from edge_lstm_train.model.forecaster import Forecaster
from edge_lstm_train.model.input_statistics import input_statistics
from edge_lstm_train.recipe.recipe import Recipe

_PENALTIES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4, 1e-5)  # of the squared weights of standardized inputs
_COPIES = 4  # augmented copies beside the recording itself
_MOST_ROWS = 30_000  # more steps are thinned: neighbours are nearly alike
_ROWS_OF_A_CHOICE = 15_000
_MOST_STEPS = 500  # of L-BFGS; it ends sooner where the gradient vanishes
_SEED = 1


@dataclass(frozen=True, eq=False)
class Logistic:
    """Weights (inputs, classes) and biases (classes,) of standardized inputs."""

    mean: Floats  # (inputs,)
    scale: Floats  # (inputs,)
    weight: Tensor
    bias: Tensor

    def logits(self, features: Floats) -> Tensor:
        """Features (steps, inputs) -> (steps, classes)."""
        return torch.from_numpy((features - self.mean) / self.scale).double() @ self.weight + self.bias


def start_at_logistic(
    model: Forecaster, dataset: Dataset, recipe: Recipe, refit: bool = False, penalty: float | None = None
) -> None:
    """Set the linear path's weights and the head's bias to logistic regression (Cox 1958), and fix them, in place.

    Its inputs are the standardized inputs of the step itself; the weights of earlier samples are zero. `penalty`: None
    for the best by `chosen_penalty`. With `refit`, training and validation part are fitted together.
    """
    shape = model.shape
    if shape.level_free:
        raise ValueError("expected a linear path with levels for a classifier, found a level-free one")
    penalty = chosen_penalty(recipe, dataset) if penalty is None else penalty
    found = logistic_regression(recipe, dataset.with_validation_in_training() if refit else dataset, penalty)
    # the model standardizes by its own statistics
    factor = model.scale.double() / torch.from_numpy(found.scale).double()
    shift = (model.mean.double() - torch.from_numpy(found.mean).double()) / torch.from_numpy(found.scale).double()
    scale, offset = model.output_scale.double(), model.output_offset.double()
    with torch.no_grad():
        model.highway.weight.zero_()
        model.highway.weight[:, : shape.inputs] = ((found.weight * factor[:, None]) / scale).T.float()  # newest first
        model.head.bias[:] = ((found.bias + shift @ found.weight - offset) / scale).float()
    # Left free, the path would follow the people that it is trained on and lose what the penalty kept for others.
    model.highway.weight.requires_grad_(False)
    model.head.bias.requires_grad_(False)


def logistic_regression(recipe: Recipe, dataset: Dataset, penalty: float) -> Logistic:
    """Converged logistic regression on the training part, and on augmented copies where the recipe augments runs."""
    weight, bias = _path(*_rows(recipe, dataset, _MOST_ROWS), class_weights(dataset, recipe), (penalty,))[-1]
    return Logistic(*input_statistics(dataset), weight, bias)


def chosen_penalty(recipe: Recipe, dataset: Dataset) -> float:
    """The penalty with the least cross-entropy on groups left out in turn, or else on the validation part.

    Over groups, it is the largest penalty within one standard error of the best (Breiman et al. 1984): the best one
    follows the groups that happen to be there.
    """
    folds = [fold.dataset for fold in group_folds(recipe, dataset)] or [dataset]
    table = np.array([_errors(recipe, fold) for fold in folds])  # (folds, penalties)
    worse = table - table[:, [int(table.mean(axis=0).argmin())]]
    noise = worse.std(axis=0, ddof=1) / math.sqrt(len(folds)) if len(folds) > 1 else np.zeros(len(_PENALTIES))
    return _PENALTIES[int(np.flatnonzero(worse.mean(axis=0) <= noise)[0])]


def _errors(recipe: Recipe, dataset: Dataset) -> list[float]:
    """The cross-entropy on the validation part for each penalty."""
    mean, scale = input_statistics(dataset)
    steps = dataset.steps("validation")
    steps = steps[np.isfinite(dataset.targets[steps, 0])]
    x = torch.from_numpy((dataset.features[steps] - mean) / scale).double()
    truth = torch.from_numpy(dataset.targets[steps].argmax(axis=1))
    weights = class_weights(dataset, recipe)
    found = _path(*_rows(recipe, dataset, _ROWS_OF_A_CHOICE), weights, _PENALTIES, tolerance=1e-4)
    weights = weights if weights[truth].any() else torch.ones_like(weights)  # only classes that training never saw
    return [float(F.cross_entropy(x @ weight + bias, truth, weights)) for weight, bias in found]


def _rows(recipe: Recipe, dataset: Dataset, most: int) -> tuple[Tensor, Tensor]:
    """Standardized inputs (rows, inputs) and classes (rows,) of the training part and its augmented copies.

    Inputs that bypass the layers are zeros, and so get no weight: a level that drifts, or the number of a category.
    """
    mean, scale = input_statistics(dataset)
    hidden = np.flatnonzero(recipe.bypasses_layers)
    copies = [(dataset.features, dataset.targets)]
    random = np.random.default_rng(_SEED)
    for _ in range(_COPIES):
        if (copy := augmented_copy(recipe.augment, dataset, random)) is not None:
            copies.append(copy)
    train = dataset.steps("train")
    every = max(1, len(train) * len(copies) // most)
    x, truth = [], []
    for place, (features, targets) in enumerate(copies):
        steps = train[place % every :: every]
        steps = steps[np.isfinite(targets[steps, 0])]
        x.append((features[steps] - mean) / scale)
        x[-1][:, hidden] = 0.0
        truth.append(targets[steps].argmax(axis=1))
    return torch.from_numpy(np.concatenate(x)).double(), torch.from_numpy(np.concatenate(truth))


def _path(
    x: Tensor, truth: Tensor, class_weights: Tensor, penalties: Sequence[float], tolerance: float = 1e-6
) -> list[tuple[Tensor, Tensor]]:
    """Weights (inputs, classes) and biases (classes,) for each penalty, each begun at the one before.

    x (steps, inputs) standardized; truth (steps,) class indices; class_weights (classes,): of a step of each class.
    """
    classes = len(class_weights)
    weight = torch.zeros((x.shape[1], classes), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    found = []
    for penalty in penalties:
        optimizer = torch.optim.LBFGS(
            [weight, bias], max_iter=_MOST_STEPS, tolerance_grad=tolerance, line_search_fn="strong_wolfe"
        )

        def loss(penalty: float = penalty) -> Tensor:
            value = F.cross_entropy(x @ weight + bias, truth, class_weights) + penalty * (weight**2).sum()
            weight.grad = bias.grad = None
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        found.append((weight.detach().clone(), bias.detach().clone()))
    return found


def class_weights(dataset: Dataset, recipe: Recipe) -> Tensor:
    """(classes,): the weight of a step of each class: 1, or its inverse share where the recipe balances the classes.

    A class that is absent from the training part has the weight 0.
    """
    classes = dataset.targets.shape[1]
    if recipe.classify is None or not recipe.classify.balance:
        return torch.ones(classes, dtype=torch.float64)
    share = np.nanmean(dataset.targets[dataset.steps("train")], axis=0)
    weights = np.where(share > 0, 1 / (np.count_nonzero(share) * np.maximum(share, 1e-12)), 0.0)
    return torch.from_numpy(weights)
