"""Whether stretches that vary far more than the rest are left out of training: the validation part decides."""

from __future__ import annotations

import numpy as np

from edge_lstm.decisions.angles import PublishedOutputs
from edge_lstm.foundation.arrays import Doubles, Flags
from edge_lstm_train.data.dataset import Dataset, without_steps
from edge_lstm_train.data.stretches import are_exceptions, uneven_stretches
from edge_lstm_train.evaluation.baselines import Baselines, fit_baselines
from edge_lstm_train.model.ridge import trained_ridge_at
from edge_lstm_train.recipe.recipe import Recipe

_SHOWN = 5


def chosen_stretches(recipe: Recipe, dataset: Dataset, baselines: Baselines) -> tuple[Dataset, Baselines, list[str]]:
    """Dataset and baselines with such stretches or without them, and warnings that name stream and rows.

    They are left out if a ridge without them forecasts the other steps of the validation part better.
    """
    stretches, inside = uneven_stretches(dataset)
    told = [str(one) for one in stretches[:_SHOWN]]
    if len(stretches) > _SHOWN:
        told.append(f"{len(stretches) - _SHOWN} more such stretches")
    if not told:
        return dataset, baselines, []
    if not are_exceptions(dataset, inside):
        return dataset, baselines, [*told, "these are no exceptions, so they are trained on"]
    reduced = without_steps(recipe, dataset, inside)
    other = fit_baselines(reduced, recipe.fit.refit, recipe.model.most_parameters)
    ratio = np.exp(np.nanmean(np.log(_errors(reduced, other, inside) / _errors(dataset, baselines, inside))))
    if not ratio < 1.0:
        return (
            dataset,
            baselines,
            [*told, f"they are trained on: without them the validation error is {ratio:.2f} times"],
        )
    return (
        reduced,
        other,
        [*told, f"they are left out of training: without them the validation error is {ratio:.2f} times as large"],
    )


def _errors(dataset: Dataset, baselines: Baselines, inside: Flags) -> Doubles:
    """(outputs,): RMSE of ridge over the validation part, without the stretches."""
    steps = dataset.steps("validation")
    steps = steps[~inside[steps]]
    published = PublishedOutputs(dataset.contract)
    predicted, truth = trained_ridge_at(dataset, steps, baselines.ridge), dataset.targets[steps]
    error = published(predicted) - published(truth)
    found: Doubles = np.maximum(np.sqrt(np.nanmean(error**2, axis=0)), 1e-12)
    return found
