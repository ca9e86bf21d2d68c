"""Opponents: shown beside the model where a recipe wants them and their libraries are installed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm_train.evaluation.opponents import _smoothed
from edge_lstm_train.recipe.recipe import read_recipe
from edge_lstm_train.recipe.training_sections import ReportSection
from edge_lstm_train.run import train


def test_a_missing_library_is_named_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    recipe = dataclasses.replace(read_recipe("weather"), report=ReportSection(opponents=True))
    with pytest.raises(EdgeLstmError) as caught:
        train(recipe, tmp_path / "run")
    assert caught.value.message == "sklearn is not installed here"
    assert caught.value.hint == "run pip install 'edge-lstm[opponents]'"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("horizon", [1, 5, 12, 17])
def test_exponential_smoothing_follows_a_season_and_a_level(horizon: int) -> None:
    pytest.importorskip("statsmodels")
    pattern = np.random.default_rng(0).normal(0, 5, 12)
    values = 100.0 + np.tile(pattern, 20) + np.random.default_rng(1).normal(0, 0.1, 240)
    forecasts = _smoothed(values, np.arange(240) < 150, 12, [horizon])[horizon]
    error = forecasts[150 : 240 - horizon] - values[150 + horizon :]
    assert np.sqrt((error**2).mean()) < 0.3  # the season has a deviation of 4
