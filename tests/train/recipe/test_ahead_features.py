"""A quantity that is known ahead: one feature for each step, written out in the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.bundle.contract import KnownAhead
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.columns import ValueColumn
from edge_lstm_train.recipe.recipe import Recipe, read_recipe
from edge_lstm_train.recipe.toml_text import recipe_toml

TOPIC = 'known_ahead = "weather/{stream}/forecast"'


def written(
    folder: Path, outdoor: str, rest: str = "", task: str = "forecast", interval: str = "interval_s = 3600"
) -> Path:
    section = '[forecast]\ntargets = ["indoor"]\nhorizons = [1, 6]' if task == "forecast" else '[regress]\ntarget = "x"'
    path = folder / "house.toml"
    path.write_text(
        f'name = "house"\ntask = "{task}"\n[recording]\npath = "house.csv"\n[features.indoor]\n'
        f"[features.outdoor]\n{outdoor}\n{rest}\n[sampling]\n{interval}\n{section}\n"
    )
    return path


def contract_features(recipe: Recipe) -> Sequence[str]:
    count = len(recipe.features)
    return [one.name for one in recipe.contract([0.0] * count, [1.0] * count).features]


def test_the_steps_are_the_horizons_and_each_is_a_feature_with_the_keys_of_the_quantity(tmp_path: Path) -> None:
    recipe = read_recipe(
        written(tmp_path, f'{TOPIC}\nunit = "°C"\nmask = true\ncolumn = "temp"\nderived = ["difference"]')
    )
    assert contract_features(recipe) == ["indoor", "outdoor", "outdoor+1", "outdoor+6"]
    later = recipe.features["outdoor+6"]
    assert (later.unit, later.mask, later.derived, later.aggregate) == ("°C", True, [], "last")
    contract = recipe.contract([0.0] * 4, [1.0] * 4)
    assert contract.known_ahead == [KnownAhead("outdoor", "weather/{stream}/forecast", [1, 6])]
    assert [one.name for one in contract.measured] == ["indoor", "outdoor"]
    assert recipe.ahead_columns["outdoor+6"].actual == ValueColumn("temp", [], categories=[], unit="°C")


def test_with_step_0_no_reading_holds_the_quantity(tmp_path: Path) -> None:
    recipe = read_recipe(
        written(tmp_path, f'{TOPIC}\nknown_ahead_steps = [0, 3]\nknown_ahead_between = "previous"\ncolumn = "price"')
    )
    assert contract_features(recipe) == ["indoor", "outdoor+0", "outdoor+3"]
    assert recipe.ahead_columns["outdoor+0"].actual == ValueColumn("price", [], categories=[])


def test_a_device_has_to_measure_something(tmp_path: Path) -> None:
    path = tmp_path / "house.toml"
    path.write_text(
        f'name = "x"\ntask = "regress"\n[recording]\npath = "x.csv"\n[features.outdoor]\n{TOPIC}\n'
        'known_ahead_steps = [0, 1]\n[sampling]\ninterval_s = 60\n[regress]\ntarget = "y"\n[labels.y]\n'
    )
    with pytest.raises(EdgeLstmError, match="expected one that a device measures beside those that are known ahead"):
        read_recipe(path)


@pytest.mark.parametrize("steps", ["", "known_ahead_steps = [0, 3]"])
def test_the_written_recipe_reads_back_the_same(tmp_path: Path, steps: str) -> None:
    recipe = read_recipe(written(tmp_path, f"{TOPIC}\n{steps}"))
    (tmp_path / "again.toml").write_text(recipe_toml(recipe))
    assert read_recipe(tmp_path / "again.toml") == recipe


def test_keys_of_a_single_step_stay(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, TOPIC, '[features."outdoor+6"]\ncolumn = "fc_6"'))
    assert recipe.ahead_columns["outdoor+6"].archived == "fc_6"
    assert recipe.ahead_columns["outdoor+1"].archived is None


@pytest.mark.parametrize(
    ("outdoor", "others", "fault"),
    [
        ("known_ahead_steps = [6]", {}, "known_ahead_steps: expected known_ahead beside it"),
        (TOPIC, {"task": "regress"}, "known_ahead_steps: missing"),
        (TOPIC, {"interval": ""}, "sampling.interval_s: missing"),
        ('known_ahead = "a/{site}"', {}, "expected no other part than {stream}"),
        (f"{TOPIC}\nknown_ahead_steps = [6, 6]", {}, "expected each once, found [6, 6]"),
        (f'{TOPIC}\ncategories = ["day", "night"]', {}, 'expected "previous" for categories'),
        (f"{TOPIC}\ncounter = true", {}, "expected none for a counter"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(
    tmp_path: Path, outdoor: str, others: dict[str, Any], fault: str
) -> None:
    with pytest.raises(EdgeLstmError) as refused:
        read_recipe(written(tmp_path, outdoor, **others))
    assert fault in str(refused.value)
