"""A recipe is understood whole or refused whole, with every fault at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edge_lstm.errors import EdgeLstmError
from edge_lstm_train.recipe import bundled_recipes, read_recipe, recipe_toml

MINIMAL = """
name = "pump"
[recording]
path = "pump.csv"
[features.flow]
unit = "l/s"
[forecast]
targets = ["flow"]
horizons = [1]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "pump.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_misspelt_key_gets_its_near_name_and_all_faults_come_at_once(tmp_path: Path) -> None:
    text = MINIMAL + '[model]\nhiden = 32\nlayers = 4\n[fit]\nmethod = "window"\nupdates = "many"\n'
    with pytest.raises(EdgeLstmError) as caught:
        read_recipe(write(tmp_path, text))
    assert caught.value.message.splitlines()[1:] == [
        '  model.hiden: unknown key; did you mean "hidden"?',
        "  model.layers: expected a whole number <= 3, found 4",
        '  fit.updates: expected a whole number, found "many"',
        '  fit.method: expected one of "carried", "windows" (did you mean "windows"?), found "window"',
    ]


def test_keys_that_contradict_one_another_are_all_named(tmp_path: Path) -> None:
    text = MINIMAL.replace('targets = ["flow"]', 'targets = ["flwo"]')
    text += "[sampling]\ninterval_s = 60\nmax_gap_s = 30\n[model]\nhidden = 100\n"
    with pytest.raises(EdgeLstmError) as caught:
        read_recipe(write(tmp_path, text))
    assert caught.value.message.splitlines()[1:] == [
        '  forecast.targets: expected names of features, found "flwo"; did you mean "flow"?',
        "  sampling.max_gap_s: expected at least interval_s (60), found 30",
        "  model.hidden: expected at most 20,000 parameters, found 41,301; a smaller hidden or fewer layers, "
        "or else a larger most_parameters",
    ]


def test_a_recipe_may_raise_the_cap_on_parameters(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, MINIMAL + "[model]\nhidden = 100\nmost_parameters = 50_000\n"))
    assert recipe.parameters == 4 * 100 * (1 + 100 + 2) + 101


@pytest.mark.parametrize(("fit", "found"), [('method = "windows"', "window: missing"), ("window = 6", "has no window")])
def test_a_window_belongs_to_the_method_windows_alone(tmp_path: Path, fit: str, found: str) -> None:
    with pytest.raises(EdgeLstmError, match=found):
        read_recipe(write(tmp_path, MINIMAL + f"[fit]\n{fit}\n"))


def test_a_split_without_a_test_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeLstmError, match=r"expected train \+ validation <= 0\.99, found 1: nothing is left"):
        read_recipe(write(tmp_path, MINIMAL + "[split]\ntrain = 0.8\nvalidation = 0.2\n"))


def test_an_unknown_name_gets_the_near_one_and_the_list() -> None:
    with pytest.raises(EdgeLstmError) as caught:
        read_recipe("solr")
    assert caught.value.message.startswith("expected a recipe file or one of ")
    assert set(bundled_recipes()) >= {"solar", "weather"}
    assert all(name in caught.value.message for name in bundled_recipes())
    assert caught.value.hint == "did you mean solar?"


@pytest.mark.parametrize("name", ["solar", "weather"])
def test_a_written_recipe_reads_back_as_it_was(tmp_path: Path, name: str) -> None:
    recipe = read_recipe(name)
    assert read_recipe(write(tmp_path, recipe_toml(recipe))) == recipe


def test_a_written_recipe_keeps_names_that_need_quotes(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, MINIMAL))
    odd = {'flow "north" °C': dataclasses.replace(recipe.features["flow"], column="a\\b")}
    forecast = dataclasses.replace(recipe.forecast, targets=list(odd))
    recipe = dataclasses.replace(recipe, features=odd, forecast=forecast)
    assert read_recipe(write(tmp_path, recipe_toml(recipe))) == recipe


def test_the_recording_is_found_from_the_recipe_and_not_from_the_working_folder(tmp_path: Path) -> None:
    assert read_recipe(write(tmp_path, MINIMAL)).recording.path == str(tmp_path / "pump.csv")
