"""`init` for files of weather services, historians and loggers: what is found has the right times, names and values."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge_lstm.cli.main import main
from edge_lstm.foundation.times.text import format_time
from edge_lstm.recordings.recording import Recording, read_recording
from edge_lstm_train.recipe.recipe import Recipe, read_recipe

ROWS = 120
RANDOM = np.random.default_rng(5)
TEMP, HUM = np.round(RANDOM.normal(20, 2, ROWS), 2), np.round(RANDOM.normal(50, 5, ROWS), 1)


def moment(step: int, minutes: int = 10) -> datetime:
    return datetime(2024, 3, 1) + timedelta(minutes=minutes * step)


def init(folder: Path, content: str, *options: str, name: str = "attic.csv") -> Result:
    (folder / name).write_text(content, encoding="utf-8", newline="")
    return CliRunner().invoke(
        main, ["init", str(folder / name), "--task", "forecast", "-o", str(folder), "--name", "x", *options]
    )


def found(folder: Path, content: str, *options: str) -> tuple[Result, Recipe, Recording]:
    result = init(folder, content, *options)
    assert result.exit_code == 0, result.stderr
    recipe = read_recipe(folder / "x.toml")
    return result, recipe, read_recording(recipe.recording.path, recipe.columns)


def begins(recording: Recording) -> str:
    return format_time(recording.times[0])


def test_names_above_empty_comments_are_found(tmp_path: Path) -> None:
    head = "# a weather service\n# T = 0.1 degrees\n#\n# STN,YYYYMMDD,   HH,    T,    U\n#\n"
    rows = [
        f"  260,{moment(i, 60):%Y%m%d},{moment(i, 60).hour + 1:5},{int(10 * TEMP[i]):5},{HUM[i]:5}" for i in range(ROWS)
    ]
    _, recipe, recording = found(tmp_path, head + "\n".join(rows) + "\n")
    assert set(recipe.features) == {"T", "U"}
    assert begins(recording) == "2024-03-01T01:00:00Z"


def test_names_in_a_comment_above_their_units_are_found(tmp_path: Path) -> None:
    head = "#YY  MM DD hh mm WSPD GST  ATMP\n#yr  mo dy hr mn m/s  m/s  degC\n"
    rows = [
        f"{moment(i):%Y %m %d %H %M} {HUM[i]:5} {'MM' if i == 4 else HUM[i] + 1:5} {TEMP[i]:5}" for i in range(ROWS)
    ]
    _, recipe, recording = found(tmp_path, head + "\n".join(rows) + "\n")
    assert set(recipe.features) == {"WSPD", "GST", "ATMP"}
    assert recipe.recording.time == ["YY", "MM", "DD", "hh", "mm"]
    assert begins(recording) == "2024-03-01T00:00:00Z"
    np.testing.assert_array_equal(recording.values[:, recording.features.index("ATMP")], TEMP)


def test_rows_of_whole_numbers_are_no_header(tmp_path: Path) -> None:
    rows = "".join(f"260,{moment(i):%Y%m%d},{i % 24},{int(TEMP[i])}\n" for i in range(ROWS))
    result = init(tmp_path, rows)
    assert result.exit_code == 1
    assert "expected a header row" in result.stderr


def test_readings_that_begin_with_words_keep_their_header(tmp_path: Path) -> None:
    rows = "".join(f"{moment(i):%d-%b-%y %H:%M:%S},{'No Data' if i < 3 else TEMP[i]},{HUM[i]}\n" for i in range(ROWS))
    _, recipe, recording = found(tmp_path, "Time,FIC101.PV,TIC102.PV\n" + rows)
    assert list(recipe.features) == ["FIC101.PV", "TIC102.PV"]
    assert int(np.isnan(recording.values).sum()) == 3


@pytest.mark.parametrize(
    ("name", "first"), [("Date Time, GMT-05:00", "05"), ("Time (UTC+2)", "22"), ("Date/Time", "00")]
)
def test_a_zone_in_the_name_of_the_column_is_used(tmp_path: Path, name: str, first: str) -> None:
    rows = "".join(f"{moment(i):%Y-%m-%d %H:%M:%S},{TEMP[i]}\n" for i in range(ROWS))
    _, _, recording = found(tmp_path, f'"{name}",temp\n{rows}')
    assert begins(recording)[11:13] == first


def test_the_month_is_first_beside_am_and_pm(tmp_path: Path) -> None:
    rows = "".join(f"{moment(i, 5):%m/%d/%Y %I:%M:%S %p},{TEMP[i]}\n" for i in range(ROWS))
    result, recipe, recording = found(tmp_path, "Start Time,temp\n" + rows)
    assert recipe.recording.time_format == "%m/%d/%Y %I:%M:%S %p"
    assert begins(recording) == "2024-03-01T00:00:00Z"
    assert "day or month first?" in result.stderr
    rows = "".join(f"{moment(i, 5):%m/%d/%Y},{moment(i, 5):%I:%M:%S %p},{TEMP[i]}\n" for i in range(ROWS))
    (tmp_path / "two").mkdir()
    assert begins(found(tmp_path / "two", "Date,Time,temp\n" + rows)[2]) == "2024-03-01T00:00:00Z"


@pytest.mark.parametrize("form", ["%Y%m%d%H", "%d/%m/%Y %I:%M a. m."])
def test_times_of_other_services_are_read(tmp_path: Path, form: str) -> None:
    rows = "".join(f"{moment(i % 12, 60) + timedelta(days=i // 12):{form}};{TEMP[i]}\n" for i in range(ROWS))
    _, _, recording = found(tmp_path, "Date;temp\n" + rows)
    assert recording.times[1] - recording.times[0] == 3600


def test_the_newest_row_may_be_the_first(tmp_path: Path) -> None:
    rows = "".join(f"{moment(i):%Y-%m-%d %H:%M},{TEMP[i]},{HUM[i]}\n" for i in reversed(range(ROWS)))
    result, recipe, recording = found(tmp_path, "time,temp,hum\n" + rows)
    assert "its newest rows come first" in result.stderr
    assert recipe.sampling.interval_s == 600
    assert (np.diff(recording.times) == 600).all()
    np.testing.assert_array_equal(recording.values[:, 0], TEMP)


def test_rows_of_2000_are_of_a_clock_that_was_not_set(tmp_path: Path) -> None:
    times = [moment(i) if not 40 <= i < 52 else datetime(2000, 1, 1, 0, i) for i in range(ROWS)]
    rows = "".join(f"{times[i]:%Y-%m-%d %H:%M},{TEMP[i]}\n" for i in range(ROWS))
    _, _, recording = found(tmp_path, "time,temp\n" + rows)
    assert recording.left_out == {"wrong clock": 12}


def test_points_are_of_thousands_beside_decimal_commas(tmp_path: Path) -> None:
    power = [1200 + int(10 * HUM[i]) for i in range(ROWS)]
    rows = "".join(
        f"{moment(i):%d.%m.%Y %H:%M};{power[i] // 1000}.{power[i] % 1000:03d};{f'{TEMP[i]:.2f}'.replace('.', ',')}\n"
        for i in range(ROWS)
    )
    result, recipe, recording = found(tmp_path, "Zeit;Leistung;Temperatur\n" + rows)
    assert recording.values[:, recording.features.index("Leistung")].tolist() == power
    assert recipe.recording.thousands == "."
    assert '"Leistung": 1.' in result.stderr


def test_numbers_of_two_units_are_named(tmp_path: Path) -> None:
    rows = "".join(f"{moment(i):%Y-%m-%d %H:%M},{HUM[i]} {'W' if i % 5 else 'kW'}\n" for i in range(ROWS))
    result = init(tmp_path, "time,power\n" + rows)
    assert '"power" holds numbers of several units, "W" and "kW"' in result.stderr


def test_stars_and_states_are_missing_values_and_no_categories(tmp_path: Path) -> None:
    rows = "".join(
        f"{moment(i):%Y-%m-%d %H:%M},{'***' if i % 9 == 2 else i % 7},{'I/O Timeout' if i % 9 == 3 else TEMP[i]}\n"
        for i in range(ROWS)
    )
    _, recipe, recording = found(tmp_path, "time,speed,flow\n" + rows)
    assert not recipe.features["speed"].categories
    assert np.isnan(recording.values).sum(axis=0).tolist() == [14, 13]


def test_a_name_with_a_line_break_is_one_name(tmp_path: Path) -> None:
    rows = "".join(f"{moment(i):%Y-%m-%d %H:%M},{TEMP[i]}\r\n" for i in range(ROWS))
    _, recipe, _ = found(tmp_path, '"time","Temp\n(°C)"\r\n' + rows)
    assert list(recipe.features) == ["Temp (°C)"]


def test_types_below_the_names_are_no_units(tmp_path: Path) -> None:
    rows = "".join(f'"{moment(i):%Y-%m-%d %H:%M:%S}","{TEMP[i]}","{HUM[i]}"\n' for i in range(ROWS))
    _, recipe, _ = found(tmp_path, f'#NAMES\n"t_stamp","a","b"\n#TYPES\n"date","F4","F4"\n#ROWS,"{ROWS}"\n{rows}')
    assert [feature.unit for feature in recipe.features.values()] == ["", ""]


def test_a_column_of_row_numbers_makes_no_comment(tmp_path: Path) -> None:
    rows = "".join(f"{i + 1},{moment(i):%Y-%m-%d %H:%M},{TEMP[i]}\n" for i in range(ROWS))
    result, recipe, _ = found(tmp_path, "#,time,temp\n" + rows)
    assert "comment" not in result.stderr
    assert recipe.recording.comment is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("time,hum,temp", "found another header: time, hum, temp"),
        ("time,temp,hum,co2", "found 60 readings above line 62, where a header of other columns begins"),
    ],
)
def test_columns_that_change_in_a_file_are_refused(tmp_path: Path, header: str, expected: str) -> None:
    rows = [f"{moment(i):%Y-%m-%d %H:%M},{TEMP[i]},{HUM[i]}" for i in range(ROWS)]
    more = [row + ",7" * (header.count(",") - 2) for row in rows[60:]]
    result = init(tmp_path, "\n".join(["time,temp,hum", *rows[:60], header, *more]) + "\n")
    assert result.exit_code == 1
    assert expected in result.stderr
    assert "split the file" in result.stderr


def test_tags_of_wincc_become_features(tmp_path: Path) -> None:
    rows = "".join(
        f'"{name}";"{moment(i):%d.%m.%Y %H:%M:%S}";{f"{values[i]:.2f}".replace(".", ",")};1\n'
        for i in range(ROWS)
        for name, values in (("Level", HUM), ("Heat", TEMP))
    )
    _, recipe, recording = found(tmp_path, '"VarName";"TimeString";"VarValue";"Validity"\n' + rows)
    assert list(recipe.features) == ["Level", "Heat"]
    np.testing.assert_array_equal(recording.values[:, 1], TEMP)


@pytest.mark.parametrize(
    ("dates", "clocks", "form"),
    [("%d%m%y", "%H%M%S.00", "%d%m%y %H%M%S.%f"), ("%m/%d/%Y", "%H:%M:%S:250", "%m/%d/%Y %H:%M:%S:%f")],
)
def test_clocks_of_instruments_are_read(tmp_path: Path, dates: str, clocks: str, form: str) -> None:
    rows = "".join(f"{moment(i, 30):{dates}},{moment(i, 30):{clocks}},{TEMP[i]}\n" for i in range(ROWS))
    _, recipe, recording = found(tmp_path, "Date,Time,temp\n" + rows)
    assert recipe.recording.time_format == form
    assert begins(recording)[:16] == "2024-03-01T00:00"


def test_dates_of_six_digits_are_no_seconds(tmp_path: Path) -> None:
    rows = "".join(f"{moment(i, 1440):%y%m%d},{TEMP[i]}\n" for i in range(ROWS))
    _, recipe, recording = found(tmp_path, "date,temp\n" + rows)
    assert (begins(recording), recipe.sampling.interval_s) == ("2024-03-01T00:00:00Z", 86_400)


def test_a_column_of_time_zones_is_no_time(tmp_path: Path) -> None:
    begin = 1_709_251_200
    rows = "".join(f"{begin + 600 * i},3600,{TEMP[i]}\n" for i in range(ROWS))
    _, recipe, recording = found(tmp_path, "dt,timezone,temp\n" + rows)
    assert (recipe.recording.time, recording.times[0]) == ("dt", begin)


def test_times_that_are_all_equal_are_refused(tmp_path: Path) -> None:
    result = init(tmp_path, "date,temp\n" + "".join(f"2024-03-01,{temp}\n" for temp in TEMP))
    assert "expected different times in date, found 2024-03-01T00:00:00Z in all 120 rows" in result.stderr


def test_signs_of_instruments_are_read(tmp_path: Path) -> None:
    rows = "".join(f"{moment(i):%Y-%m-%d %H:%M},-   {TEMP[i]},\u2212{HUM[i]}\n" for i in range(ROWS))
    _, _, recording = found(tmp_path, "time,a,b\n" + rows)
    np.testing.assert_array_equal(recording.values, -np.stack([TEMP, HUM], axis=1))


def test_a_device_that_starts_again_gives_no_times(tmp_path: Path) -> None:
    result, _, _ = found(tmp_path, "millis,temp\n" + "".join(f"{5000 * (i % 60)},{TEMP[i]}\n" for i in range(ROWS)))
    assert '"millis" counts from the start of a device, but falls back once' in result.stderr


def test_a_zone_in_the_header_below_a_title_is_no_reading(tmp_path: Path) -> None:
    rows = "".join(f"{i + 1},{moment(i, 5):%m/%d/%y %I:%M:%S %p},{TEMP[i]}\n" for i in range(ROWS))
    head = '"Plot Title: attic"\n"#","Date Time, GMT+01:00","Temp, \u00b0C"\n'
    _, recipe, recording = found(tmp_path, head + rows)
    assert list(recipe.features) == ["Temp, \u00b0C"]
    assert begins(recording) == "2024-02-29T23:00:00Z"
