"""`init`: a recipe outline for every task from a recording, that trains; and what it refuses."""

from __future__ import annotations

import dataclasses
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge_lstm.cli.main import main
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.columns import TimeColumns
from edge_lstm.recordings.live.recording_file import RecordingFile
from edge_lstm.service.config import read_service_config
from edge_lstm.streaming.reading import Reading
from edge_lstm_train.data.dataset import read_dataset
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.evaluation.trained_contract import trained_contract
from edge_lstm_train.model.fit import fit
from edge_lstm_train.recipe.recipe import read_recipe
from edge_lstm_train.recipe.recording_sections import FeatureSection
from edge_lstm_train.recipe.survey import survey
from tests.paths import ROOT


def init(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["init", *map(str, arguments)])


@pytest.fixture
def pumps(tmp_path: Path) -> Path:
    """Five days of two pumps, a row each 15 minutes: numbers, a text, an answer, and a column that never changes."""
    random = np.random.default_rng(2)
    lines = ["when;fault;pump;pressure;flow °;fluid;size"]
    for row in range(480):
        for pump in (7, 9):
            time = f"2024-03-{1 + row // 96:02d} {row % 96 // 4:02d}:{15 * (row % 4):02d}:00"
            pressure, fault = random.normal(4, 1), int(row % 50 < 5)
            fluid = ("oil", "water", "NA")[row // 7 % 3]
            lines.append(f"{time};{fault};{pump};{pressure:.3f};{random.normal(12, 1) + fault:.3f};{fluid};3")
    path = tmp_path / "two pumps.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_service_listens_where_the_readme_publishes(pumps: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    assert init(pumps, "--task", "forecast", "-o", tmp_path / "here").exit_code == 0
    topic = read_service_config(tmp_path / "here/service.toml").input.topic
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"edge-lstm simulate .* --topic '([^']+)'", readme) == [topic]
    assert f'topic = "{topic}"' in readme


def test_a_survey_finds_what_the_rows_show(pumps: Path) -> None:
    found = survey(pumps)
    assert (found.rows, found.streams) == (960, 2)
    assert (found.times, found.stream_column) == (
        TimeColumns(["when"]),
        "pump",
    )  # by pump, and by nothing else, time never goes back
    assert found.numbers == ["fault", "pressure", "flow °"]
    assert found.constants == ["size"]
    assert found.texts == {"fluid": ["oil", "water"]}
    assert found.whole == {"fault": ["0", "1"]}
    assert (found.interval_s, found.days) == (900, pytest.approx(5 - 1 / 96))


@pytest.mark.parametrize(
    ("task", "features", "target"),
    [
        ("forecast", ["fault", "pressure", "flow °", "fluid"], "pressure"),
        ("anomaly", ["pressure", "flow °", "fluid"], "fault"),
        ("classify", ["pressure", "flow °", "fluid"], "fault"),
        ("regress", ["pressure", "flow °", "fluid"], "fault"),
    ],
)
def test_an_outline_is_a_recipe_that_trains(
    pumps: Path, tmp_path: Path, task: str, features: list[str], target: str
) -> None:
    (tmp_path / "here").mkdir()
    result = init(pumps, "--task", task, "-o", tmp_path / "here")
    assert result.exit_code == 0, result.output
    recipe = read_recipe(tmp_path / "here/two-pumps.toml")
    section = recipe.task_section
    said = {
        "forecast": lambda: section.targets[0],
        "anomaly": lambda: section.truth,
        "classify": lambda: section.label,
        "regress": lambda: section.target,
    }[task]()
    assert (recipe.task, list(recipe.features), said) == (task, features, target)
    assert recipe.clock == ["time_of_day"]
    dataset = read_dataset(recipe)
    assert len(dataset) == 960
    quick = dataclasses.replace(recipe, fit=dataclasses.replace(recipe.fit, updates=2))
    assert np.isfinite(fit(quick, dataset, np.ones(dataset.targets.shape[1])).curve[-1].validation_error)
    config = read_service_config(tmp_path / "here/service.toml")
    assert (config.bundle, config.mqtt.client_id) == ("two-pumps.elstm", "edge-lstm-two-pumps")
    shown = '"flow °": 1.25, "fluid": "oil"}' if task != "forecast" else '"flow °": 1.25}, and so on'
    assert shown in (tmp_path / "here/service.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("task", ["forecast", "anomaly", "classify", "regress"])
def test_an_outline_without_a_recording_is_a_complete_template(tmp_path: Path, task: str) -> None:
    assert init("--task", task, "-o", tmp_path).exit_code == 0
    recipe = read_recipe(tmp_path / "sensors.toml")
    assert recipe.task == task
    assert recipe.recording.path == str(tmp_path / "recording.csv")


def test_a_named_target_is_not_an_input(pumps: Path, tmp_path: Path) -> None:
    options = ("--target", "flow °", "--stream-column", "pump", "--name", "flow")
    assert init(pumps, "--task", "regress", *options, "-o", tmp_path).exit_code == 0
    recipe = read_recipe(tmp_path / "flow.toml")
    assert recipe.regress is not None
    assert recipe.regress.target == "flow °"
    assert list(recipe.features) == ["pressure", "fluid"]
    assert list(recipe.labels) == ["flow °", "fault"]


def test_a_live_recording_trains_with_its_outline(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    sheet = RecordingFile(tmp_path / "live.csv", ["level", "flow"])
    for step in range(200):
        values = {"level": float(random.normal()), "flow": float(random.normal())}
        sheet.append([Reading(name, 1_700_000_000.0 + 60 * step, values) for name in ("a", "b")])
    sheet.close()
    assert init(tmp_path / "live.csv", "--task", "forecast", "-o", tmp_path).exit_code == 0
    recipe = read_recipe(tmp_path / "live.toml")
    assert recipe.recording.stream_column == "stream"
    dataset = read_dataset(recipe)
    assert (len(dataset), dataset.recording.streams) == (400, ["a", "b"])


def test_decimal_commas_and_split_times_are_detected(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    rows = [
        f"{10 + hour // 24:02d}/03/2024;{hour % 24:02d}.00.00;{random.normal(2, 1):.1f};{random.normal(9, 1):.1f};;"
        for hour in range(240)
    ]
    text = "\n".join(["Date;Time;CO(GT);T;;", *(row.replace(".", ",").replace(",00,00", ".00.00") for row in rows)])
    (tmp_path / "air.csv").write_text(text + "\n;;;;;\n")  # as spreadsheets end theirs
    result = init(tmp_path / "air.csv", "--task", "regress", "--target", "CO(GT)", "-o", tmp_path)
    assert "found 240 rows of 1 stream, times in Date and Time, 2 columns of numbers" in result.stderr
    recipe = read_recipe(tmp_path / "air.toml")
    source = recipe.recording
    assert (source.time, source.time_format, source.decimal) == (["Date", "Time"], "%d/%m/%Y %H.%M.%S", "comma")
    assert 'time_format = "%d/%m/%Y %H.%M.%S"  # <- is the day where %d is?' in (tmp_path / "air.toml").read_text()
    dataset = read_dataset(recipe)
    assert len(dataset) == 240
    assert np.diff(dataset.recording.times).tolist() == [3600.0] * 239
    np.testing.assert_allclose(dataset.recording.labels["CO(GT)"][0], float(rows[0].split(";")[2]))


def spreadsheet(folder: Path) -> Path:
    random = np.random.default_rng(6)
    path = folder / "serial.csv"
    rows = [f"{45352 + step / 144:.6f},{random.normal(21, 1):.2f}\n" for step in range(240)]
    path.write_text("Timestamp,level\n" + "".join(rows))
    return path


def test_days_of_a_spreadsheet_are_written_as_such_and_told(tmp_path: Path) -> None:
    result = init(spreadsheet(tmp_path), "--task", "forecast", "-o", tmp_path)
    note = (
        'times in "Timestamp" are read as days of a spreadsheet, they begin at 2024-03-01T00:00:00Z and are 600 s apart'
    )
    assert f"note: {note}" in result.stderr
    text = (tmp_path / "serial.toml").read_text()
    assert f"# <- {note}" in text
    recipe = read_recipe(tmp_path / "serial.toml")
    assert (recipe.recording.time_unit, recipe.sampling.interval_s) == ("days", 600)
    assert np.unique(np.diff(read_dataset(recipe).recording.times)).tolist() == [600]
    (tmp_path / "bare.toml").write_text(text.replace('time_unit = "days"\n', ""))
    with pytest.raises(EdgeLstmError, match="expected times from 2000 until now, found 45352, 45352"):
        read_dataset(read_recipe(tmp_path / "bare.toml"))


def test_what_the_options_say_of_times_is_written(tmp_path: Path) -> None:
    path = spreadsheet(tmp_path)
    asked = ("--time-unit", "min", "--time-start", "2023-12-01 00:00", "--timezone", "+01:00")
    assert init(path, "--task", "forecast", *asked, "-o", tmp_path).exit_code == 0
    source = read_recipe(tmp_path / "serial.toml").recording
    assert (source.time, source.time_unit, source.start) == ("Timestamp", "min", "2023-11-30T23:00:00Z")
    assert source.timezone == "UTC+01:00"
    path.write_text(path.read_text().replace("Timestamp", "no"))
    again = ("--name", "no", "--interval", "5", "-o", tmp_path)
    (tmp_path / "service.toml").unlink()
    assert init(path, "--task", "forecast", *again).exit_code == 0
    assert (read_recipe(tmp_path / "no.toml").recording.interval_s) == 5
    for options, found in [
        (("--time-format", "%d.%m."), "--time-format: expected a year"),
        (("--time-format", "%c", "--time-unit", "s"), "expected either --time-format or --time-unit"),
        (("--time-start", "2024-01-01"), "expected --time-unit beside --time-start"),
        (("--timezone", "Mars/North"), 'found "Mars/North"'),
    ]:
        refused = init(path, "--task", "forecast", *options, "-o", tmp_path)
        assert (refused.exit_code, found in refused.stderr) == (2, True)


def plant(folder: Path, zone: str) -> Path:
    """A month of half hours in the local time of a zone, with the change of its clocks."""
    begin = datetime(2024, 10, 20, tzinfo=timezone.utc)
    moments = [(begin + timedelta(minutes=30 * step)).astimezone(ZoneInfo(zone)) for step in range(1500)]
    path = folder / "plant.csv"
    path.write_text("time,x\n" + "".join(f"{one:%d.%m.%Y %H:%M},{step % 37}\n" for step, one in enumerate(moments)))
    return path


def test_a_choice_of_zones_is_left_to_the_user_and_splits_no_stream(tmp_path: Path) -> None:
    result = init(plant(tmp_path, "America/Denver"), "--task", "forecast", "-o", tmp_path)
    assert "set timezone to the right one of America/New_York, America/Chicago, America/Denver" in result.stderr
    recipe = read_recipe(tmp_path / "plant.toml")
    assert (recipe.recording.timezone, recipe.recording.stream_column) == ("UTC", None)


def test_local_times_get_the_zone_that_they_show(tmp_path: Path) -> None:
    path = plant(tmp_path, "Europe/Berlin")
    result = init(path, "--task", "forecast", "-o", tmp_path)
    assert "the times are read in the zone Europe/Berlin, since 2024-10-27 02:00 to 03:00 occurs twice" in result.stderr
    recipe = read_recipe(tmp_path / "plant.toml")
    assert (recipe.recording.timezone, recipe.recording.time_format) == ("Europe/Berlin", "%d.%m.%Y %H:%M")
    assert np.unique(np.diff(read_dataset(recipe).recording.times)).tolist() == [1800]


def test_a_recording_without_a_header_needs_given_names(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    rows = [f"{engine} {cycle} {random.normal(600, 1):.2f}  14.62" for engine in (1, 2) for cycle in range(1, 201)]
    path = tmp_path / "engines.txt"
    path.write_text("\n".join(rows) + "\n")
    refused = init(path, "--task", "forecast", "-o", tmp_path)
    assert refused.exit_code == 1
    assert "expected a header row, found readings in it: 1, 1, " in refused.stderr
    assert "hint: name its 4 columns: --header time,pump,level" in refused.stderr
    options = ("--header", "unit, cycle, s2, s5", "--stream-column", "unit", "--target", "s2")
    assert init(path, "--task", "forecast", *options, "-o", tmp_path).exit_code == 0
    recipe = read_recipe(tmp_path / "engines.toml")
    assert recipe.recording.header == ["unit", "cycle", "s2", "s5"]
    assert list(recipe.features) == ["s2"]  # cycle numbers the rows
    assert read_dataset(recipe).recording.streams == ["1", "2"]


def test_skipped_columns_are_named_and_a_decimal_comma_can_be_set(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    levels = [f"{level:.3f}".replace(".", ",") for level in random.normal(4, 1, 240)]
    lines = [f"2024-03-{1 + row // 24:02d} {row % 24:02d}:00;{level}" for row, level in enumerate(levels)]
    path = tmp_path / "tank.csv"
    path.write_text("when;level\n" + "\n".join(lines) + "\n")
    refused = init(path, "--task", "forecast", "-o", tmp_path)
    assert refused.exit_code == 1
    assert "if 4,310 in it is 4.31 and not 4310, add --decimal comma" in refused.stderr
    assert init(path, "--task", "forecast", "--decimal", "comma", "-o", tmp_path).exit_code == 0
    assert abs(np.nanmean(read_dataset(read_recipe(tmp_path / "tank.toml")).recording.values) - 4) < 0.5
    more = [f"{line};x{row};{row % 7}" for row, line in enumerate(lines)]
    path.write_text("when;level;tag;flow\n" + "\n".join(more) + "\n")
    folder = tmp_path / "two"
    folder.mkdir()
    assert init(path, "--task", "forecast", "--name", "two", "-o", folder).exit_code == 0
    left_out = "# left out, neither numbers nor a few repeated texts: level, tag\n"
    assert left_out in (folder / "two.toml").read_text()


def test_init_overwrites_nothing_and_names_unusable_columns(pumps: Path, tmp_path: Path) -> None:
    for arguments, found in [
        (("--task", "regress", "--target", "flaw °"), 'did you mean "flow °"?'),
        (("--task", "classify", "--target", "pressure"), "expected a column of few values as the target"),
        (("--task", "forecast", "--stream-column", "pomp"), 'expected a column "pomp"'),
        (("--task", "forecast", "-o", tmp_path / "none"), "expected a folder at"),
    ]:
        result = init(pumps, "-o", tmp_path, *arguments)
        assert result.exit_code == 1
        assert found in result.stderr
    assert not list(tmp_path.glob("*.toml"))
    (tmp_path / "service.toml").write_text("mine")
    assert "expected no file at" in init(pumps, "--task", "forecast", "-o", tmp_path).stderr
    assert (tmp_path / "service.toml").read_text() == "mine"


def days_of(tmp_path: Path, **columns: np.ndarray) -> Path:
    """Ten days, a row an hour, of these columns."""
    lines = [",".join(["time", *columns])]
    for hour in range(240):
        time = f"2024-03-{1 + hour // 24:02d}T{hour % 24:02d}:00:00Z"
        lines.append(",".join([time, *(f"{values[hour]:.4f}" for values in columns.values())]))
    path = tmp_path / "days.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("task", ["forecast", "anomaly", "regress"])
def test_for_a_drifting_level_the_layers_see_its_changes(tmp_path: Path, task: str) -> None:
    random = np.random.default_rng(4)
    daily = np.sin(2 * np.pi * np.arange(240) / 24)
    noise = random.normal(0, 0.1, (3, 240))
    path = days_of(tmp_path, steady=daily + noise[0], climbing=daily + noise[1] + np.arange(240) / 100, last=noise[2])
    assert init(path, "--task", task, "-o", tmp_path).exit_code == 0
    recipe = read_recipe(tmp_path / "days.toml")
    kept = task == "regress"  # a quantity that nobody measures is told from levels, of which changes say nothing
    assert recipe.features["climbing"].level is kept
    assert recipe.features["climbing"].derived == ([] if kept else ["difference", "from_mean 48"])
    assert recipe.features["steady"].level
    assert "it drifts from " in (tmp_path / "days.toml").read_text() or kept
    assert np.isfinite(read_dataset(recipe).features).all()


def test_a_column_constant_in_the_training_part_is_left_out(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    path = days_of(tmp_path, level=random.normal(size=240), broken=np.arange(240) > 200)
    for task in ("forecast", "anomaly"):
        assert init(path, "--task", task, "--name", task, "-o", tmp_path).exit_code == 0
        (tmp_path / "service.toml").unlink()
        recipe = read_recipe(tmp_path / f"{task}.toml")
        assert list(recipe.features) == ["level"]
        assert len(read_dataset(recipe)) == 240
        said = "constant in the training part: broken" in (tmp_path / f"{task}.toml").read_text()
        assert said is (task == "forecast")
    assert recipe.anomaly.truth == "broken"


@pytest.mark.parametrize("task", ["classify", "regress"])
def test_a_target_without_a_feature_is_refused(task: str, tmp_path: Path) -> None:
    rows = "".join(f"{1_700_000_000 + 60 * row},{row // 20 % 2}\n" for row in range(200))
    (tmp_path / "pump.csv").write_text(f"time,running\n{rows}")
    result = init(tmp_path / "pump.csv", "--task", task, "-o", tmp_path)
    assert result.exit_code == 1
    assert result.output.startswith("error: expected a column besides running as a feature, found none\nhint: ")
    assert [path.name for path in tmp_path.iterdir()] == ["pump.csv"]  # nothing is written


def test_the_outline_of_a_short_recording_trains_too(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    recipes = {}
    for rows in (30, 60, 240):
        (tmp_path / str(rows)).mkdir()
        path = tmp_path / str(rows) / "hours.csv"
        values = random.normal(20, 1, rows)
        lines = [f"{1_700_000_000 + 3600 * row},{value:.2f}" for row, value in enumerate(values)]
        path.write_text("\n".join(["time,level", *lines]) + "\n")
        result = init(path, "--task", "forecast", "-o", path.parent)
        assert result.exit_code == 0, result.output
        recipes[rows] = read_recipe(path.parent / "hours.toml")
        recipe = dataclasses.replace(recipes[rows], fit=dataclasses.replace(recipes[rows].fit, updates=1))
        dataset = read_dataset(recipe)
        fitted = fit(recipe, dataset, fit_baselines(dataset).residual)
        contract, _ = trained_contract(recipe, dataset, fitted)
        assert (contract.intervals is not None) is (rows > 30)
    assert [recipe.forecast.horizons for recipe in recipes.values()] == [[1], [1], [1, 6, 24]]


def test_names_of_takes_are_no_features(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    rows = [
        f"{1_700_000_000 + 10_000 * take + second},take-{take},{random.normal():.3f},{('sit', 'walk')[take % 2]}"
        for take in range(6)
        for second in range(60)
    ]
    path = tmp_path / "takes.csv"
    path.write_text("\n".join(["time,take,ax,activity", *rows]) + "\n")
    assert init(path, "--task", "classify", "-o", tmp_path).exit_code == 0
    recipe = read_recipe(tmp_path / "takes.toml")
    assert list(recipe.features) == ["ax"]
    assert "which no device measures: take" in (tmp_path / "takes.toml").read_text()
    take = FeatureSection(categories=[f"take-{number}" for number in range(6)])
    by_hand = dataclasses.replace(recipe, features={**recipe.features, "take": take})
    with pytest.raises(EdgeLstmError, match='"take" to hold what a device can measure, found names of stretches'):
        read_dataset(by_hand)


def test_columns_of_forecasts_become_later_values_of_their_quantity(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    lines = ["time,indoor,temp,temp+1h,temp+6h"]
    for row in range(300):
        time = (datetime(2024, 3, 1, tzinfo=timezone.utc) + timedelta(hours=row)).isoformat()
        lines.append(f"{time},{','.join(f'{number:.3f}' for number in random.normal(10, 3, 4))}")
    (tmp_path / "house.csv").write_text("\n".join(lines))
    assert init(tmp_path / "house.csv", "--task", "forecast", "-o", tmp_path).exit_code == 0
    recipe = read_recipe(tmp_path / "house.toml")
    assert list(recipe.features) == ["indoor", "temp", "temp+1", "temp+6"]
    assert recipe.forecast is not None
    assert recipe.forecast.targets == ["indoor"]
    dataset = read_dataset(recipe)
    assert dataset.recording.actual_ahead == {}  # the columns are used
    assert dataset.contract.known_ahead[0].topic == "weather/{stream}/forecast"
    service = (tmp_path / "service.toml").read_text()
    assert "# [forecasts.temp]" in service
    assert '"temp+1h"' not in service
