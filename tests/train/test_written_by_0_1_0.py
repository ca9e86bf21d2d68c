"""Recipes and runs written by 0.1.0 are read as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomllib

from edge_lstm_train.data.dataset import read_dataset
from edge_lstm_train.model.checkpoint import load_checkpoint
from edge_lstm_train.recipe.recipe import Recipe, read_recipe
from tests.written_states import WRITTEN, assert_holds, plain

RECIPES: dict[str, Any] = json.loads((WRITTEN / "recipes.json").read_text(encoding="utf-8"))
FOUND = [("anomaly", "factor"), ("model", "highway")]  # found from data now, where a recipe lacks the key
RUNS: dict[str, Any] = json.loads((WRITTEN / "runs.json").read_text(encoding="utf-8"))


def facts_of(recipe: Recipe) -> Any:
    facts = plain(recipe)
    facts["recording"]["path"] = Path(facts["recording"]["path"]).name
    return facts


@pytest.mark.parametrize("task", RECIPES)
def test_a_short_recipe_gives_the_recorded_values(task: str) -> None:
    path, recorded = WRITTEN / f"recipes/{task}.toml", dict(RECIPES[task])
    facts, given = facts_of(read_recipe(path)), tomllib.loads(path.read_text(encoding="utf-8"))
    for section, name in FOUND:
        if recorded[section] is not None and name not in given.get(section, {}):
            assert facts[section][name] is None
            recorded[section] = {key: value for key, value in recorded[section].items() if key != name}
    assert_holds(facts, recorded, task)


@pytest.mark.parametrize("task", RECIPES)
def test_a_recipe_with_every_key_gives_the_recorded_values(task: str) -> None:
    assert_holds(facts_of(read_recipe(WRITTEN / f"runs/{task}/recipe.toml")), RECIPES[task], task)


@pytest.mark.parametrize("task", RUNS)
def test_the_recipe_of_a_run_finds_its_recording(task: str) -> None:
    dataset = read_dataset(read_recipe(WRITTEN / f"runs/{task}/recipe.toml"))
    # whole intervals of 120 s on the grid, else a step each minute
    assert len(dataset.features) == (199 if task == "regress" else 400)
    assert [name for name, _ in dataset.contract.outputs] == [
        name for name, _ in load_checkpoint(WRITTEN / "runs" / task).contract.outputs
    ]


@pytest.mark.parametrize("task", RUNS)
def test_a_checkpoint_gives_the_recorded_predictions(task: str) -> None:
    checkpoint, recorded = load_checkpoint(WRITTEN / "runs" / task), RUNS[task]
    assert_holds(plain(checkpoint.contract), recorded["contract"], "contract")
    assert_holds(plain(checkpoint.model.shape), recorded["shape"], "shape")
    assert checkpoint.model.network().parameters == recorded["parameters"]
    assert len(checkpoint.input_sequence) == recorded["tape_steps"]
    predicted, _ = checkpoint.model.stream(checkpoint.input_sequence)
    np.testing.assert_allclose(predicted[-3:], recorded["predicted_last"], rtol=1e-5, atol=1e-6)
