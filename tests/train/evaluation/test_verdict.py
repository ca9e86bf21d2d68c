"""Evaluation of a run: all models on the same steps, scores per stream, and a true verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from edge_lstm.recordings.recording import Recording
from edge_lstm.streaming.reading import Prediction
from edge_lstm_train.data.dataset import Dataset, dataset_of
from edge_lstm_train.evaluation.alarms import detection
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.evaluation.classification import MARKOV, class_baselines, logistic_logits, recordings_score
from edge_lstm_train.evaluation.evaluate import Evaluation, evaluate
from edge_lstm_train.evaluation.predictions import predict, predictions_by_step
from edge_lstm_train.model.initial_model import initial_model
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.recording_sections import FeatureSection
from edge_lstm_train.recipe.task_sections import AnomalySection, ClassifySection
from edge_lstm_train.recipe.training_sections import SplitSection
from tests.train.conftest import of_task, with_label

Make = Callable[..., Recipe]


def judged_untrained(recipe: Recipe, recording: Recording) -> Evaluation:
    dataset = dataset_of(recipe, recording)
    baselines = None if recipe.classify is not None else fit_baselines(dataset)
    spread = np.ones(dataset.targets.shape[1]) if baselines is None else baselines.residual
    network = initial_model(recipe, dataset, spread).network()
    return evaluate(recipe, dataset, baselines, predict(dataset.contract, network, recording))


def captions(judged: Evaluation, title: str) -> list[str]:
    (section,) = [one for one in judged.sections if one.title.startswith(title)]
    return [block.caption for block in section.blocks if hasattr(block, "caption")]


def test_each_stream_has_scores_of_the_model_and_every_baseline(recipe_of: Make, waves: Recording) -> None:
    judged = judged_untrained(recipe_of(horizons=[1, 4], season=25), waves)
    by_stream = judged.figures["by_stream"]
    assert list(by_stream) == ["a", "b"]
    for place, whole in enumerate(judged.figures["test"]):
        own = [scores[place] for scores in by_stream.values()]
        assert sum(one["pairs"] for one in own) == whole["pairs"]
        for name in ("model", "persistence", "seasonal-naive", "ridge"):
            squares = sum(one["pairs"] * one["rmse"][name] ** 2 for one in own)
            assert squares / whole["pairs"] == pytest.approx(whole["rmse"][name] ** 2)
    (section,) = [one for one in judged.sections if one.title == "By stream, the worst first"]
    assert [table.header[0] for table in section.blocks] == ["x 1 step ahead", "x 4 steps ahead"]
    assert {row[0] for row in section.blocks[0].rows} == {"a", "b"}


def test_the_report_lists_the_worst_streams_and_the_figures_all(recipe_of: Make, recording_of: Make) -> None:
    random = np.random.default_rng(1)
    names = [f"s{index:02d}" for index in range(15)]
    rows = [(name, 60.0 * at, [random.normal(0, 1 + index)]) for at in range(60) for index, name in enumerate(names)]
    judged = judged_untrained(recipe_of(), recording_of(rows))
    assert list(judged.figures["by_stream"]) == names
    table, note = judged.sections[-1].blocks
    errors = [float(row[1]) for row in table.rows]
    assert len(errors) == 12
    assert errors == sorted(errors, reverse=True)
    assert note.text == "The 12 worst of 15 streams; metrics.json has them all."


def test_every_target_is_plotted_with_its_quantile_band(recipe_of: Make, recording_of: Make) -> None:
    random = np.random.default_rng(1)
    rows = [("s", 60.0 * at, random.normal(size=2).tolist()) for at in range(200)]
    recipe = recipe_of(features={"x": False, "y": False}, horizons=[1, 2])
    forecast = dataclasses.replace(recipe.forecast, targets=["x", "y"], quantiles=[0.1, 0.5, 0.9])
    judged = judged_untrained(dataclasses.replace(recipe, forecast=forecast), recording_of(rows, ("x", "y")))
    drawn = captions(judged, "The end of the test part")
    assert drawn == [f"{name}, forecast {steps} ahead" for name in "xy" for steps in ("1 step", "2 steps")]


def test_the_ridge_baseline_of_quantiles_is_that_of_their_target(recipe_of: Make, waves: Recording) -> None:
    recipe = recipe_of(horizons=[1, 4])
    ranged = dataclasses.replace(recipe, forecast=dataclasses.replace(recipe.forecast, quantiles=[0.1, 0.9]))
    alone, beside = (fit_baselines(dataset_of(one, waves)) for one in (recipe, ranged))
    assert beside.ridge.choices == alone.ridge.choices * 3
    for place in range(3):
        own = beside.predictions["ridge"][:, 2 * place : 2 * place + 2]
        np.testing.assert_allclose(own, alone.predictions["ridge"], rtol=1e-12)


def test_steps_closer_than_a_millisecond_keep_their_own_predictions(recipe_of: Make, recording_of: Make) -> None:
    rows = [("s", 1.7e9 + at / 8000, [float(at % 5)]) for at in range(200)]
    dataset = dataset_of(recipe_of(), recording_of(rows))
    times = enumerate(dataset.times.tolist(), 1)
    predicted = [Prediction("s", time, step, step, {"x": {1: 0.0}}) for step, time in times]
    assert [row for row, _ in predictions_by_step(dataset, predicted)] == list(range(200))
    told = [one._replace(time=one.time + 0.0004) for one in predicted[::40]]  # as MQTT rounds them
    assert len(list(predictions_by_step(dataset, told))) == 5


def gestures(recipe_of: Make, recording_of: Make) -> tuple[Recipe, Dataset]:
    """Ten recordings of 20 steps, each of one class; the last two are for testing."""
    rows = [(f"r{index}", 1e5 * index + at, [float(at % 3)]) for index in range(10) for at in range(20)]
    recipe = of_task(recipe_of(), classify=ClassifySection("move", classes=["up", "down"], pool=True))
    split = SplitSection(0.7, 0.3, by="stream", leave_out=["r8", "r9"])
    recipe = dataclasses.replace(recipe, split=split)
    move = np.repeat(np.arange(10) % 2.0, 20)
    return recipe, dataset_of(recipe, with_label(recording_of(rows), "move", move, ("up", "down")))


def test_a_vote_is_scored_at_the_end_of_each_recording(recipe_of: Make, recording_of: Make) -> None:
    _, dataset = gestures(recipe_of, recording_of)
    truth = np.arange(200) // 20 % 2
    predicted = np.where(np.arange(200) % 20 < 15, 1 - truth, truth)  # right in the end
    often = np.where(np.arange(200) % 20 < 15, 0, 1)
    score = recordings_score(dataset, {"often": often}, predicted, "move")
    assert (score.pairs, score.counted) == (2, "recordings")
    assert score.accuracy == {"model": 1.0, "often": 0.5}
    assert score.confusion.tolist() == [[1, 0], [0, 1]]


def test_the_verdict_of_a_vote_counts_recordings(recipe_of: Make, recording_of: Make) -> None:
    recipe, dataset = gestures(recipe_of, recording_of)
    judged = judged_untrained(recipe, dataset.recording)
    assert "of 2 recordings" in judged.verdict
    assert [one["of"] for one in judged.figures["test"]] == ["recordings", "steps"]
    assert [row[0] for row in judged.table[1]][::2] == [
        "accuracy of recordings",
        "accuracy of steps",
        "log loss of steps",
    ]
    assert list(judged.figures["by_stream"]) == ["r8", "r9"]


def test_a_markov_chain_predicts_the_majority_after_unseen_symbols(recipe_of: Make, recording_of: Make) -> None:
    words = np.array([1, 2] * 150 + [0, 1] * 50 + [1, 2, 2, 2] * 10, float)
    recording = recording_of([("s", 60.0 * at, [word]) for at, word in enumerate(words)])
    recording = dataclasses.replace(recording, categories={"x": ("a", "b", "c")})
    recipe = of_task(recipe_of(), classify=ClassifySection("x", classes=["a", "b", "c"], ahead=1))
    recipe = dataclasses.replace(recipe, features={"x": FeatureSection(categories=["a", "b", "c"])})
    dataset = dataset_of(recipe, recording)
    predicted = class_baselines(dataset, logistic_logits(recipe, dataset))
    after_a = np.flatnonzero(words == 0)[5:-5]
    assert set(predicted[MARKOV][after_a]) == set(predicted["majority"]) != {0}


def alarms_of(recipe_of: Make, recording_of: Make, truth: np.ndarray | None) -> tuple[Dataset, detection.AlarmScore]:
    """Two streams of 50 steps, the last ten for testing: one ends and the next begins its test part in alarm."""
    rows = [(name, 60.0 * at, [float((7 * at) % 11)]) for name in "ab" for at in range(50)]
    recording = recording_of(rows)
    recording = recording if truth is None else with_label(recording, "bad", truth)
    recipe = of_task(recipe_of(), anomaly=AnomalySection(calibrate_steps=20, truth=None if truth is None else "bad"))
    dataset = dataset_of(recipe, recording)
    raised = np.zeros(100, bool)
    raised[48:50] = raised[90:93] = raised[95] = True
    alarms = {"model": raised, "ridge": np.zeros(100, bool)}
    return dataset, detection.alarm_score(dataset, alarms, np.ones(100, bool), dataset.labels.get("bad"))


def test_alarms_do_not_run_over_from_stream_to_stream(recipe_of: Make, recording_of: Make) -> None:
    truth = np.zeros(100)
    truth[90:96] = 1
    dataset, score = alarms_of(recipe_of, recording_of, truth)
    assert (score.steps, score.episodes) == (20, {"model": 3, "ridge": 0, "always": 2})
    assert score.false_alarms["model"] == pytest.approx(2 / 14)
    assert score.missed["model"] == pytest.approx(2 / 6)
    own = detection.alarm_scores_by_stream(dataset, {"model": np.zeros(100, bool)}, np.ones(100, bool), truth)
    assert [one.anomalous for one in own.values()] == [0.0, 0.6]
    assert sorted(own.items(), key=detection.worst_first)[0][0] == "b"


def test_no_rate_is_reported_without_labels(recipe_of: Make, recording_of: Make) -> None:
    _, score = alarms_of(recipe_of, recording_of, None)
    for rates in (score.f1, score.false_alarms, score.missed):
        assert all(math.isnan(rate) for rate in rates.values())
    assert score.alarms["model"] == pytest.approx(6 / 20)
    assert detection.verdict(score).startswith("The truth is not known. The model raised 3 alarms, over 30.0 %")
    once = dataclasses.replace(score, episodes={"model": 1, "ridge": 0, "always": 1})
    assert "The model raised 1 alarm, over 30.0 % of" in detection.verdict(once)
    assert "ridge no alarms, over" in detection.verdict(once)
    part = np.zeros(100)
    part[90:96] = math.nan
    _, score = alarms_of(recipe_of, recording_of, part)
    assert score.steps == 14  # what is not known is not asked


def test_a_test_part_without_anomalies_has_no_f1(recipe_of: Make, recording_of: Make) -> None:
    _, score = alarms_of(recipe_of, recording_of, np.zeros(100))
    assert detection.verdict(score) == (
        "The 20 scored steps hold no anomaly, so every alarm is a false one: the model was in "
        "alarm for 30.0 % of them, ridge for 0.0 %."
    )
    assert detection.figures(score)["f1"] == {"model": None, "ridge": None, "always": None}


def test_thresholds_trade_false_alarms_for_missed_ones(recipe_of: Make, recording_of: Make) -> None:
    truth = np.zeros(100)
    truth[90:96] = 1
    dataset, _ = alarms_of(recipe_of, recording_of, truth)
    scores = np.where(truth > 0, 1.5, 0.5)
    levels, false, missed = detection.over_thresholds(dataset, scores, truth)
    shares = dict(zip(levels, zip(false, missed, strict=True), strict=True))
    assert [shares[level] for level in (0.0, 1.0, 3.0)] == [(1.0, 0.0), (0.0, 0.0), (0.0, 1.0)]
    assert detection.over_thresholds(dataset, scores, np.zeros(100))[2] == []
    assert detection.over_thresholds(dataset, np.full(100, np.nan), truth) == ([], [], [])
