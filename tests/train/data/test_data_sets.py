"""Data sets that are given apart: their streams keep apart, and each is its part."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_lstm.foundation.errors import ConfigError
from edge_lstm_train.data.dataset import Dataset, read_dataset
from edge_lstm_train.data.split import PARTS
from edge_lstm_train.recipe.recipe import read_recipe
from edge_lstm_train.recipe.toml_text import recipe_toml

RECIPE = """name = "pumps"
[recording]
path = {paths}
stream_column = "pump"
[features.level]
[forecast]
targets = ["level"]
horizons = [1]
"""


def rows(folder: Path, name: str, seed: int) -> None:
    lines = [
        f"2024-03-01T{at // 60:02d}:{at % 60:02d}:00Z,{pump},{(at * seed + ord(pump)) % 17}"
        for at in range(100)
        for pump in "ab"
    ]
    (folder / f"{name}.csv").write_text("\n".join(["time,pump,level", *lines]) + "\n")


def dataset(folder: Path, paths: str, more: str = "") -> Dataset:
    for seed, name in enumerate(("one", "two", "three"), 5):
        rows(folder, name, seed)
    (folder / "recipe.toml").write_text(RECIPE.format(paths=paths) + more)
    return read_dataset(read_recipe(folder / "recipe.toml"))


def steps_by_stream(found: Dataset) -> dict[str, list[int]]:
    return {
        name: [int((found.part_of[found.stream_of == at] == part).sum()) for part in range(len(PARTS))]
        for at, name in enumerate(found.recording.streams)
    }


def test_streams_of_one_name_in_two_data_sets_are_two_streams(tmp_path: Path) -> None:
    found = dataset(tmp_path, '{train = "one.csv", test = "two.csv"}')
    assert steps_by_stream(found) == {
        "train-a": [75, 25, 0],
        "train-b": [75, 25, 0],
        "test-a": [0, 0, 100],
        "test-b": [0, 0, 100],
    }


def test_a_data_set_for_validation_leaves_all_of_the_training_set(tmp_path: Path) -> None:
    found = dataset(tmp_path, '{train = ["one.csv"], validation = "two.csv", test = "three.csv"}')
    assert [sum(steps_by_stream(found)[f"{name}-a"]) for name in PARTS] == [100, 100, 100]
    assert steps_by_stream(found)["validation-b"] == [0, 100, 0]


def test_the_recipe_with_data_sets_is_written_and_read_again(tmp_path: Path) -> None:
    dataset(tmp_path, '{train = "one.csv", test = "two.csv"}')
    recipe = read_recipe(tmp_path / "recipe.toml")
    (tmp_path / "again.toml").write_text(recipe_toml(recipe))
    assert read_recipe(tmp_path / "again.toml") == recipe
    assert recipe.recording.name == "one.csv, two.csv"


@pytest.mark.parametrize(
    ("paths", "more", "fault"),
    [
        ('{train = "one.csv"}', "", "expected the data sets train and test, found no test"),
        ('{train = "one.csv", test = "two.csv", rest = "three.csv"}', "", 'found "rest"'),
        ('{train = "one.csv", test = "two.csv"}', '[split]\nleave_out = ["a"]\n', "split.leave_out: expected none"),
    ],
)
def test_data_sets_that_do_not_fit_are_refused(tmp_path: Path, paths: str, more: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.toml") as caught:
        dataset(tmp_path, paths, more)
    assert fault in str(caught.value)
