"""The search for a recipe."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_lstm.errors import EdgeLstmError
from edge_lstm.recording import Recording, recording_csv
from edge_lstm_train.recipe import Recipe, read_recipe
from edge_lstm_train.sections import FitSection, Range
from edge_lstm_train.tune import Budget, changed_recipe, tune

Make = Callable[..., Recipe]
RECIPE = """
name = "waves"
[recording]
path = "waves.csv"
stream_column = "stream"
[features.x]
[forecast]
targets = ["x"]
horizons = [4]
[model]
hidden = 4
[fit]
updates = 16
segments = 4
chunk = 20
[tune]
"model.hidden" = {choices = [2, 6, 40]}
"fit.learning_rate" = {least = 0.001, most = 0.02, log = true}
"""


@pytest.fixture
def recipe(tmp_path: Path, waves: Recording) -> Recipe:
    (tmp_path / "waves.csv").write_text(recording_csv(waves))
    (tmp_path / "waves.toml").write_text(RECIPE)
    return read_recipe(tmp_path / "waves.toml")


def test_a_search_stops_at_its_trials_goes_on_where_it_was_and_keeps_the_budget(recipe: Recipe, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/trials.db"
    first = tune(recipe, 3, storage, "waves", Budget(parameters=400))
    again = tune(recipe, 3, storage, "waves", Budget(parameters=400))  # nothing is left to do
    assert again.table == first.table
    more = tune(recipe, 8, storage, "waves", Budget(parameters=400))
    header, rows = more.table
    assert header == ["trial", "validation error", "parameters", "step (µs)", "fit.learning_rate", "model.hidden"]
    assert 1 <= len(rows) <= 8
    assert rows[: len(rows)] == sorted(rows, key=lambda row: float(row[1]))
    assert {row[-1] for row in rows} <= {"2", "6"}  # 40 units are 6,761 parameters
    assert more.error <= first.error
    assert more.recipe.model.hidden in (2, 6)


def test_two_processes_share_a_search(recipe: Recipe, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/trials.db"
    tune(recipe, 1, storage, "waves", Budget())  # makes the tables: two at once would both try
    code = (
        "import sys; from edge_lstm_train.recipe import read_recipe; from edge_lstm_train.tune import Budget, tune; "
        "tune(read_recipe(sys.argv[1]), 6, sys.argv[2], 'waves', Budget())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "waves.toml"), storage]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [one.wait(timeout=120) for one in both] == [0, 0]
    _, rows = tune(recipe, 6, storage, "waves", Budget()).table
    assert 6 <= len(rows) <= 7  # the last of each may run at once


def test_a_budget_that_nothing_fits_is_told(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(EdgeLstmError, match="expected a trial within the budget, found none in 2"):
        tune(recipe, 2, f"sqlite:///{tmp_path}/trials.db", "waves", Budget(parameters=10))


def test_a_key_that_cannot_be_tuned_is_named(recipe: Recipe, tmp_path: Path) -> None:
    wrong = dataclasses.replace(recipe, tune={"model.hiden": Range(choices=[1.0])})
    with pytest.raises(EdgeLstmError, match=r'found "model\.hiden"'):
        tune(wrong, 1, f"sqlite:///{tmp_path}/trials.db", "waves", Budget())


def test_whole_numbers_stay_whole_and_bounds_hold(recipe_of: Make) -> None:
    changed = changed_recipe(recipe_of(fit=FitSection(updates=16)), {"model.hidden": 24.0, "fit.chunk": 50.0})
    assert (changed.model.hidden, changed.fit.chunk) == (24, 50)
    with pytest.raises(EdgeLstmError, match="hidden"):
        changed_recipe(recipe_of(), {"model.hidden": 2000.0})
