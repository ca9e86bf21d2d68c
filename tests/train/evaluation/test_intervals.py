"""Intervals hold as often as they say, on steps that the model and the calibration have not seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.streaming.reading import Prediction
from edge_lstm_train.data.dataset import Dataset, dataset_of
from edge_lstm_train.evaluation.intervals import calibrated_intervals, conformal_quantile, held
from edge_lstm_train.recipe.recipe import read_recipe
from edge_lstm_train.run import train

Make = Callable[..., Any]


def test_the_conformal_quantile_counts_the_step_that_is_to_come() -> None:
    scores = np.arange(1.0, 20.0)  # 1 to 19
    assert conformal_quantile(scores, 0.9) == 18  # the 18th of 19: (19 + 1) * 0.9
    assert conformal_quantile(scores, 0.95) == 19
    assert conformal_quantile(scores[::-1].copy(), 0.5) == 10


def noisy(recipe_of: Make, recording_of: Make, spread: np.ndarray, interval_s: float = 3600.0) -> Dataset:
    """A dataset of noise with this spread at each step; its best forecast is 0."""
    noise = np.random.default_rng(4).normal(0, 1, len(spread)) * spread
    return dataset_of(recipe_of(), recording_of([("s", interval_s * at, [value]) for at, value in enumerate(noise)]))


def forecasts(dataset: Dataset) -> list[Prediction]:
    """0 at each step, with the contract's bands."""
    from edge_lstm.decisions.forecasts.bands import Bands

    bounds = Bands(dataset.contract)(np.zeros((len(dataset), 1), np.float32), dataset.times)[:, 0].tolist()
    return [
        Prediction("s", time, 1, 1, {"x": {1: 0.0}}, bands={"x": {1: (low, high)}})
        for time, (low, high) in zip(dataset.times.tolist(), bounds, strict=True)
    ]


def test_an_interval_holds_as_often_as_it_says(recipe_of: Make, recording_of: Make) -> None:
    dataset = noisy(recipe_of, recording_of, np.ones(10_000))
    found = calibrated_intervals(dataset, np.zeros((len(dataset), 1)), 0.9)
    assert found.by_hour == []  # every hour is alike
    assert found.widths == [pytest.approx(1.645, rel=0.05)]  # of a normal distribution
    dataset = dataclasses.replace(dataset, contract=dataclasses.replace(dataset.contract, intervals=found))
    (one,) = held(dataset, forecasts(dataset))
    assert one.share == pytest.approx(0.9, abs=0.02)
    assert one.width == pytest.approx(2 * found.widths[0], rel=1e-6)
    assert one.pairs > 1900


def test_noise_that_follows_the_hour_makes_intervals_that_follow_it(recipe_of: Make, recording_of: Make) -> None:
    hours = np.arange(40_000) % 24
    spread = np.where(hours < 12, 0.2, 2.0)  # the error of a forecast made at 11:00 is that of 12:00
    dataset = noisy(recipe_of, recording_of, spread)
    found = calibrated_intervals(dataset, np.zeros((len(dataset), 1)), 0.9)
    assert len(found.by_hour) == 24
    assert found.widths[0] * found.by_hour[3] == pytest.approx(1.645 * 0.2, rel=0.25)
    assert found.widths[0] * found.by_hour[15] == pytest.approx(1.645 * 2.0, rel=0.25)
    dataset = dataclasses.replace(dataset, contract=dataclasses.replace(dataset.contract, intervals=found))
    (one,) = held(dataset, forecasts(dataset))
    assert one.share == pytest.approx(0.9, abs=0.03)
    halves = [np.mean([share for hour, share in one.by_hour.items() if (hour < 12) == morning]) for morning in (0, 1)]
    assert halves == pytest.approx([0.9, 0.9], abs=0.03)  # with one width for both they would be .80 and 1


def test_too_few_validation_steps_for_the_probability_are_refused(recipe_of: Make, recording_of: Make) -> None:
    dataset = noisy(recipe_of, recording_of, np.ones(100))
    with pytest.raises(EdgeLstmError, match=r"intervals = 0.99: expected at least 99 .* known x 1 step ahead, found"):
        calibrated_intervals(dataset, np.zeros((len(dataset), 1)), 0.99)


def test_a_training_puts_its_intervals_into_checkpoint_metrics_and_report(
    recipe_of: Make, waves: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_lstm_train.run.read_dataset", lambda recipe: dataset_of(recipe, waves))
    monkeypatch.setattr("edge_lstm_train.run.recording_files", lambda path: [])
    recipe = recipe_of()
    recipe = dataclasses.replace(recipe, forecast=dataclasses.replace(recipe.forecast, intervals=0.8))
    run = train(recipe, tmp_path)
    assert run.checkpoint.contract.intervals is not None
    (figures,) = run.evaluation.figures["intervals"]
    assert figures["level"] == 0.8
    assert figures["share"] == pytest.approx(0.8, abs=0.15)
    assert set(figures["by_stream"]) == {"a", "b"}
    assert "Intervals that should hold 80 %" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_too_few_steps_for_the_intervals_are_refused_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{1_700_000_000 + 60 * at},{at * 7919 % 101}" for at in range(200)]  # 39 of validation are known
    (tmp_path / "pump.csv").write_text("\n".join(["time,level", *rows]) + "\n")
    (tmp_path / "pump.toml").write_text(
        'name = "pump"\n[recording]\npath = "pump.csv"\n[features.level]\n'
        '[forecast]\ntargets = ["level"]\nhorizons = [1]\nintervals = 0.99\n'
    )
    monkeypatch.setattr("edge_lstm_train.run.choose", lambda *arguments, **more: pytest.fail("it trained"))
    with pytest.raises(EdgeLstmError, match="at least 99 validation steps with a known level 1 step ahead, found 39"):
        train(read_recipe(tmp_path / "pump.toml"), tmp_path / "run")
