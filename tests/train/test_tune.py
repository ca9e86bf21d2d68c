"""The hyperparameter search."""

from __future__ import annotations

import dataclasses
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.recording import Recording, recording_csv
from edge_lstm_train import tune as tuning
from edge_lstm_train.data.dataset import read_dataset
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.model import candidates
from edge_lstm_train.recipe.recipe import Recipe, read_recipe
from edge_lstm_train.recipe.training_sections import FitSection, Range
from edge_lstm_train.run import choose
from edge_lstm_train.tune import Budget, changed_recipe, trials_section, tune

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


def test_a_search_stops_resumes_and_keeps_its_budget(recipe: Recipe, tmp_path: Path) -> None:
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
    forked = multiprocessing.get_context("fork")  # they have the imports already
    both = [forked.Process(target=tune, args=(recipe, 6, storage, "waves", Budget())) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(120)
    assert [one.exitcode for one in both] == [0, 0]
    _, rows = tune(recipe, 6, storage, "waves", Budget()).table
    assert 6 <= len(rows) <= 7  # the last of each may run at once


def test_a_budget_that_no_trial_meets_is_reported(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(EdgeLstmError, match="expected a trial within the budget, found none in 2"):
        tune(recipe, 2, f"sqlite:///{tmp_path}/trials.db", "waves", Budget(parameters=10))


def test_a_key_that_cannot_be_tuned_is_named(recipe: Recipe, tmp_path: Path) -> None:
    wrong = dataclasses.replace(recipe, tune={"model.hiden": Range(choices=[1.0])})
    with pytest.raises(EdgeLstmError, match=r'found "model\.hiden"'):
        tune(wrong, 1, f"sqlite:///{tmp_path}/trials.db", "waves", Budget())


def test_integers_stay_integers_within_their_bounds(recipe_of: Make) -> None:
    changed = changed_recipe(recipe_of(fit=FitSection(updates=16)), {"model.hidden": 24.0, "fit.chunk": 50.0})
    assert (changed.model.hidden, changed.fit.chunk) == (24, 50)
    with pytest.raises(EdgeLstmError, match="hidden"):
        changed_recipe(recipe_of(), {"model.hidden": 2000.0})


def test_integer_ranges_and_switches_are_sampled_as_integers(recipe: Recipe, tmp_path: Path) -> None:
    space = {
        "model.hidden": Range(least=2, most=5),
        "model.learned_start": Range(choices=[0, 1]),
        "fit.method": Range(texts=["windows"]),
        "fit.window": Range(choices=[6, 9000]),  # no run is that long
    }
    found = tune(dataclasses.replace(recipe, tune=space), 6, f"sqlite:///{tmp_path}/trials.db", "waves", Budget())
    header, rows = found.table
    assert header[4:] == ["fit.method", "fit.window", "model.hidden", "model.learned_start"]
    assert {row[6] for row in rows} <= set("2345")
    assert (type(found.recipe.model.hidden), type(found.recipe.model.learned_start)) == (int, bool)
    assert found.recipe.fit.window == 6
    assert len(rows) + len(found.refused) == 6
    assert all("expected windows of 9000 steps in the training part" in why for why in found.refused)
    note = trials_section(found).blocks[-1]
    assert not found.refused or f"{len(found.refused)} trial" in note.text


def test_a_resumed_search_tries_the_same_trials(recipe: Recipe, tmp_path: Path) -> None:
    def rates(*, stops: bool) -> list[str]:
        storage = f"sqlite:///{tmp_path}/{stops}.db"
        if stops:
            tune(recipe, 2, storage, "waves", Budget())
        _, rows = tune(recipe, 4, storage, "waves", Budget()).table
        return [row[4] for row in sorted(rows, key=lambda row: int(row[0]))]

    whole = rates(stops=False)
    assert len(set(whole)) == 4
    assert rates(stops=True) == whole


def test_a_study_of_another_recipe_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    storage = f"{tmp_path}/trials.log"  # a journal
    first = tune(recipe, 1, storage, "waves", Budget())
    (tmp_path / "elsewhere").mkdir()
    for name in ("waves.csv", "waves.toml"):
        shutil.copy(tmp_path / name, tmp_path / "elsewhere")
    elsewhere = read_recipe(tmp_path / "elsewhere/waves.toml")
    assert tune(elsewhere, 1, storage, "waves", Budget()).table == first.table
    other = dataclasses.replace(recipe, tune={"model.hidden": Range(choices=[3])})
    with pytest.raises(EdgeLstmError, match='expected the search of this recipe in the study "waves"'):
        tune(other, 1, storage, "waves", Budget())
    assert len(tune(other, 1, storage, "threes", Budget()).table[1]) == 1


@pytest.mark.parametrize(
    "storage", ["sqlite:////no/such/folder/trials.db", "nothing://x", "/no/such/folder/trials.log"]
)
def test_a_storage_that_cannot_be_opened_is_reported(
    recipe: Recipe, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_WAIT_S", 0.0)
    with pytest.raises(EdgeLstmError, match=f"expected a storage of trials at {storage}, found: "):
        tune(recipe, 1, storage, "waves", Budget())


def test_ctrl_c_ends_the_search_without_the_unfinished_trial(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = f"sqlite:///{tmp_path}/trials.db"
    whole = tuning.fit

    def interrupted(*arguments: Any, **options: Any) -> Any:
        return dataclasses.replace(whole(*arguments, **options), interrupted_at=9)

    with monkeypatch.context() as patched:
        patched.setattr(tuning, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tune(recipe, 3, storage, "waves", Budget())
    _, rows = tune(recipe, 1, storage, "waves", Budget()).table
    assert [row[0] for row in rows] == ["1"]


@pytest.mark.parametrize("highway", [None, 2])
def test_a_trial_starts_as_train_starts_its_richest_candidate(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, highway: int | None
) -> None:
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, highway=highway))
    recipe = dataclasses.replace(recipe, tune={"model.hidden": Range(choices=[2])})
    starts = []
    for module in (tuning, candidates):
        whole = module.fit

        def seen(own: Recipe, *more: Any, whole: Any = whole, **options: Any) -> Any:
            fitted = whole(own, *more, **options)
            if own.model.depth and own.model.has_highway:
                starts.append((own.model, fitted.curve[0].validation_error))
            return fitted

        monkeypatch.setattr(module, "fit", seen)
    found = tune(recipe, 1, f"sqlite:///{tmp_path}/trials.db", "waves", Budget())
    dataset = read_dataset(found.recipe)
    choose(found.recipe, dataset, fit_baselines(dataset))
    assert len(starts) == 2
    assert starts[0] == starts[1]
