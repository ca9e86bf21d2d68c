"""What the numbers of a column mean: angles, counters and row numbers, and the sensors that are none of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge_lstm.cli.main import main
from edge_lstm_train.recipe.column_kinds import ColumnKinds, column_kinds, switch_words, unit_in
from edge_lstm_train.recipe.recipe import read_recipe
from edge_lstm_train.recipe.survey import survey

ROWS = 400
STEP = np.arange(ROWS)
NOISE = np.random.default_rng(4).normal(0, 1, ROWS)
NORTH = (350 + 20 * np.sin(STEP / 9) + 3 * NOISE) % 360
METER = np.cumsum(np.abs(NOISE))


def kinds(streams: int = 1, **columns: np.ndarray) -> ColumnKinds:
    times = 60.0 * (STEP // streams)
    return column_kinds({name.replace("__", " "): found for name, found in columns.items()}, times, STEP % streams)


@pytest.mark.parametrize(
    ("name", "values", "period"),
    [
        ("wind_dir", NORTH, 360.0),
        ("WindDirection", np.where(NORTH > 180, NORTH - 360, NORTH), None),  # 330 to 10 as -30 to 10: it hardly spreads
        ("windDirection [deg]", np.where(NORTH > 180, NORTH - 360, NORTH), 360.0),
        ("heading_rad", np.radians(NORTH), 2 * math.pi),
        ("WindDir_D1_WVT", NORTH, 360.0),
        ("winddirection_10m (°)", NORTH, 360.0),
        ("angle", 5 + 3 * np.sin(STEP / 9), None),
        ("Wa_avg", NORTH, 360.0),  # by its jumps through north alone
        ("valve [°]", 40 + 10 * np.sin(STEP), None),
        ("pitch [°]", 170 * np.sin(STEP / 5), None),
        ("longitude (deg)", 360 * np.random.default_rng(1).random(ROWS), None),
        ("flow", 180 + 179 * np.sin(STEP / 5), None),  # 0 to 360 without jumps
        ("noise", 360 * np.random.default_rng(1).random(ROWS), None),  # jumps from everywhere
        ("wind_dir", STEP % 16.0, None),  # sixteen sectors
        ("hour", STEP % 24.0, 24.0),
        ("month", 1 + STEP // 40 % 12.0, 12.0),
    ],
)
def test_an_angle_is_known_by_name_unit_and_values(name: str, values: np.ndarray, period: float | None) -> None:
    assert column_kinds({name: values}, 60.0 * STEP, 0 * STEP).circles.get(name) == period


@pytest.mark.parametrize(
    ("values", "falls"),
    [
        (METER, 0),
        (np.where(STEP < 150, METER, METER - METER[150]), 1),
        (np.cumsum(np.abs(NOISE)) % 65.536, 4),  # near 0 after each overflow
        (20 + np.sin(STEP / 30), None),
        (np.where(STEP % 20 < 10, 5 + NOISE, 0), None),  # a motor that is switched
        (np.abs(NOISE), None),
        (1000 + np.cumsum(NOISE), None),  # a sensor falls by a little
        (STEP // 50 * 1.0, None),  # seven rises
        (-METER, None),
    ],
)
def test_a_counter_grows_and_falls_only_to_near_zero(values: np.ndarray, falls: int | None) -> None:
    assert kinds(x=values).counters.get("x") == falls


def test_a_row_number_rises_in_equal_steps() -> None:
    lost = STEP + np.cumsum(STEP % 50 == 0)  # a record is lost now and then
    found = kinds(**{"#": 1 + STEP, "index": 10 * STEP, "RECORD": lost, "x": lost, "uptime": 0.1 * STEP})
    assert found.row_numbers == ["#", "RECORD", "uptime"]
    assert "index" not in found.circles
    cycles = kinds(2, cycle=1 + STEP // 2, row=STEP)  # of each stream, and of the whole file
    assert cycles.row_numbers == ["cycle", "row"]
    assert not kinds(energy_total=50.0 * STEP).row_numbers  # a meter under a constant load


def test_a_unit_from_elsewhere_counts_like_one_in_the_name() -> None:
    turned = np.where(NORTH > 180, NORTH - 360, NORTH)
    assert column_kinds({"heading": turned}, 60.0 * STEP, 0 * STEP).circles == {}
    assert column_kinds({"heading": turned}, 60.0 * STEP, 0 * STEP, {"heading": "deg"}).circles == {"heading": 360.0}


def test_a_clock_is_no_counter_and_running_hours_are() -> None:
    clock, hours = 1000 * STEP + np.abs(7 * NOISE), np.cumsum(STEP % 50 < 30) / 60
    found = kinds(millis=clock, run_time=hours)
    assert (found.row_numbers, list(found.counters)) == (["millis"], ["run_time"])


def test_a_unit_is_found_at_the_end_of_a_name() -> None:
    assert [unit_in(name) for name in ("a [deg]", "b (°)", "c_rad", "d °", "load")] == ["deg", "°", "rad", "°", ""]


def test_a_switch_is_two_words_that_oppose() -> None:
    assert switch_words(["Closed", "open"]) == {"Closed": 0.0, "open": 1.0}
    assert switch_words(["aus", "ein"]) == {"aus": 0.0, "ein": 1.0}
    assert not switch_words(["oil", "water"])
    assert not switch_words(["on", "open"])
    assert not switch_words(["fault", "off", "on"])


def test_public_recordings_hold_these_angles_and_row_numbers(data: Path) -> None:
    turbine = survey(data / "haute_borne/R80721_2014_2015.csv.gz").kinds
    assert (turbine.circles, turbine.counters, turbine.row_numbers) == ({"Ya_avg": 360.0, "Wa_avg": 360.0}, {}, [])
    assert survey(data / "etth/ETTh1.csv.gz").kinds == ColumnKinds()
    assert survey(data / "skab/anomaly-free/anomaly-free.csv.gz").kinds == ColumnKinds()


@pytest.fixture
def station(tmp_path: Path) -> Path:
    rows = ["#,time,wind_dir,energy_total,door,temperature"]
    meter = np.where(STEP < 150, METER, METER - METER[150])
    for row in STEP.tolist():
        time = f"2024-03-{1 + row // 96:02d} {row % 96 // 4:02d}:{15 * (row % 4):02d}:00"
        door = "open" if row % 30 < 8 else "closed"
        rows.append(f"{row + 1},{time},{NORTH[row]:.0f},{meter[row]:.2f},{door},{20 + NOISE[row]:.2f}")
    path = tmp_path / "station.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_init_writes_what_the_columns_mean(station: Path, tmp_path: Path) -> None:
    result = command("init", station, "--task", "forecast", "-o", tmp_path)
    assert result.exit_code == 0, result.output
    assert '"energy_total" only grows and fell back to 0 once: counter = true' in result.stderr
    assert '"#" rises in equal steps' in result.stderr
    recipe = read_recipe(tmp_path / "station.toml")
    assert list(recipe.features) == ["wind_dir", "energy_total", "temperature", "door"]
    assert (recipe.features["wind_dir"].circle, recipe.features["wind_dir"].unit) == (360.0, "degree")
    assert recipe.features["energy_total"].counter
    assert not recipe.features["door"].categories  # closed is 0, open is 1
    assert recipe.forecast is not None
    assert recipe.forecast.targets == ["wind_dir"]
    assert "level = false" not in (tmp_path / "station.toml").read_text()


def test_a_counter_is_a_target_where_it_is_asked_for(station: Path, tmp_path: Path) -> None:
    assert command("init", station, "--task", "forecast", "--target", "energy_total", "-o", tmp_path).exit_code == 0
    text = (tmp_path / "station.toml").read_text()
    assert 'targets = ["energy_total"]' in text
    assert "its increase since the last row" in text
    (tmp_path / "other").mkdir()
    refused = command("init", station, "--task", "forecast", "--target", "#", "-o", tmp_path / "other")
    assert refused.exit_code == 1
    assert 'found "#"' in refused.stderr


def test_what_init_writes_trains_without_a_warning(station: Path, tmp_path: Path) -> None:
    assert command("init", station, "--task", "forecast", "-o", tmp_path).exit_code == 0
    recipe = tmp_path / "station.toml"
    recipe.write_text(recipe.read_text().replace("updates = 600", "updates = 8").replace("hidden = 32", "hidden = 4"))
    trained = command("train", recipe, "-o", tmp_path / "run")
    assert trained.exit_code == 0, trained.output
    assert "warning" not in trained.stderr
