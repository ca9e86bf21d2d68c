"""The network: its initial output, and which inputs it sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from edge_lstm.recordings.recording import Recording
from edge_lstm_train.data.dataset import dataset_of
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.evaluation.predictions import aligned, predict
from edge_lstm_train.model.carried_state import predict_streamed
from edge_lstm_train.model.fit import fit
from edge_lstm_train.model.initial_model import initial_model
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.recording_sections import FeatureSection
from edge_lstm_train.recipe.task_sections import RegressSection
from edge_lstm_train.recipe.training_sections import FitSection, ModelSection
from tests.train.conftest import of_task, with_label

Make = Callable[..., Recipe]


def test_a_head_without_a_residual_is_scaled_to_its_target(recipe_of: Make, recording_of: Make) -> None:
    values = np.random.default_rng(0).normal(0, 1, 400)
    recording = recording_of([("s", 60.0 * index, [value]) for index, value in enumerate(values)])
    alone = of_task(recipe_of(), regress=RegressSection("power"))
    beside = dataclasses.replace(alone, model=ModelSection(hidden=2, highway=1))
    power = 30 * values + np.random.default_rng(1).normal(0, 3, 400)
    dataset = dataset_of(alone, with_label(recording, "power", power))
    ridge = np.array([0.5])
    usual = np.nanstd(dataset.targets[dataset.steps("train")])
    assert initial_model(alone, dataset, ridge).output_scale.tolist() == pytest.approx([usual])
    assert initial_model(beside, dataset, ridge).output_scale.tolist() == [0.5]  # the highway says the most of it
    level = dataclasses.replace(recipe_of(), forecast=dataclasses.replace(recipe_of().forecast, change=False))
    usual = np.nanstd(dataset_of(level, recording).targets[:240])
    assert initial_model(level, dataset_of(level, recording), ridge).output_scale.tolist() == pytest.approx([usual])
    ahead = dataset_of(recipe_of(), recording)
    assert initial_model(recipe_of(), ahead, ridge).output_scale.tolist() == [0.5]  # a change from the newest value


def test_an_untrained_highway_equals_the_ridge_over_its_taps(recipe_of: Make, waves: Recording) -> None:
    recipe = recipe_of(model=ModelSection(hidden=4, highway=11, level_free=False))
    dataset = dataset_of(recipe, waves)
    baselines = fit_baselines(dataset)
    predicted = predict_streamed(initial_model(recipe, dataset, baselines.residual), dataset)
    test = dataset.steps("test")[12:]
    own, ridge = (
        float(np.nanstd(one[test, 0] - dataset.targets[test, 0])) for one in (predicted, baselines.predictions["ridge"])
    )
    assert own == pytest.approx(ridge, rel=0.01)


def test_layers_do_not_see_a_level_that_the_recipe_hides(recipe_of: Make, waves: Recording) -> None:
    recipe = recipe_of(fit=FitSection(updates=20, segments=4, chunk=20))
    hidden = dataclasses.replace(recipe, features={"x": FeatureSection(level=False, derived=["difference"])})
    dataset = dataset_of(hidden, waves)
    network = fit(hidden, dataset, np.ones(1)).model.network()
    assert not network.layers[0].w_ih[:, 0].any()
    assert network.layers[0].w_ih[:, 1].any()
    shifted = dataclasses.replace(waves, values=waves.values + 1000.0)
    predicted = aligned(dataset, predict(dataset.contract, network, waves))
    other = aligned(dataset, predict(dataset.contract, network, shifted))
    np.testing.assert_allclose(other - 1000.0, predicted, atol=2e-3)


def test_every_stream_on_a_device_starts_at_the_learned_state(recipe_of: Make, waves: Recording) -> None:
    recipe = recipe_of(
        model=ModelSection(hidden=4, learned_start=True), fit=FitSection(updates=30, segments=4, chunk=20)
    )
    dataset = dataset_of(recipe, waves)
    model = fit(recipe, dataset, np.ones(1)).model
    starts = model.start_values()
    assert [len(start) for start in starts] == [4, 4]
    assert any(abs(number) > 1e-4 for start in starts for number in start)
    states = [dataclasses.replace(one, start=start) for one, start in zip(dataset.contract.states, starts, strict=True)]
    contract = dataclasses.replace(dataset.contract, states=states)
    runtime = aligned(dataset, predict(contract, model.network(), waves))
    np.testing.assert_allclose(predict_streamed(model, dataset), runtime, rtol=1e-5)
