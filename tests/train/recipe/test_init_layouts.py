"""`init` for files as loggers and databases write them: what is found is in the recipe, and read by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge_lstm.cli.main import main
from edge_lstm.foundation.errors import ConfigError
from edge_lstm_train.data.dataset import read_dataset
from edge_lstm_train.recipe.recipe import Recipe, read_recipe

RANDOM = np.random.default_rng(7)
TEMP, HUM = np.round(RANDOM.normal(20, 2, 240), 2), np.round(RANDOM.normal(50, 5, 240), 1)


def moment(step: int, late_s: int = 0) -> str:
    return f"2024-03-{1 + step // 96:02d} {step % 96 // 4:02d}:{15 * (step % 4):02d}:{late_s:02d}"


ROWS = "".join(f"{moment(step)},{TEMP[step]},{HUM[step]}\n" for step in range(240))


def init(folder: Path, content: str | bytes, *options: str, name: str = "attic.csv") -> tuple[Result, Recipe | None]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    result = CliRunner().invoke(main, ["init", str(path), "--task", "forecast", "-o", str(folder), *options])
    return result, read_recipe(folder / "attic.toml") if result.exit_code == 0 else None


def long(pairs: list[tuple[str, str, float]], header: str = "time,sensor_id,value") -> str:
    return header + "\n" + "".join(f"{when},{name},{value}\n" for when, name, value in pairs)


PAIRS = [
    pair for step in range(240) for pair in ((moment(step), "temp", TEMP[step]), (moment(step, 2), "hum", HUM[step]))
]


def test_units_titles_and_comments_are_in_the_recipe_and_reported(tmp_path: Path) -> None:
    text = "Logger 7\n# site: attic\ntime,temp,hum\nUTC,°C,%\n" + ROWS + "Mean,20,50\n"
    result, recipe = init(tmp_path, text)
    assert recipe is not None, result.stderr
    source = recipe.recording
    assert (source.skip_lines, source.units_row) == (2, True)
    assert [feature.unit for feature in recipe.features.values()] == ["°C", "%"]
    assert 'lines 1 to 2 are above the table: "Logger 7"' in result.stderr
    assert "the row below the header holds units: time UTC, temp °C, hum %" in result.stderr
    assert 'row 245 and what follows are no readings and were left out: "Mean, 20, 50"' in result.stderr
    dataset = read_dataset(recipe)
    assert (len(dataset), dataset.dropped["below the table"]) == (240, 1)
    np.testing.assert_allclose(dataset.recording.values, np.stack([TEMP, HUM], axis=1))


def test_a_separator_at_the_end_of_each_row_is_reported(tmp_path: Path) -> None:
    result, recipe = init(tmp_path, "time,temp,hum\n" + ROWS.replace("\n", ",\n"))
    assert recipe is not None, result.stderr
    assert "note: each row ends with a separator: its last column has no name and no values" in result.stderr
    np.testing.assert_allclose(read_dataset(recipe).recording.values, np.stack([TEMP, HUM], axis=1))


def test_another_encoding_units_in_cells_and_thousands_are_written(tmp_path: Path) -> None:
    temps = [f"{temp:.2f} °C".replace(".", ",") for temp in TEMP]
    rows = "".join(f"{moment(step)};{temps[step]};1.{200 + step},{step % 10}\n" for step in range(240))
    content = ("Zeit;Temperatur Süd;Energie\n" + rows).encode("cp1252")
    refused, _ = init(tmp_path, content)
    assert "--encoding cp1252" in refused.stderr
    result, recipe = init(tmp_path, content, "--encoding", "cp1252")
    assert recipe is not None, result.stderr
    source = recipe.recording
    assert (source.encoding, source.decimal, source.thousands) == ("cp1252", "comma", ".")
    assert recipe.features["Temperatur Süd"].unit == "°C"
    values = read_dataset(recipe).recording.values
    np.testing.assert_allclose(values[:, 0], TEMP)
    np.testing.assert_allclose(values[:3, 1], [1200.0, 1201.1, 1202.2])


def test_words_among_numbers_name_the_option_that_helps(tmp_path: Path) -> None:
    text = "time,temp\n" + "".join(
        f"{moment(step)},{'warming up' if step < 3 else TEMP[step]}\n" for step in range(240)
    )
    result, _ = init(tmp_path, text)
    assert result.exit_code == 1
    assert (
        '"temp" holds numbers, but also "warming up": if these mean a missing value, add --missing "warming up"'
        in result.stderr
    )
    result, recipe = init(tmp_path, text, "--missing", "warming up")
    assert recipe is not None
    assert recipe.recording.missing == ["warming up"]
    assert int(np.isnan(read_dataset(recipe).recording.values).sum()) == 3


def test_one_row_a_value_becomes_a_row_of_features(tmp_path: Path) -> None:
    result, recipe = init(tmp_path, long(PAIRS))
    assert recipe is not None, result.stderr
    source = recipe.recording
    assert (source.name_column, source.value_column, source.join_within_s) == ("sensor_id", "value", 2)
    assert list(recipe.features) == ["temp", "hum"]
    assert recipe.sampling.interval_s == 900
    assert 'one row a value: "sensor_id" says what "value" is (temp, hum)' in result.stderr
    np.testing.assert_allclose(read_dataset(recipe).recording.values, np.stack([TEMP, HUM], axis=1))


def test_values_with_a_rhythm_of_their_own_are_put_on_a_grid(tmp_path: Path) -> None:
    pairs = [(moment(step), "sensor.temp", TEMP[step % 240]) for step in range(720)]
    pairs += [(moment(step, 7), "sensor.hum", HUM[step % 240]) for step in range(0, 720, 3)]
    result, recipe = init(tmp_path, long(sorted(pairs), "last_changed,entity_id,state"))
    assert recipe is not None, result.stderr
    assert (recipe.sampling.grid, recipe.sampling.interval_s) == (True, 1800)
    assert len(read_dataset(recipe)) == 359  # the last interval is open


def test_devices_beside_the_names_are_streams_though_a_row_is_repeated(tmp_path: Path) -> None:
    rows = [
        f"{moment(step)},{room},{name},{value[step]}\n"
        for step in range(240)
        for room in ("a", "b")
        for name, value in (("temp", TEMP), ("hum", HUM))
    ]
    text = "time,room,sensor,value\n" + "".join([*rows, rows[-1]])
    result, recipe = init(tmp_path, text)
    assert recipe is not None, result.stderr
    assert recipe.recording.stream_column == "room"
    dataset = read_dataset(recipe)
    assert (dataset.recording.streams, len(dataset), dataset.dropped["repeated values"]) == (["a", "b"], 480, 1)


def test_names_that_differ_in_digits_alone_are_streams(tmp_path: Path) -> None:
    pairs = [(moment(step), f"pump-{pump}", TEMP[step] + pump) for step in range(240) for pump in range(40)]
    _, recipe = init(tmp_path, long(pairs))
    assert recipe is not None
    assert (recipe.recording.stream_column, list(recipe.features)) == ("sensor_id", ["value"])


def test_a_pattern_makes_streams_of_the_names_of_a_control_system(tmp_path: Path) -> None:
    header = "time,P01.PT.PV,P01.FT.PV,P02.PT.PV,P02.FT.PV\n"
    rows = "".join(f"{moment(step)},{TEMP[step]},{HUM[step]},{TEMP[-step]},{HUM[-step]}\n" for step in range(240))
    plain, _ = init(tmp_path, header + rows)
    assert (
        'note: if the columns name devices, like "P01.PT.PV", add --name-pattern "{stream}.{feature}.PV"'
        in plain.stderr
    )
    for written in ("attic.toml", "service.toml"):
        (tmp_path / written).unlink()
    result, recipe = init(tmp_path, header + rows, "--name-pattern", "{stream}.{feature}.PV")
    assert recipe is not None, result.stderr
    assert list(recipe.features) == ["PT", "FT"]
    dataset = read_dataset(recipe)
    assert (dataset.recording.streams, len(dataset)) == (["P01", "P02"], 480)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ('encoding = "cp1"', 'recording.encoding: expected a known encoding, like "cp1252" or "utf-16", found "cp1"'),
        ('name_column = "tag"', "recording.value_column: missing: name_column and value_column belong together"),
        ("join_within_s = 2.0", "recording.join_within_s: expected name_column beside it"),
        ('name_pattern = "{stream}.PV"', "recording.name_pattern: expected {feature} once and {stream} at most once"),
        ('name_pattern = "{stream}.{feature}"\nstream = "x"', "recording.stream: expected none beside a name_pattern"),
        ('thousands = "."', "recording.thousands: expected another sign than the decimal separator"),
        ('comment = ""', "recording.comment: expected at least one sign, found none"),
        ('[features.y]\ncolumn = "x"', 'features.y: expected other values than those of "x", found the same column'),
    ],
)
def test_keys_that_contradict_each_other_are_refused(tmp_path: Path, lines: str, fault: str) -> None:
    text = (
        f'name = "a"\n[features.x]\n[forecast]\ntargets = ["x"]\nhorizons = [1]\n[recording]\npath = "a.csv"\n{lines}\n'
    )
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_recipe(tmp_path / "a.toml")
    assert fault in str(caught.value)
