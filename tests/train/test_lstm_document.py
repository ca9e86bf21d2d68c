"""docs/lstm.md: its quotes, commands and claims agree with the code."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
from typing import Any, get_args, get_type_hints

import click
import numpy as np
import pytest

from edge_lstm.cli.main import main
from edge_lstm.foundation.config import from_mapping
from edge_lstm_train.data.batches import carried_chunks, window_ends, windows
from edge_lstm_train.data.dataset import Dataset, read_dataset
from edge_lstm_train.evaluation.baselines import PERSISTENCE, RIDGE, fit_baselines
from edge_lstm_train.model.carried_state import predict_streamed
from edge_lstm_train.model.fit import fit
from edge_lstm_train.recipe.recipe import Recipe, read_recipe
from tests.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCUMENT = ROOT / "docs" / "lstm.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
REFERENCE = "runtime/edge_lstm/backends/reference.py"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def row(label: str) -> list[str]:
    """The cells beside the first one that begins with `label`."""
    (line,) = [line for line in TEXT.splitlines() if line.startswith(f"| {label}")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def without_none(value: Any) -> Any:
    """The value as TOML would hold it."""
    if not isinstance(value, dict):
        return value
    return {key: without_none(item) for key, item in value.items() if item is not None}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return read_recipe("weather")


@pytest.fixture(scope="module")
def dataset(recipe: Recipe) -> Dataset:
    return read_dataset(recipe)


@pytest.mark.parametrize("block", blocks("python"))
def test_every_quoted_line_is_in_its_source_file(block: str) -> None:
    quoted = block.splitlines()
    path = quoted.pop(0)[2:] if quoted[0].startswith("# ") else REFERENCE
    source = [line.strip() for line in (ROOT / path).read_text(encoding="utf-8").splitlines()]
    assert "\n" + "\n".join(quoted) + "\n" in "\n" + "\n".join(source) + "\n"


def test_both_cells_are_quoted_completely() -> None:
    source = (ROOT / REFERENCE).read_text(encoding="utf-8").splitlines()
    quoted = {line for block in blocks("python") for line in block.splitlines()}
    named = ("gates = ", "i, f, g, o = ", "x_r, x_z, x_n = ", "h_r, h_z, h_n = ", "squashed: ", "prediction = ")
    letters = tuple(f"{letter} = " for letter in "ifgochrzn")
    equations = [line.strip() for line in source if line.strip().startswith(named + letters)]
    # sigmoid; gates, their split, i, f, g, o, c and h of an LSTM; two splits, r, z, n and h of a GRU; the head's two
    assert len(equations) == 1 + 8 + 6 + 2
    assert [line for line in equations if line not in quoted] == []


@pytest.mark.parametrize("line", [line for block in blocks("console") for line in block.splitlines()])
def test_every_command_parses(line: str) -> None:
    prompt, program, verb, *arguments = shlex.split(line)
    assert (prompt, program) == ("$", "edge-lstm")
    command = main.get_command(click.Context(main), verb)
    assert command is not None
    command.make_context(verb, arguments)  # raises UsageError where it does not


@pytest.mark.parametrize("block", blocks("toml"))
def test_every_recipe_change_in_the_text_is_valid(recipe: Recipe, block: str) -> None:
    whole, change = without_none(dataclasses.asdict(recipe)), tomllib.loads(block)
    for name, value in change.items():
        whole[name] = {**whole[name], **value} if isinstance(value, dict) else value
    changed = from_mapping(whole, Recipe, "lstm.md")
    assert ("cell_state_0" in changed.state_names) == ('cell = "gru"' not in block)


def test_the_first_toml_block_equals_the_recipe(recipe: Recipe) -> None:
    said = tomllib.loads(blocks("toml")[0])
    assert said["clock"] == recipe.clock
    assert list(said["features"]) == list(recipe.features)
    assert {name: getattr(recipe.forecast, name) for name in said["forecast"]} == said["forecast"]


def test_sizes_in_the_text_are_those_of_the_recipe(recipe: Recipe) -> None:
    gru = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, cell="gru"))
    assert row("parameters, this recipe") == [f"{recipe.parameters:,}", f"{gru.parameters:,}"]
    assert f"**{recipe.parameters:,}**" in TEXT
    carried = [4 * recipe.model.hidden * len(one.state_names) for one in (recipe, gru)]
    assert row("carried per stream") == [f"$h$, $c$: {carried[0]} bytes", f"$h$: {carried[1]} bytes"]


def test_windows_and_chunks_have_the_shapes_in_the_text(recipe: Recipe, dataset: Dataset) -> None:
    random = np.random.default_rng(0)
    width = dataset.features.shape[1]
    assert f"({len(window_ends(dataset, 6))}, 6, {width})" in TEXT
    assert next(windows(dataset, 6, 256, random)).features.shape == (256, 6, width)
    chunks = carried_chunks(dataset, recipe.fit.segments, recipe.fit.chunk, random)
    lengths = {next(chunks).features.shape for _ in range(8)}
    assert lengths == {(16, 13, 4), (16, 14, 4)}
    assert "(16, 13 or 14, 4)" in TEXT
    assert f"{len(dataset.steps('train'))} training days" in TEXT
    assert f"{len(dataset):,} rows" in TEXT


def test_the_table_in_the_text_is_what_training_gives(recipe: Recipe, dataset: Dataset) -> None:
    baselines = fit_baselines(dataset)
    fitted = fit(recipe, dataset, baselines.residual)
    test = dataset.steps("test")
    said = {
        "persistence": (baselines.predictions[PERSISTENCE], 0.006),
        "ridge": (baselines.predictions[RIDGE], 0.006),
        "LSTM, state carried (the recipe)": (predict_streamed(fitted.model, dataset), 0.04),  # one seed, on any CPU
    }
    for label, (predictions, tolerance) in said.items():
        error = np.sqrt(np.nanmean((predictions[test] - dataset.targets[test]) ** 2, axis=0))
        assert [float(cell) for cell in row(label)] == pytest.approx(error.tolist(), abs=tolerance)
    assert f"{np.isfinite(dataset.targets[test]).all(axis=1).sum()} days of 2015" in TEXT


def test_the_text_lists_the_tasks_of_the_recipe() -> None:
    (tasks,) = {get_args(get_type_hints(Recipe)["task"])}
    assert tuple(re.findall(r'\*\*yes\*\*: `task = "(\w+)"`', TEXT)) == tasks


def test_every_linked_file_exists() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert len(targets) >= 4
    assert [target for target in targets if not (DOCUMENT.parent / target).is_file()] == []
