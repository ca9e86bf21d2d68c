"""A classifier is chosen on groups left out: logistic regression alone, or with the network beside it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from edge_lstm_train.data.dataset import Dataset, dataset_of
from edge_lstm_train.data.group_folds import group_folds
from edge_lstm_train.evaluation.classification import likeliest, logistic_logits, one_class_each, single_and_pooled
from edge_lstm_train.model.carried_state import predict_streamed
from edge_lstm_train.model.fit import fit
from edge_lstm_train.model.group_choice import BOTH, LOGISTIC, fit_by_groups, share_better, shrunk
from edge_lstm_train.model.initial_model import initial_model
from edge_lstm_train.model.logistic_start import chosen_penalty, class_weights, logistic_regression
from edge_lstm_train.model.losses import step_log_losses
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.task_sections import ClassifySection
from edge_lstm_train.recipe.training_sections import FitSection, ModelSection, SplitSection
from tests.train.conftest import of_task, with_label

Make = Callable[..., object]
FIT = FitSection(updates=120, segments=8, chunk=30, learning_rate=0.02)


def people(recipe_of: Make, recording_of: Make, memory: bool, noise: float = 0.3) -> tuple[Recipe, Dataset]:
    """Five people of 300 steps. The class is the sign of the value, with `memory` that of the value three steps ago."""
    random = np.random.default_rng(3)
    values = random.normal(size=(5, 300))
    sign = np.roll(values, 3, axis=1) if memory else values
    label = (sign + noise * random.normal(size=values.shape) > 0).astype(float)
    rows = [(f"p{person}", 60.0 * at, [values[person, at]]) for person in range(5) for at in range(300)]
    recording = with_label(recording_of(rows), "move", label.ravel(), ("up", "down"))
    recipe = of_task(
        recipe_of(fit=FIT, model=ModelSection(hidden=8, linear=True)),
        classify=ClassifySection("move", classes=["up", "down"]),
    )
    recipe = dataclasses.replace(recipe, split=SplitSection(0.8, 0.2, leave_out=["p0"], leave_out_time="all"))
    return recipe, dataset_of(recipe, recording)


def test_logistic_regression_alone_wins_where_the_classes_are_linear(recipe_of: Make, recording_of: Make) -> None:
    recipe, dataset = people(recipe_of, recording_of, memory=False)
    choice = fit_by_groups(recipe, dataset, group_folds(recipe, dataset))
    chosen, fitted = choice.chosen.recipe, choice.chosen.fitted
    assert (choice.taken, choice.below, choice.unsure) == (LOGISTIC, 0, None)
    assert chosen.model.cell == "none"
    assert fitted.model.shape.layers == 0
    predicted = predict_streamed(fitted.model, dataset)[dataset.steps("test")]
    baseline = logistic_logits(recipe, dataset)[dataset.steps("test")]
    np.testing.assert_allclose(np.diff(predicted), np.diff(baseline), atol=1e-4)  # the baseline is what is deployed


def test_the_network_wins_where_the_past_tells_the_class(recipe_of: Make, recording_of: Make) -> None:
    recipe, dataset = people(recipe_of, recording_of, memory=True)
    choice = fit_by_groups(recipe, dataset, group_folds(recipe, dataset))
    chosen, fitted = choice.chosen.recipe, choice.chosen.fitted
    assert choice.taken == BOTH
    assert chosen.model.cell == "lstm"
    assert fitted.best > 0
    assert np.mean(choice.log_losses[LOGISTIC]) > 0.65  # hardly better than the uniform guess, .69
    assert np.mean(choice.log_losses[BOTH]) < 0.55
    assert "p1" in choice.groups
    assert choice.sentence().startswith(f"The {BOTH} is chosen by groups left out: log loss 0.")
    test = dataset.steps("test")
    assert step_log_losses(predict_streamed(fitted.model, dataset)[test], dataset.targets[test]).mean() < 0.55


def test_a_choice_that_fails_in_one_group_is_the_logistic_regression(recipe_of: Make, recording_of: Make) -> None:
    recipe, dataset = people(recipe_of, recording_of, memory=True)
    own = dataset.stream_of == 2
    dataset.targets[own] = dataset.targets[own][:, ::-1]  # this person's labels are swapped
    choice = fit_by_groups(recipe, dataset, group_folds(recipe, dataset))
    assert (choice.taken, choice.unsure) == (LOGISTIC, "p2")
    assert choice.uniform == pytest.approx(math.log(2))


def test_no_choice_looks_at_the_test_part(recipe_of: Make, recording_of: Make) -> None:
    recipe, dataset = people(recipe_of, recording_of, memory=True)
    recipe = dataclasses.replace(recipe, fit=dataclasses.replace(recipe.fit, updates=16))
    found = fit_by_groups(recipe, dataset, group_folds(recipe, dataset))
    test = dataset.steps("test")
    dataset.targets[test] = dataset.targets[test][:, ::-1]
    dataset.features[test] *= 5
    assert fit_by_groups(recipe, dataset, group_folds(recipe, dataset)).log_losses == found.log_losses


def test_half_of_the_network_is_the_mean_of_both_log_probabilities(recipe_of: Make, recording_of: Make) -> None:
    recipe, dataset = people(recipe_of, recording_of, memory=True)
    model = fit(recipe, dataset, np.ones(2)).model
    whole, half, alone = (
        torch.from_numpy(predict_streamed(shrunk(model, share), dataset)).log_softmax(dim=1)[dataset.steps("test")]
        for share in (1.0, 0.5, 0.0)
    )
    mean = ((whole + alone) / 2).log_softmax(dim=1)
    np.testing.assert_allclose(half, mean, atol=1e-5)


def test_the_linear_path_of_a_classifier_stays_where_it_starts(recipe_of: Make, recording_of: Make) -> None:
    recipe, dataset = people(recipe_of, recording_of, memory=True)
    start = initial_model(recipe, dataset, np.ones(2))
    model = fit(recipe, dataset, np.ones(2)).model
    assert torch.equal(model.highway.weight, start.highway.weight)
    assert torch.equal(model.head.bias, start.head.bias)
    assert model.head.weight.abs().max() > 0.1


def test_a_level_that_bypasses_the_layers_has_no_weight_in_the_linear_path(recipe_of: Make, recording_of: Make) -> None:
    recipe, dataset = people(recipe_of, recording_of, memory=False)
    assert logistic_regression(recipe, dataset, 1e-3).weight.abs().min() > 0.5
    hidden = dataclasses.replace(recipe, features={"x": dataclasses.replace(recipe.features["x"], level=False)})
    assert logistic_regression(hidden, dataset, 1e-3).weight.abs().max() < 1e-9


def test_the_penalty_of_groups_is_the_largest_within_noise(recipe_of: Make, recording_of: Make) -> None:
    recipe, dataset = people(recipe_of, recording_of, memory=False, noise=3.0)
    by_groups = chosen_penalty(recipe, dataset)
    by_time = dataclasses.replace(recipe, split=SplitSection(0.6, 0.2))
    assert by_groups >= chosen_penalty(by_time, dataset_of(by_time, dataset.recording))


def test_a_candidate_must_win_in_more_than_one_group() -> None:
    simpler = np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert share_better(simpler - 0.02, simpler) == 1.0
    assert share_better(simpler - np.array([0.2, -0.05, -0.05, -0.05, -0.05, 0.02]), simpler) < 0.6
    assert share_better(simpler, simpler) == 0.0


def test_an_absent_class_has_no_weight_and_the_others_balance(recipe_of: Make, recording_of: Make) -> None:
    recipe, dataset = people(recipe_of, recording_of, memory=False)
    balanced = dataclasses.replace(recipe, classify=dataclasses.replace(recipe.classify, balance=True))
    targets = np.zeros((len(dataset), 3))
    targets[:, 0] = 1.0
    targets[::4, 0], targets[::4, 1] = 0.0, 1.0
    weights = class_weights(dataclasses.replace(dataset, targets=targets), balanced)
    np.testing.assert_allclose(weights, [1 / (2 * 0.75), 1 / (2 * 0.25), 0.0], rtol=0.01)


def test_single_steps_and_pooled_votes_follow_from_one_another(recipe_of: Make, recording_of: Make) -> None:
    _, dataset = people(recipe_of, recording_of, memory=False)
    single = np.random.default_rng(1).dirichlet([1, 1], len(dataset))
    kept, pooled = single_and_pooled(dataset, single, pool=False)
    np.testing.assert_array_equal(kept, single)
    np.testing.assert_allclose(pooled[299], single[:300].mean(axis=0))
    back, _ = single_and_pooled(dataset, pooled, pool=True)
    np.testing.assert_allclose(back, single, atol=1e-9)
    single[7] = np.nan
    assert likeliest(single)[6:9].tolist() == [single[6].argmax(), -1, single[8].argmax()]
    assert not one_class_each(dataset)


def rare_days(recording_of: Make) -> object:
    """30 days of 100 steps of 1 and -1 by chance; on days 5, 16 and 26, 56 steps follow a pattern: "faulty"."""
    random = np.random.default_rng(1)
    values, faulty = random.choice([-1.0, 1.0], size=(30, 100)), np.zeros((30, 100))
    for day in (5, 16, 26):
        values[day, :60] = np.tile([1.0, 1.0, -1.0, -1.0], 15)
        faulty[day, 4:60] = 1
    values = values.ravel() + random.normal(0, 0.1, 3000)
    recording = recording_of([("s", 60.0 * at, [value]) for at, value in enumerate(values)])
    return with_label(recording, "state", faulty.ravel(), ("fine", "faulty"))


@pytest.mark.parametrize(("keys", "least", "most"), [({}, 0.0, 0.55), ({"balance": True, "rare_chunks": 0.5}, 0.77, 1)])
def test_a_class_of_three_percent_on_one_day_is_learned(
    recipe_of: Make, recording_of: Make, keys: dict[str, object], least: float, most: float
) -> None:
    recipe = of_task(
        recipe_of(
            fit=FitSection(updates=400, segments=8, chunk=40, learning_rate=0.02),
            model=ModelSection(hidden=12, linear=True),
        ),
        classify=ClassifySection("state", classes=["fine", "faulty"], **keys),
    )
    recipe = dataclasses.replace(recipe, split=SplitSection(0.5, 0.1))
    dataset = dataset_of(recipe, rare_days(recording_of))
    train, test = dataset.steps("train"), dataset.steps("test")
    assert dataset.targets[train, 1].mean() < 0.04
    predicted = predict_streamed(fit(recipe, dataset, np.ones(2)).model, dataset)[test].argmax(axis=1)
    truth = dataset.targets[test].argmax(axis=1)
    f1 = [
        2 * ((truth == one) & (predicted == one)).sum() / ((truth == one).sum() + (predicted == one).sum())
        for one in (0, 1)
    ]
    assert least <= np.mean(f1) <= most
