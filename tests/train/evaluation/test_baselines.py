"""The baselines give the numbers that one computes by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge_lstm.streaming.reading import Prediction
from edge_lstm_train.data.dataset import dataset_of
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.evaluation.regression import Score, score, table_text, verdict

Make = Callable[..., Any]


def test_naive_baselines_are_the_last_value_and_the_last_season(recipe_of: Make, recording_of: Make) -> None:
    recording = recording_of([("s", 60.0 * index, [10.0 * index]) for index in range(60)])
    dataset = dataset_of(recipe_of(horizons=[1, 3, 5], season=4), recording)
    baselines = fit_baselines(dataset)
    assert baselines.predictions["persistence"][10].tolist() == [100, 100, 100]
    # For 11, 13 and 15 the last values seen at the same place of the season are those of 7, 9 and 7.
    assert baselines.predictions["seasonal-naive"][10].tolist() == [70, 90, 70]
    assert baselines.predictions["seasonal-naive"][2].tolist() == [20, 10, 20]  # no season yet: the newest value


def test_ridge_recovers_an_autoregression_and_its_noise(recipe_of: Make, recording_of: Make) -> None:
    random = np.random.default_rng(1)
    noise = random.normal(0, 1.0, 4000)
    series = np.zeros(4000)
    for index in range(2, 4000):
        series[index] = 1.2 * series[index - 1] - 0.5 * series[index - 2] + noise[index]
    recording = recording_of([("s", 60.0 * index, [value]) for index, value in enumerate(series)])
    dataset = dataset_of(recipe_of(horizons=[1, 2]), recording)
    baselines = fit_baselines(dataset)
    # One step ahead only the noise is left; two steps ahead 1.2 times the first noise is added to it.
    np.testing.assert_allclose(baselines.residual, [1.0, np.sqrt(1 + 1.2**2)], rtol=0.03)
    said = baselines.predictions["ridge"][3000, 0]
    assert said == pytest.approx(1.2 * series[3000] - 0.5 * series[2999], abs=0.15)


def test_ridge_learns_nothing_from_the_test_part(recipe_of: Make, recording_of: Make) -> None:
    random = np.random.default_rng(2)
    values = random.normal(0, 1, 300).cumsum()
    other = np.concatenate([values[:240], random.normal(50, 9, 60)])
    said = [
        fit_baselines(
            dataset_of(recipe_of(), recording_of([("s", 60.0 * index, [one]) for index, one in enumerate(series)]))
        ).predictions["ridge"]
        for series in (values, other)
    ]
    np.testing.assert_array_equal(said[0][:240], said[1][:240])


def test_scores_compare_all_models_on_the_same_steps(recipe_of: Make, recording_of: Make) -> None:
    values = [0.0, 3.0] * 8 + [0.0, 3.0, 3.0, 7.0]
    recording = recording_of([("s", 60.0 * index, [value]) for index, value in enumerate(values)])
    dataset = dataset_of(recipe_of(), recording)
    baselines = fit_baselines(dataset)
    # Steps 16 to 18 have a target (3, 3, 7); the prediction for step 17 was lost, and one is of another time.
    said = [(16, 2.0), (18, 7.0), (30, 99.0)]
    predictions = [Prediction("s", 60.0 * index, index, index, {"x": {1: value}}) for index, value in said]
    (one,) = score(dataset, baselines, predictions)
    assert one.pairs == 2
    assert one.rmse["model"] == pytest.approx(np.sqrt((1 + 0) / 2))
    assert one.mae["model"] == pytest.approx(0.5)
    assert one.rmse["persistence"] == pytest.approx(np.sqrt((3**2 + 4**2) / 2))
    assert one.skill() == pytest.approx(1 - np.sqrt(1 / 25))
    ridge = f"{one.rmse['ridge']:.2f}"
    assert table_text([one]).splitlines()[1].split() == ["x", "1", "0.71", "3.54", ridge, "80.0", "%", "2"]


def test_the_verdict_names_a_better_baseline(recipe_of: Make, recording_of: Make) -> None:
    values = np.random.default_rng(3).normal(0, 1, 100).cumsum()
    recording = recording_of([("s", 60.0 * index, [value]) for index, value in enumerate(values)])
    dataset = dataset_of(recipe_of(horizons=[1, 2]), recording)
    baselines = fit_baselines(dataset)
    steps = [(index, values[index + 1], values[index] + 50) for index in range(80, 97)]  # right; absurd
    predictions = [Prediction("s", 60.0 * index, 1, 1, {"x": {1: one, 2: two}}) for index, one, two in steps]
    words = verdict(score(dataset, baselines, predictions))
    assert words.startswith("The model beats every baseline on 1 of 2 outputs (RMSE 100 % below the best of them)")
    assert "but not on the rest: x 2 steps ahead, " in words
    absurd = [Prediction("s", one.time, 1, 1, {"x": {1: 1e3, 2: 1e3}}) for one in predictions]
    words = verdict(score(dataset, baselines, absurd))
    assert words.startswith("The model does not beat the baselines: x 1 step ahead, ")


def test_a_gain_below_one_percent_counts_as_none_in_the_verdict() -> None:
    def scored(horizon: int, model: float) -> Score:
        rmse = {"model": model, "persistence": 2.0, "ridge": 1.0}
        return Score("x", "°C", horizon, 100, rmse, rmse, rmse)

    nothing = "adds nothing to ridge for x 1 step ahead (RMSE 0.99 and 1.00 °C); to ridge for x 6 steps ahead "
    nothing += "(RMSE 1.01 and 1.00 °C)."
    assert verdict([scored(1, 0.991), scored(6, 1.009)]) == f"The model {nothing}"
    assert verdict([scored(1, 0.991), scored(6, 1.009), scored(24, 0.9)]) == (
        f"The model beats every baseline on 1 of 3 outputs (RMSE 10 % below the best of them). It {nothing}"
    )
    assert verdict([scored(1, 0.991), scored(6, 1.009), scored(24, 1.2)]) == (
        f"The model {nothing} The model does not beat the baselines: x 24 steps ahead, ridge has an RMSE of 1.00 and "
        "the model 1.20 °C."
    )


def test_the_verdict_says_in_words_that_a_constant_would_be_better() -> None:
    rmse = {"model": 2.0, "mean": 3.0}
    words = verdict([Score("power", "kW", 0, 100, rmse, rmse, {"model": -0.25, "mean": -1.0})])
    assert words == (
        "The model beats every baseline on every output: its RMSE is 33 % below the best of them. "
        "Its error is larger than that of the test part's own mean, a constant: power (R² -0.250)."
    )
    assert "constant" not in verdict([Score("power", "kW", 0, 100, rmse, rmse, {"model": 0.0, "mean": -1.0})])
