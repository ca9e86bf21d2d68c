"""The start of a classifier's linear path at multinomial logistic regression on each step's own inputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.model.forecaster import Forecaster
from edge_lstm_train.recipe.recipe import Recipe

_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of the squared weights of standardized inputs
_MOST_STEPS = 500  # of L-BFGS; it ends sooner where the gradient vanishes


def start_at_logistic(model: Forecaster, dataset: Dataset, recipe: Recipe, refit: bool = False) -> None:
    """Set the linear path's weights and the head's bias to converged logistic regression (Cox 1958), in place.

    Its inputs are the standardized inputs of the step itself; the weights of earlier samples are zero. The penalty is
    the one with the least cross-entropy on the validation part. Where the recipe balances the classes, each step counts
    by its class's weight. With `refit`, once the penalty is known, the weights are fitted again on training and
    validation part.
    """
    shape = model.shape
    x = (torch.from_numpy(dataset.features).double() - model.mean) / model.scale  # (steps, inputs)
    known = np.isfinite(dataset.targets[:, 0])
    truth = torch.from_numpy(np.nan_to_num(dataset.targets).argmax(axis=1))
    train, validation = (steps[known[steps]] for steps in (dataset.steps("train"), dataset.steps("validation")))
    weights = class_weights(dataset, recipe)
    found = list(logistic_path(x[train], truth[train], weights))
    errors = [
        float(F.cross_entropy(x[validation] @ weight + bias, truth[validation], weights)) for weight, bias in found
    ]
    best = int(np.argmin(errors))
    weight, bias = found[best]
    if refit:
        both = dataset.with_validation_in_training().steps("train")
        both = both[known[both]]
        ((weight, bias),) = logistic_path(x[both], truth[both], weights, _PENALTIES[best : best + 1])
    if shape.level_free:
        raise ValueError("expected a linear path with levels for a classifier, found a level-free one")
    scale, offset = model.output_scale.double(), model.output_offset.double()
    with torch.no_grad():
        model.highway.weight.zero_()
        model.highway.weight[:, : shape.inputs] = (weight / scale).T.float()  # the newest sample is first
        model.head.bias[:] = ((bias - offset) / scale).float()


def logistic_path(
    x: Tensor, truth: Tensor, class_weights: Tensor, penalties: tuple[float, ...] = _PENALTIES
) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights (inputs, classes) and biases (classes,) for each penalty, each begun at the one before.

    x (steps, inputs) standardized; truth (steps,) class indices; class_weights (classes,): of a step of each class.
    """
    classes = len(class_weights)
    weight = torch.zeros((x.shape[1], classes), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    for penalty in penalties:
        optimizer = torch.optim.LBFGS(
            [weight, bias], max_iter=_MOST_STEPS, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
        )

        def loss(penalty: float = penalty) -> Tensor:
            value = F.cross_entropy(x @ weight + bias, truth, class_weights) + penalty * (weight**2).sum()
            weight.grad = bias.grad = None
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        yield weight.detach().clone(), bias.detach().clone()


def class_weights(dataset: Dataset, recipe: Recipe) -> Tensor:
    """(classes,): the weight of a step of each class: 1, or its inverse share where the recipe balances the classes."""
    classes = dataset.targets.shape[1]
    if recipe.classify is None or not recipe.classify.balance:
        return torch.ones(classes, dtype=torch.float64)
    share = np.nanmean(dataset.targets[dataset.steps("train")], axis=0)
    return torch.from_numpy(1 / (classes * np.maximum(share, 1e-6)))
