"""The candidates: a linear path that is the ridge, and the choice of the simplest that is best on validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge_lstm.bundle.contract import Sampling
from edge_lstm.recordings.recording import Recording
from edge_lstm_train.data.dataset import Dataset, dataset_of
from edge_lstm_train.evaluation.baselines import Baselines, fit_baselines, linear_starts
from edge_lstm_train.evaluation.candidate_tables import choice_notes
from edge_lstm_train.evaluation.predictions import aligned, predict
from edge_lstm_train.evaluation.trained_contract import with_states
from edge_lstm_train.model import candidates
from edge_lstm_train.model.candidates import Choice, candidate_recipes
from edge_lstm_train.model.carried_state import predict_streamed
from edge_lstm_train.model.fit import fit
from edge_lstm_train.model.forecaster import Forecaster
from edge_lstm_train.model.initial_model import initial_model
from edge_lstm_train.model.linear_start import LinearFits
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.recording_sections import FeatureSection
from edge_lstm_train.recipe.task_sections import AnomalySection, ClassifySection, RegressSection
from edge_lstm_train.recipe.training_sections import AugmentSection, FitSection, ModelSection
from edge_lstm_train.run import choose
from tests.train.conftest import of_task, with_label

Make = Callable[..., Any]
SHORT = FitSection(updates=16, segments=4, chunk=20)


def linear_alone(recipe: Recipe, dataset: Dataset) -> tuple[Forecaster, Baselines, LinearFits]:
    baselines = fit_baselines(dataset)
    linear = linear_starts(dataset, baselines)
    own = candidate_recipes(recipe, linear)["linear"]
    return initial_model(own, dataset, baselines.residual, linear=linear), baselines, linear


def autoregressive(steps: int, streams: int = 1, seed: int = 0, gap_after: int | None = None) -> list[Any]:
    """Rows of a damped oscillation driven by noise: linear, so that ridge is the best model."""
    random, rows = np.random.default_rng(seed), []
    for stream in range(streams):
        values = np.zeros(steps)
        for step in range(2, steps):
            values[step] = 1.6 * values[step - 1] - 0.9 * values[step - 2] + random.normal()
        times = 60.0 * np.arange(steps)
        if gap_after is not None:
            times += 10_000.0 * (np.arange(steps) // gap_after)
        rows += [(f"s{stream}", time, [value]) for time, value in zip(times.tolist(), values.tolist(), strict=True)]
    return rows


@pytest.mark.parametrize("gaps", [False, True])
def test_the_linear_path_is_the_ridge_at_every_step(recipe_of: Make, recording_of: Make, gaps: bool) -> None:
    rows = autoregressive(700, streams=2, gap_after=45 if gaps else None)
    recipe = recipe_of(horizons=[1, 3, 24], clock=["time_of_day", "elapsed"], max_gap_s=3600.0, season=24)
    recipe = dataclasses.replace(recipe, features={"x": FeatureSection(mask=True, derived=["mean 5"])})
    dataset = dataset_of(recipe, recording_of(rows))
    model, baselines, linear = linear_alone(recipe, dataset)
    assert model.shape.layers == 0
    assert any(name.startswith("ridge") for name in linear.searched.names)
    predicted, spread = predict_streamed(model, dataset), np.nanstd(dataset.targets)
    for output, name in enumerate(linear.searched.names):
        if name.startswith("ridge"):
            error = np.abs(predicted[:, output] - baselines.ridge.predictions[:, output])
            assert error.max() <= 2e-5 * spread  # float32, also in the first steps after each gap


def test_the_linear_path_of_an_estimate_is_the_ridge(recipe_of: Make, recording_of: Make) -> None:
    rows = autoregressive(500)
    power = 3.0 * np.array([row[2][0] for row in rows]) + 100.0 + np.random.default_rng(1).normal(0, 0.5, 500)
    recipe = of_task(recipe_of(clock=["time_of_day"]), regress=RegressSection("power"))
    dataset = dataset_of(recipe, with_label(recording_of(rows), "power", power))
    model, baselines, _ = linear_alone(recipe, dataset)
    np.testing.assert_allclose(predict_streamed(model, dataset), baselines.ridge.predictions, atol=1e-4)


def test_each_output_takes_the_simplest_of_the_best_predictors(recipe_of: Make, recording_of: Make) -> None:
    random = np.random.default_rng(4)
    walk = np.cumsum(random.normal(0, 1, 800))  # its own newest value is the best forecast
    day = np.tile(random.normal(0, 5, 16), 50) + random.normal(0, 1e-3, 800)  # the same every 16 steps
    rows = [("s", 60.0 * step, [walk[step], day[step]]) for step in range(800)]
    recipe = recipe_of(features={"walk": False, "day": False}, horizons=[1], season=16)
    recipe = dataclasses.replace(recipe, forecast=dataclasses.replace(recipe.forecast, targets=["walk", "day"]))
    dataset = dataset_of(recipe, recording_of(rows, ("walk", "day")))
    model, baselines, _ = linear_alone(recipe, dataset)
    validation = dataset.steps("validation")
    predicted = predict_streamed(model, dataset)
    own = np.sqrt(np.nanmean((predicted - dataset.targets)[validation] ** 2, axis=0))
    for found in (baselines.ridge.predictions, *(baselines.predictions[name] for name in baselines.predictions)):
        other = np.sqrt(np.nanmean((found - dataset.targets)[validation] ** 2, axis=0))
        assert (own <= other * (1 + 1e-3)).all()  # float32 beside a signal of 5


def test_a_linear_quantile_has_its_share_of_the_values_below_it(recipe_of: Make, recording_of: Make) -> None:
    recipe = recipe_of()
    recipe = dataclasses.replace(recipe, forecast=dataclasses.replace(recipe.forecast, quantiles=[0.1, 0.9]))
    dataset = dataset_of(recipe, recording_of(autoregressive(3000)))
    model, _, _ = linear_alone(recipe, dataset)
    test = dataset.steps("test")
    below = dataset.targets[test][:-1] < predict_streamed(model, dataset)[test][:-1]
    assert below.mean(axis=0)[1:] == pytest.approx([0.1, 0.9], abs=0.04)


def chosen(recipe: Recipe, recording: Recording) -> tuple[Choice, Dataset]:
    dataset = dataset_of(recipe, recording)
    baselines = None if recipe.classify is not None else fit_baselines(dataset)
    return choose(recipe, dataset, baselines), dataset


def test_what_is_linear_is_chosen_where_layers_gain_nothing(recipe_of: Make, recording_of: Make) -> None:
    recipe = recipe_of(model=ModelSection(hidden=4), fit=FitSection(updates=80, segments=8, chunk=30))
    choice, _ = chosen(recipe, recording_of(autoregressive(1500)))
    assert [one.name for one in choice.candidates] == ["linear", "network", "both"]
    assert choice.chosen.name == "linear"
    assert choice.chosen.fitted.best == 0
    assert choice.sentence().startswith("Chosen by the validation part: the linear path alone. Its error is ")
    assert choice.sentence().endswith("as large as that of the layers beside a linear path.")


def test_layers_are_chosen_where_nothing_linear_can_predict(recipe_of: Make, recording_of: Make) -> None:
    x, values = 0.3, []
    for _ in range(1500):
        x = 3.9 * x * (1 - x)  # the logistic map: no linear function of the past predicts it
        values.append(x)
    fitting = FitSection(updates=300, segments=8, chunk=30, learning_rate=1e-2)
    recipe = recipe_of(model=ModelSection(hidden=12), fit=fitting)
    choice, _ = chosen(recipe, recording_of([("s", 60.0 * step, [value]) for step, value in enumerate(values)]))
    linear = choice.candidates[0]
    assert choice.chosen.name in ("network", "both")
    assert choice.chosen.validation < 0.5 * linear.validation
    assert choice.ahead["linear"] == 1.0


def test_the_choice_is_never_worse_than_any_candidate_beyond_noise(recipe_of: Make, waves: Recording) -> None:
    choice, _ = chosen(recipe_of(), waves)
    best = min(choice.candidates, key=lambda one: one.validation)
    assert choice.chosen is best or choice.ahead[best.name] > 0.1


class Units:
    """Judges a model by its recurrent units, in two cases: more of them are better."""

    measure = "lack of units"
    blocks_are = "cases"

    def __init__(self) -> None:
        self.blocks = [np.array([0]), np.array([1])]

    def __call__(self, model: Forecaster) -> np.ndarray:
        return np.array([1.0, 2.0]) / (1 + model.shape.hidden)


def test_where_there_is_a_judge_the_errors_choose_nothing(recipe_of: Make, recording_of: Make) -> None:
    recipe = recipe_of(model=ModelSection(hidden=2, candidates=["linear", "both"]), fit=SHORT)
    dataset = dataset_of(recipe, recording_of(autoregressive(400)))
    baselines = fit_baselines(dataset)
    linear = linear_starts(dataset, baselines)
    choice = candidates.fit_candidates(recipe, dataset, dataset, baselines.residual, linear, judge=Units())
    assert [one.cost for one in choice.candidates] == [1.5, 0.5]
    assert choice.chosen.name == "both"
    assert choice.ahead == {"linear": 1.0}
    assert "Its lack of units is 66.7 % below the one of the linear path alone" in choice.sentence()
    assert "100 % of the resamples of 2 cases" in choice.sentence()


def test_a_detector_is_chosen_by_the_faults_that_its_alarms_miss(recipe_of: Make, recording_of: Make) -> None:
    recipe = of_task(recipe_of(model=ModelSection(hidden=2), fit=SHORT), anomaly=AnomalySection(span_steps=10))
    choice, _ = chosen(recipe, recording_of(autoregressive(600, streams=2)))
    assert choice.measure == "share of injected faults that its alarms miss"
    assert all(0.05 < one.cost < 0.95 for one in choice.candidates)
    assert choice.chosen.cost <= 1.02 * min(one.cost for one in choice.candidates)
    assert "of injected faults" in next(choice_notes(choice, None))


def test_training_beside_a_level_free_path_keeps_it_level_free(recipe_of: Make, recording_of: Make) -> None:
    rows = [(stream, time, [values[0] + 0.01 * time]) for stream, time, values in autoregressive(600)]  # it drifts
    recipe = recipe_of(horizons=[1, 2], model=ModelSection(hidden=4), fit=SHORT)
    dataset = dataset_of(recipe, recording_of(rows))
    baselines = fit_baselines(dataset)
    linear = linear_starts(dataset, baselines)
    levelled = dataclasses.replace(linear.searched, tied=np.ones_like(linear.searched.tied))
    levelled = dataclasses.replace(levelled, free=np.where(np.arange(levelled.taps.shape[1])[:, None] > 0, 1.0, 0.0))
    levelled = dataclasses.replace(levelled, free=np.broadcast_to(levelled.free, levelled.taps.shape).copy())
    own = candidate_recipes(recipe, linear)["both"]
    model = fit(own, dataset, baselines.residual, linear=LinearFits(levelled, levelled)).model
    taps = model.network().highway
    assert taps is not None
    taps = taps.reshape(2, -1, 1)
    assert np.abs(taps[:, 1:]).max() > 0
    np.testing.assert_allclose(taps.sum(axis=1), 0.0, atol=1e-6 * np.abs(taps).max())


@pytest.mark.parametrize("name", ["linear", "both"])
def test_a_chosen_network_runs_on_a_device_as_in_training(recipe_of: Make, recording_of: Make, name: str) -> None:
    rows = autoregressive(500, gap_after=60)
    recipe = recipe_of(max_gap_s=3600.0, model=ModelSection(hidden=4, candidates=[name]), fit=SHORT)
    recording = recording_of(rows)
    choice, dataset = chosen(recipe, recording)
    assert [one.name for one in choice.candidates] == [name]
    model = choice.chosen.fitted.model
    contract = with_states(dataset.contract, model)
    assert [state.name for state in contract.states][-2:] == ["recent_samples", "register_started"]
    runtime = aligned(dataset, predict(contract, model.network(), recording))
    np.testing.assert_allclose(predict_streamed(model, dataset), runtime, rtol=1e-4, atol=1e-4)


def test_a_classifier_chooses_by_cross_entropy_among_logistic_regression_and_layers(
    recipe_of: Make, recording_of: Make
) -> None:
    random = np.random.default_rng(0)
    signs = np.repeat(random.choice([-1.0, 1.0], 300), 5)
    values = 0.7 * signs + random.normal(0, 1, 1500)
    recording = recording_of([("s", 60.0 * index, [value]) for index, value in enumerate(values)])
    labelled = with_label(recording, "sign", (signs > 0).astype(float), ("minus", "plus"))
    recipe = of_task(
        recipe_of(fit=FitSection(updates=60, segments=8, chunk=40)),
        classify=ClassifySection("sign", classes=["minus", "plus"]),
    )
    choice, dataset = chosen(recipe, labelled)
    assert [one.name for one in choice.candidates] == ["linear", "network", "both"]
    linear = choice.candidates[0]
    assert linear.validation < np.log(2)
    weight = linear.fitted.model.network().highway
    assert weight is not None
    assert weight.shape == (2, 2)  # two classes, an earlier sample that has no weight
    assert not weight[:, 1:].any()
    probability = 1 / (1 + np.exp(-2 * 0.7 * dataset.features[:, 0].astype(np.float64)))  # Bayes, equal variances
    predicted = predict_streamed(linear.fitted.model, dataset)
    found = 1 / (1 + np.exp(predicted[:, 0] - predicted[:, 1]))
    assert np.abs(found - probability).max() < 0.1


def test_the_recipe_says_which_networks_are_candidates(recipe_of: Make) -> None:
    def names(**model: Any) -> list[str]:
        return list(recipe_of(model=ModelSection(**model)).candidates)

    assert names() == ["linear", "network", "both"]
    assert names(highway=0) == ["linear", "network"]
    assert names(highway=4) == ["linear", "both"]
    assert names(cell="none") == ["linear"]
    assert names(candidates=["both", "linear"]) == ["linear", "both"]
    rebuilt = of_task(recipe_of(), anomaly=AnomalySection(reconstruct=True))
    assert rebuilt.candidates == ["network"]
    assert [where for where, _ in ModelSection(cell="none", candidates=["both"]).faults()] == ["candidates"]
    assert [where for where, _ in ModelSection(highway=4, candidates=["network"]).faults()] == ["candidates"]
    assert [where for where, _ in ModelSection(highway=0, candidates=["both"]).faults()] == ["candidates"]


def test_lags_that_a_device_could_not_hold_are_left_out_and_named(recipe_of: Make, recording_of: Make) -> None:
    recipe = recipe_of(season=100, model=ModelSection(hidden=2, most_parameters=60))
    dataset = dataset_of(recipe, recording_of(autoregressive(900)))
    ridge = fit_baselines(dataset, False, recipe.model.most_parameters).ridge
    assert ridge.left_out == [101]
    assert all(choice.lags <= 60 for choice in ridge.choices)
    assert fit_baselines(dataset).ridge.left_out == []


def driven(steps: int, seed: int) -> list[Any]:
    """Rows of a power that is the wind of the step before."""
    random = np.random.default_rng(seed)
    wind = random.normal(0, 1, steps + 1)
    power = np.concatenate([[0.0], wind[:-1]]) + 0.3 * random.normal(0, 1, steps + 1)
    return [("s", 60.0 * step, [power[step], wind[step]]) for step in range(steps)]


def test_where_sensors_fail_the_candidates_are_judged_with_failing_sensors(recipe_of: Make, recording_of: Make) -> None:
    fit = FitSection(updates=80, segments=4, chunk=60, learning_rate=0.02)
    recipe = recipe_of(fit=fit, model=ModelSection(hidden=6, candidates=["linear", "both"]))
    features = {"x": FeatureSection(), "wind": FeatureSection(mask=True, age=True)}
    recipe = dataclasses.replace(recipe, features=features, sampling=Sampling(60.0, None))
    failing = dataclasses.replace(recipe, augment=AugmentSection(sensor_dropout=0.5))
    dataset = dataset_of(recipe, recording_of(driven(3000, 4), features=("x", "wind")))
    baselines = fit_baselines(dataset)
    alive, dead = (choose(one, dataset, baselines) for one in (recipe, failing))
    assert alive.chosen.name == "linear"
    assert dead.chosen.name == "both"
    linear = next(one for one in dead.candidates if one.name == "linear")
    assert linear.validation > 2 * alive.chosen.validation
    assert "Sensors fail in the validation part as in the training, for 50 % of the time." in list(
        choice_notes(dead, baselines)
    )


@pytest.mark.parametrize("at", ["fit", "_validated", "refitted"])
def test_ctrl_c_between_the_trainings_keeps_the_candidates_so_far(
    recipe_of: Make, recording_of: Make, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    recipe = recipe_of(fit=dataclasses.replace(SHORT, refit=True))
    dataset = dataset_of(recipe, recording_of(autoregressive(400)))
    whole, calls = getattr(candidates, at), [0]

    def interrupted(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2 or at == "refitted":
            raise KeyboardInterrupt
        return whole(*arguments, **more)

    monkeypatch.setattr(candidates, at, interrupted)
    choice = choose(recipe, dataset, fit_baselines(dataset))
    assert choice.interrupted_at is not None
    assert [one.name for one in choice.candidates] == ["linear", "network", "both"][: 3 if at == "refitted" else 1]
    assert not choice.chosen.fitted.refitted
