"""The network before its first update: output scale, and a start as good as a simple baseline."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edge_lstm.foundation.arrays import Doubles
from edge_lstm_train.data.dataset import Dataset, target_columns
from edge_lstm_train.model.forecaster import Forecaster, Shape
from edge_lstm_train.model.input_statistics import input_statistics
from edge_lstm_train.model.linear_start import LinearFits, start_at
from edge_lstm_train.model.logistic_start import start_at_logistic
from edge_lstm_train.model.losses import quantile_levels
from edge_lstm_train.model.ridge import is_forecast
from edge_lstm_train.model.ridge_start import start_at_ridge
from edge_lstm_train.recipe.recipe import Recipe


def initial_model(
    recipe: Recipe,
    dataset: Dataset,
    error_scale: Doubles,
    *,
    refit: bool = False,
    linear: LinearFits | None = None,
    penalty: float | None = None,
) -> Forecaster:
    """The network before its first update.

    It predicts what its highway's ridge predicts, or without a highway persistence, each target's mean, or the
    frequencies of the classes. `linear` is the start of the highway, None: ridge over all that the recipe gives it, or
    logistic regression. With `refit`, the start is fitted on training and validation part together.

    error_scale (outputs,): the typical error of each output in its target's unit. penalty: of a classifier's logistic
    regression; None: the one that was best on groups left out or on the validation part.
    """
    contract = dataset.contract
    model = Forecaster(_shape(recipe, len(contract.inputs), len(contract.network_outputs)))
    train = dataset.steps("train")
    mean, scale = input_statistics(dataset)
    bypasses = recipe.bypasses_layers
    with torch.no_grad():
        model.mean[:] = torch.from_numpy(mean)
        model.scale[:] = torch.from_numpy(scale)
        model.seen[: len(bypasses)] = torch.tensor([not bypass for bypass in bypasses]).float()
        model.output_scale[:] = torch.from_numpy(_output_scale(recipe, dataset, error_scale))
        nn.init.zeros_(model.head.weight)
        nn.init.zeros_(model.head.bias)
        if recipe.change or (linear is not None and is_forecast(dataset)):
            model.change_of = torch.tensor(target_columns(contract), dtype=torch.int64)
        else:
            mean_target = np.nanmean(dataset.targets[train], axis=0)
            classifies = recipe.classify is not None
            offset = np.log(np.maximum(mean_target, 1e-4)) if classifies else mean_target
            model.output_offset[:] = torch.from_numpy(offset)
        if model.shape.has_highway and linear is not None:
            start_at(model, dataset, linear.refitted if refit else linear.searched, quantile_levels(dataset))
        elif model.shape.has_highway and recipe.classify is None:
            start_at_ridge(model, dataset, refit)
        elif model.shape.has_highway:
            start_at_logistic(model, dataset, recipe, refit, penalty)
    return model


def _shape(recipe: Recipe, inputs: int, outputs: int) -> Shape:
    """The sizes of the recipe's network. One without layers keeps one earlier sample at least, to have a state."""
    section = recipe.model
    return Shape(
        section.cell,
        inputs,
        section.units,
        section.depth,
        outputs,
        section.dropout,
        section.recurrent_dropout,
        section.earlier,
        section.level_free and section.earlier > 0 and recipe.classify is None,
        section.learned_start and section.depth > 0,
        section.has_highway,
        section.earlier > 0,
    )


def _output_scale(recipe: Recipe, dataset: Dataset, error_scale: Doubles) -> Doubles:
    """(outputs,): one unit of the head in each target's unit, about the size of what the head has to predict.

    Beside a highway, or added to the newest value, that is the error of a ridge. Without either, the head predicts the
    whole target. In the small unit of the ridge, its weights would have to grow further than the updates carry them.
    """
    if recipe.classify is not None or recipe.change or recipe.model.has_highway:
        return error_scale
    return np.maximum(np.nanstd(dataset.targets[dataset.steps("train")], axis=0), error_scale)
