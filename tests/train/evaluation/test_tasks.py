"""Training for each task: targets, loss, baselines and verdict from the recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from edge_lstm.recordings.recording import Recording
from edge_lstm_train.data.dataset import dataset_of
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.evaluation.classification import (
    MARKOV,
    ClassScore,
    class_baselines,
    logistic_logits,
    reliability,
    true_classes,
)
from edge_lstm_train.evaluation.classification import verdict as classification_verdict
from edge_lstm_train.evaluation.evaluate import evaluate
from edge_lstm_train.evaluation.predictions import predict
from edge_lstm_train.evaluation.regression import coverage
from edge_lstm_train.model.fit import fit
from edge_lstm_train.model.initial_model import initial_model
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.recording_sections import FeatureSection, RecordingSection
from edge_lstm_train.recipe.task_sections import AnomalySection, ClassifySection, RegressSection
from edge_lstm_train.recipe.training_sections import AugmentSection, FitSection, ModelSection
from tests.train.conftest import of_task, with_label

Make = Callable[..., Recipe]


def test_an_lstm_separates_classes_that_no_single_step_separates(recipe_of: Make, recording_of: Make) -> None:
    random = np.random.default_rng(0)
    signs = np.repeat(random.choice([-1.0, 1.0], 150), 20)  # blocks of 20 steps, their sign only in the first
    values = np.where(np.arange(3000) % 20 == 0, signs, 0.0) + random.normal(0, 0.05, 3000)
    recording = recording_of([("s", 60.0 * index, [value]) for index, value in enumerate(values)])
    labelled = with_label(recording, "sign", (signs > 0).astype(float), ("minus", "plus"))
    section = ClassifySection("sign", classes=["minus", "plus"])
    recipe = of_task(
        recipe_of(fit=FitSection(updates=250, segments=16, chunk=60, learning_rate=0.01)), classify=section
    )
    dataset = dataset_of(recipe, labelled)
    fitted = fit(recipe, dataset, np.ones(2))
    predictions = predict(dataset.contract, fitted.model.network(), dataset.recording)
    judged = evaluate(recipe, dataset, None, predictions)
    (figures,) = judged.figures["test"]
    assert figures["accuracy"]["model"] > 0.95
    assert figures["accuracy"]["logistic"] < 0.7
    assert judged.verdict.startswith("The model beats every baseline")


def test_the_next_symbol_task_has_a_markov_chain_baseline(recipe_of: Make, recording_of: Make) -> None:
    pattern = [0.0, 1.0, 2.0, 1.0]  # after 1 comes 0 or 2: a chain cannot know which
    recording = recording_of([("s", 60.0 * index, [pattern[index % 4]]) for index in range(600)])
    recording = dataclasses.replace(recording, categories={"x": ("a", "b", "c")})
    section = ClassifySection("x", classes=["a", "b", "c"], ahead=1)
    recipe = of_task(recipe_of(), classify=section)
    recipe = dataclasses.replace(recipe, features={"x": FeatureSection(categories=["a", "b", "c"])})
    dataset = dataset_of(recipe, recording)
    truth, test = true_classes(dataset), dataset.steps("test")[:-1]
    assert truth[:4].tolist() == [1, 2, 1, 0]
    assert (
        class_baselines(dataset, logistic_logits(recipe, dataset))[MARKOV][test] == truth[test]
    ).mean() == pytest.approx(0.75, abs=0.02)
    assert initial_model(recipe, dataset, np.ones(3)).seen.tolist() == [0, 1, 1, 1]  # a class's number is no level


def test_an_estimated_label_is_capped(recipe_of: Make, recording_of: Make) -> None:
    values = np.random.default_rng(0).normal(0, 1, 600)
    recording = recording_of([("s", 60.0 * index, [value]) for index, value in enumerate(values)])
    recipe = of_task(recipe_of(), regress=RegressSection("power", "W", cap=3.0))
    power = 2 * values + 1 + np.random.default_rng(1).normal(0, 0.1, 600)
    dataset = dataset_of(recipe, with_label(recording, "power", power))
    assert np.nanmax(dataset.targets) == 3.0
    baselines = fit_baselines(dataset)
    fitted = fit(recipe, dataset, baselines.residual)
    judged = evaluate(recipe, dataset, baselines, predict(dataset.contract, fitted.model.network(), dataset.recording))
    assert set(judged.scores[0].rmse) == {"model", "mean", "ridge"}
    assert judged.scores[0].r2["ridge"] > 0.8
    assert judged.scores[0].unit == "W"


def test_a_virtual_sensor_skips_steps_without_any_sensor(recipe_of: Make, recording_of: Make) -> None:
    values = np.random.default_rng(0).normal(0, 1, (300, 2))
    power = values.sum(axis=1)
    values[5:8] = np.nan  # an outage
    values[9, 0] = np.nan  # one sensor alone
    recording = recording_of([("s", 60.0 * index, row) for index, row in enumerate(values)], ("x", "y"))
    recipe = of_task(recipe_of(features={"x": False, "y": False}), regress=RegressSection("power", "W"))
    dataset = dataset_of(recipe, with_label(recording, "power", power))
    assert len(dataset) == 300  # the state steps through the outage all the same
    assert np.flatnonzero(np.isnan(dataset.targets[:, 0])).tolist() == [5, 6, 7]


def test_quantiles_have_their_coverage(recipe_of: Make, recording_of: Make) -> None:
    values = np.random.default_rng(0).normal(0, 1, 2000)
    recording = recording_of([("s", 60.0 * index, [value]) for index, value in enumerate(values)])
    recipe = recipe_of(fit=FitSection(updates=150, segments=8, chunk=50, learning_rate=0.01))
    recipe = dataclasses.replace(
        recipe, forecast=dataclasses.replace(recipe.forecast, quantiles=[0.1, 0.9], change=False)
    )
    dataset = dataset_of(recipe, recording)
    assert [name for name, _ in dataset.contract.outputs] == ["x", "x p10", "x p90"]
    fitted = fit(recipe, dataset, fit_baselines(dataset).residual)
    found = coverage(dataset, predict(dataset.contract, fitted.model.network(), recording))
    assert [one.level for one in found] == [0.1, 0.9]
    assert [one.below for one in found] == pytest.approx([0.1, 0.9], abs=0.06)


def test_anomaly_scores_are_compared_with_the_labels(recipe_of: Make, recording_of: Make) -> None:
    random = np.random.default_rng(0)
    values = np.sin(np.arange(1500) / 5) + random.normal(0, 0.05, 1500)
    values[1350:1420] += np.linspace(0, 3, 70) * random.choice([-1, 1], 70)
    truth = np.zeros(1500)
    truth[1350:1420] = 1
    recording = with_label(
        recording_of([("s", 60.0 * index, [value]) for index, value in enumerate(values)]), "bad", truth
    )
    section = AnomalySection(span_steps=10, calibrate_steps=300, truth="bad")
    recipe = of_task(recipe_of(model=ModelSection(hidden=8, highway=6)), anomaly=section)
    dataset = dataset_of(recipe, recording)
    baselines = fit_baselines(dataset)
    fitted = fit(recipe, dataset, baselines.residual)
    judged = evaluate(recipe, dataset, baselines, predict(dataset.contract, fitted.model.network(), dataset.recording))
    (figures,) = judged.figures["test"]
    assert figures["f1"]["model"] > 0.7
    assert figures["false_alarms"]["model"] < 0.1
    assert figures["false_alarms"]["always"] == 1.0


def test_the_verdict_compares_accuracy_with_per_class_accuracy() -> None:
    shares = {"model": 0.7, "majority": 0.55, "the same again": 0.66}
    score = ClassScore(
        "sky",
        ["a", "b"],
        200,
        shares,
        {"model": 0.35, "majority": 0.2, "the same again": 0.38},
        np.zeros((2, 2), np.int64),
    )
    assert classification_verdict(score) == (
        "The model is right in 70.0 % of 200 steps, the same again in 66.0 %: more often than every baseline, but not "
        "class by class, since the same again has a mean F1 of 0.380 and the model 0.350."
    )
    better = dataclasses.replace(score, f1={**score.f1, "model": 0.4})
    assert classification_verdict(better).startswith("The model beats every baseline: it is right in 70.0 %")


def test_the_verdict_says_where_a_guess_is_as_good() -> None:
    shares = {"model": 0.2, "majority": 0.0}
    score = ClassScore(
        "sky", ["a", "b", "c"], 900, shares, dict(shares), np.zeros((3, 3), np.int64), log_loss={"model": 2}
    )
    assert classification_verdict(score).endswith(" A guess among 3 classes is right more often, in 33.3 %.")
    likelier = dataclasses.replace(score, accuracy={"model": 0.5, "majority": 0.0})
    assert classification_verdict(likelier).endswith(
        " Its probabilities are no better than equal ones: log loss 2.000, of equal ones 1.099."
    )
    good = dataclasses.replace(likelier, log_loss={"model": 1.0})
    assert (
        classification_verdict(good)
        == "The model beats every baseline: it is right in 50.0 % of 900 steps, majority in 0.0 %."
    )


def test_reliability_is_accuracy_by_predicted_probability(recipe_of: Make, recording_of: Make) -> None:
    recording = recording_of([("s", 60.0 * index, [float(index % 7)]) for index in range(1000)])
    labelled = with_label(recording, "odd", np.arange(1000) % 2.0, ("no", "yes"))
    dataset = dataset_of(of_task(recipe_of(), classify=ClassifySection("odd", classes=["no", "yes"])), labelled)
    said = np.full((1000, 2), np.nan)
    said[800:900] = [0.4, 0.6]  # of the 200 steps of the test part; every other one is right
    said[900:] = [0.05, 0.95]
    shares, right = reliability(dataset, said)
    np.testing.assert_allclose(shares, [0.6] * 5 + [0.95] * 5)
    np.testing.assert_allclose(right, [0.5] * 10)
    assert reliability(dataset, np.full((1000, 2), np.nan)) == ([], [])


def test_a_recording_without_times_is_plotted_over_its_rows(recipe_of: Make, waves: Recording) -> None:
    recipe = of_task(recipe_of(), regress=RegressSection("y", unit="mm"))
    numbered = dataclasses.replace(recipe, recording=RecordingSection("nowhere.csv", interval_s=60.0))
    clocked = dataclasses.replace(
        recipe, recording=RecordingSection("nowhere.csv", interval_s=60.0, start="2024-01-01")
    )
    assert (recipe.recording.row_s, numbered.recording.row_s, clocked.recording.row_s) == (None, 60.0, None)
    dataset = dataset_of(numbered, with_label(waves, "y", np.arange(len(waves)) % 7.0))
    baselines = fit_baselines(dataset)
    model = initial_model(numbered, dataset, baselines.residual)
    judged = evaluate(numbered, dataset, baselines, predict(dataset.contract, model.network(), dataset.recording))
    titles = [section.title for section in judged.sections]
    assert titles == ["Error on the test part", "The end of the test part", "Residuals", "By stream, the worst first"]
    table, note = judged.sections[0].blocks
    assert table.header == ["estimated", "model", "mean", "ridge", "skill", "R²"]
    assert note.text.endswith("Skill is 1 - RMSE of the model / RMSE of the mean.")
    (residuals,) = judged.sections[2].blocks
    assert residuals.caption == "y: distribution of the error"


def test_a_reconstruction_baseline_uses_only_earlier_values(recipe_of: Make, recording_of: Make) -> None:
    random = np.random.default_rng(0)
    angle = np.arange(1500) / 5
    values = np.stack([np.sin(angle), np.cos(angle)], axis=1) + random.normal(0, 0.05, (1500, 2))
    values[1350:1420, 0] *= -1  # each alone looks as ever
    truth = np.zeros(1500)
    truth[1350:1420] = 1
    recording = recording_of([("s", 60.0 * index, row) for index, row in enumerate(values)], ("x", "y"))
    section = AnomalySection(reconstruct=True, span_steps=10, calibrate_steps=300, truth="bad", factor=2.0)
    section_of_fit = FitSection(updates=100, segments=8, chunk=40, learning_rate=0.015)
    recipe = recipe_of(features={"x": False, "y": False}, model=ModelSection(hidden=4), fit=section_of_fit)
    recipe = dataclasses.replace(of_task(recipe, anomaly=section), augment=AugmentSection(noise=0.5))
    dataset = dataset_of(recipe, with_label(recording, "bad", truth))
    baselines = fit_baselines(dataset)
    np.testing.assert_array_equal(baselines.predictions["persistence"][1:], dataset.values[:-1])
    assert baselines.residual == pytest.approx([0.06, 0.06], abs=0.02)  # a forecast of the step, and not the step
    fitted = fit(recipe, dataset, baselines.residual)
    judged = evaluate(recipe, dataset, baselines, predict(dataset.contract, fitted.model.network(), dataset.recording))
    assert min(point.validation_error for point in fitted.curve) < 1.2 < fitted.curve[0].validation_error
    assert judged.figures["test"][0]["f1"]["model"] > 0.7
    titles = [section.title for section in judged.sections]
    assert titles[2:6] == [
        "Threshold",
        "Errors of the reconstruction",
        "The end of the test part (times in UTC)",
        "Residuals",
    ]
