"""The times of real loggers: forms that are found, numbers that are refused, and hours that occur twice or never."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from edge_lstm.foundation.arrays import Doubles
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.times.text import parse_time
from edge_lstm.recordings.columns import TimeColumns
from edge_lstm.recordings.dialect import Dialect, dialect
from edge_lstm.recordings.local_zone import in_local_zone
from edge_lstm.recordings.recording import Columns, Recording, read_recording
from edge_lstm.recordings.times.time_reader import offsets
from edge_lstm.recordings.times.zone_search import fitting_zones

BERLIN = ZoneInfo("Europe/Berlin")
BEGIN = datetime(2024, 3, 1)
MOMENTS = [BEGIN + timedelta(minutes=10 * step) for step in range(300)]


def written(folder: Path, cells: Iterable[str], name: str = "time") -> Path:
    path = folder / "logger.csv"
    path.write_text(f"{name};x\n" + "".join(f"{cell};1\n" for cell in cells))
    return path


def found(folder: Path, cells: Iterable[str], name: str = "time", guess: bool = True) -> Dialect:
    return dialect(written(folder, cells, name), None, None, guess)


def read(path: Path | Sequence[Path], times: TimeColumns, stream_column: str | None = None) -> Recording:
    stream = None if stream_column else "one"
    return read_recording(path, Columns({"x": "x"}, times, stream_column, stream))


def unpadded(moment: datetime, form: str) -> str:
    return form.format(moment, moment)


@pytest.mark.parametrize(
    ("name", "cell", "form"),
    [
        ("time", "%Y-%m-%dT%H:%M:%S", None),
        ("time", "%Y%m%dT%H%M%SZ", None),
        ("Timestamp", "%Y%m%d%H%M", None),
        ("datetime", "%Y%m%d%H%M%S", None),
        ("when", "%Y%m%d_%H%M%S", "%Y%m%d_%H%M%S"),
        ("Date/Time", "%d-%b-%Y %H:%M:%S", "%d-%b-%Y %H:%M:%S"),
        ("when", "%b %d, %Y %I:%M:%S %p", "%b %d, %Y %I:%M:%S %p"),
        ("when", "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %Y"),
        ("when", "%a, %d %b %Y %H:%M:%S GMT", "%a, %d %b %Y %H:%M:%S %Z"),
        ("when", "%d/%b/%Y:%H:%M:%S +0000", "%d/%b/%Y:%H:%M:%S %z"),
        ("Datum", "%d. März %Y %H:%M", "%d. %b %Y %H:%M"),
        ("when", "%d.%m.%y %H:%M:%S,250", "%d.%m.%y %H:%M:%S,%f"),
        ("when", "%y/%m/%d %H:%M", "%y/%m/%d %H:%M"),
        ("when", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M"),
        ("when", "%H:%M %d.%m.%Y", "%H:%M %d.%m.%Y"),
    ],
)
def test_a_format_is_found_and_reads_all_rows(tmp_path: Path, name: str, cell: str, form: str | None) -> None:
    path = written(tmp_path, [moment.strftime(cell) for moment in MOMENTS], name)
    times = dialect(path).times
    assert times == TimeColumns([name], form)
    seconds = read(path, times).times - parse_time("2024-03-01")
    np.testing.assert_allclose(seconds, 600 * np.arange(300), atol=0.251)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("{0.year}/{0.month}/{0.day} {0.hour}:{0.minute:02}", "%Y/%m/%d %H:%M"),
        ("{0.day}.{0.month}.{0.year} {0.hour}:{0.minute:02}", "%d.%m.%Y %H:%M"),
        ("{0.month}/{0.day}/{0.year} {0.hour}:{0.minute:02}", "%m/%d/%Y %H:%M"),
    ],
)
def test_dates_without_leading_zeros_get_a_format(tmp_path: Path, form: str, expected: str) -> None:
    late = [moment + timedelta(days=9, hours=10) for moment in MOMENTS]  # the first row has all its digits
    for moments in (MOMENTS, late):
        path = written(tmp_path, [unpadded(moment, form) for moment in moments])
        times = dialect(path).times
        assert times == TimeColumns(["time"], expected)
        assert np.unique(np.diff(read(path, times).times)).tolist() == [600]


def test_hours_from_1_to_24_are_one_hour_apart(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    rows = [f"{20240301 + day},{hour},{day + hour}\n" for day in range(4) for hour in range(1, 25)]
    path.write_text("date,hour,x\n" + "".join(rows))
    times = dialect(path).times
    assert times == TimeColumns(["date", "hour"], "%Y%m%d %H")
    read_times = read(path, times).times
    assert (read_times == parse_time("2024-03-01T01:00:00Z") + 3600 * np.arange(96)).all()


def test_the_day_of_the_year_beside_an_hour_is_read(tmp_path: Path) -> None:
    path = tmp_path / "station.csv"
    path.write_text("year,doy,hour,x\n2024,61,23,1\n2024,61,24,2\n2024,62,1,3\n")
    times = dialect(path).times
    assert times == TimeColumns(["year", "doy", "hour"], "%Y %j %H")
    assert (read(path, times).times - parse_time("2024-03-02T00:00:00Z")).tolist() == [-3600, 0, 3600]


@pytest.mark.parametrize(
    ("date", "columns", "form"),
    [
        ("20240301", ["date", "time"], "%Y%m%d %H%M"),
        ("2024-03-01", ["date", "time"], "%Y-%m-%d %H%M"),
        ("2024,61", ["year", "doy", "time"], "%Y %j %H%M"),
    ],
)
def test_hours_and_minutes_without_a_colon_are_read(tmp_path: Path, date: str, columns: list[str], form: str) -> None:
    path = tmp_path / "logger.csv"
    clocks = [f"{100 * hour + minute}" for hour in range(24) for minute in (0, 30)] + ["2400"]
    path.write_text(f"{','.join(columns)},x\n" + "".join(f"{date},{clock},1\n" for clock in clocks))
    times = dialect(path).times
    assert times == TimeColumns(columns, form)
    assert (read(path, times).times == times_from("2024-03-01", 49, 1800)).all()


@pytest.mark.parametrize("form", ["%Y-%m-%d %I:%M:%S", "%d/%m/%Y %I:%M"])
def test_a_clock_of_twelve_hours_without_am_is_refused(tmp_path: Path, form: str) -> None:
    path = written(tmp_path, [moment.strftime(form) for moment in MOMENTS])
    expected = r'"time": expected times of 24 hours, or with AM and PM, found hours 1 to 12, and 01:00 after 12:50'
    with pytest.raises(EdgeLstmError, match=expected):
        read(path, dialect(path).times or TimeColumns())


def test_mornings_alone_are_no_clock_of_twelve_hours(tmp_path: Path) -> None:
    mornings = [BEGIN + timedelta(days=day, hours=hour) for day in range(5) for hour in range(1, 13)]
    path = written(tmp_path, [moment.isoformat() for moment in mornings])
    assert len(read(path, TimeColumns(["time"]))) == 60


def test_a_doubtful_order_of_day_and_month_is_told(tmp_path: Path) -> None:
    told = found(tmp_path, ["01/03/2024 00:00", "01/03/2024 01:00"])
    assert told.times == TimeColumns(["time"], "%d/%m/%Y %H:%M")
    assert told.notes == [
        'day or month first? 01/03/2024 00:00 is read as 2024-03-01 ("%d/%m/%Y %H:%M"), but may be 2024-01-03 '
        '("%m/%d/%Y %H:%M"): both fit all rows alike'
    ]
    assert found(tmp_path, ["03/03/2024 00:00", "03/03/2024 01:00"]).notes == []  # the same in both orders
    assert found(tmp_path, ["01/03/2024 00:00", "02/03/2024 01:00"]).notes == []


def test_an_order_of_day_and_month_that_ends_after_now_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: parse_time("2024-02-01"))
    told = found(tmp_path, ["01/03/2024 00:00", "01/03/2024 01:00"])
    assert told.times == TimeColumns(["time"], "%m/%d/%Y %H:%M")  # 3 January, not 1 March


def serial(step: int) -> str:
    return f"{45_352 + step / 144:.6f}"


@pytest.mark.parametrize(
    ("cell", "unit", "begin", "step_s"),
    [
        (serial, "days", "2024-03-01", 600),
        (lambda step: serial(step).replace(".", ","), "days", "2024-03-01", 600),
        (lambda step: f"{739_312 + step / 144:.6f}", "days-matlab", "2024-03-01", 600),
        (lambda step: f"{2_460_370.5 + step / 144:.6f}", "days-julian", "2024-03-01", 600),
        (lambda step: str(116_444_736_000_000_000 + (1_709_251_200 + step) * 10**7), "filetime", "2024-03-01", 1),
        (lambda step: f"{1_709_251_200 + step},5", "s", "2024-03-01T00:00:00.5", 1),
    ],
)
def test_numbers_of_one_likely_unit_are_read_in_it(
    tmp_path: Path, cell: Callable[[int], str], unit: str, begin: str, step_s: float
) -> None:
    path = written(tmp_path, map(cell, range(300)), "Timestamp")
    for guess in (False, True):
        told = dialect(path, None, None, guess)
        assert told.times is not None
        assert (told.times.unit, told.times.start) == (unit, None)
        times = read(path, told.times).times
        np.testing.assert_allclose(times, parse_time(begin) + step_s * np.arange(300), atol=1e-5)
    assert read(path, told.times).times[1] - times[0] == pytest.approx(step_s, abs=1e-5)


def test_the_reading_of_a_spreadsheet_is_told_with_the_other_one(tmp_path: Path) -> None:
    (note,) = found(tmp_path, map(serial, range(300))).notes
    assert "days of a spreadsheet, they begin at 2024-03-01T00:00:00Z and are 600 s apart" in note
    assert "not as seconds since 1970, they begin at 1970-01-01T12:35:52Z and are 0.006944 s apart" in note


def test_numbers_without_a_unit_are_refused_with_both_readings(tmp_path: Path) -> None:
    path = written(tmp_path, map(serial, range(300)), "Timestamp")
    with pytest.raises(EdgeLstmError) as caught:
        read(path, TimeColumns(["Timestamp"]))
    assert 'column "Timestamp": expected times from 2000 until now, found 45352, 45352.006944' in caught.value.message
    assert "as seconds since 1970, they begin at 1970-01-01T12:35:52Z and are 0.006944 s" in caught.value.message
    assert "as days of a spreadsheet, they begin at 2024-03-01T00:00:00Z and are 600 s" in caught.value.message
    assert 'time_unit = "days" in a recipe, or --time-unit days' in caught.value.hint


@pytest.mark.parametrize(
    ("name", "first", "step", "unit"),
    [
        ("time", 120_000, 60_000, "ms"),
        ("time", 0, 1, "s"),
        ("time", 0.0, 0.02, "s"),
        ("time_ms", 0, 20, "ms"),
        ("millis", 512, 20, "ms"),
        ("Time (s)", 0, 60_000, "s"),
        ("uptime_min", 0, 5, "min"),
    ],
)
def test_times_that_count_from_any_start_get_a_likely_unit(
    tmp_path: Path, name: str, first: float, step: float, unit: str
) -> None:
    told = found(tmp_path, [f"{first + step * row:g}" for row in range(300)], name)
    assert told.times == TimeColumns([name], unit=unit)  # type: ignore[arg-type]
    assert len(told.notes) == 1


def test_a_start_of_unknown_unit_is_refused_where_nobody_is_asked(tmp_path: Path) -> None:
    path = written(tmp_path, [str(120_000 + 60_000 * row) for row in range(300)])
    with pytest.raises(EdgeLstmError) as caught:
        read(path, dialect(path).times or TimeColumns())
    assert "as seconds since 1970, they begin at 1970-01-02T09:20:00Z and are 60000 s apart" in caught.value.message
    assert "as milliseconds since any start, they are 60 s apart" in caught.value.message
    assert "--time-unit ms" in caught.value.hint


def test_seconds_are_taken_where_the_name_of_the_column_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, [f"{row / 50:g}" for row in range(300)], "t_s")
    assert read(path, TimeColumns(["t_s"])).times[:3].tolist() == [0, 0.02, 0.04]
    path = written(tmp_path, [f"{20 * row}" for row in range(300)], "t_ms")
    with pytest.raises(EdgeLstmError, match='column "t_ms": expected times from 2000 until now, found 0, 20'):
        read(path, TimeColumns(["t_ms"]))


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (541_555_200, ["1987-03-01T00:00:00Z", "since 2000-01-01, they begin at 2017-02-28T00:00:00Z"]),
        (3_792_096_000, ["2090-03-02T00:00:00Z", "since 1904-01-01, they begin at 2024-03-01T00:00:00Z"]),
    ],
)
def test_seconds_from_another_origin_are_asked_about(tmp_path: Path, number: int, shown: list[str]) -> None:
    path = written(tmp_path, [str(number + 600 * row) for row in range(300)])
    with pytest.raises(EdgeLstmError) as caught:
        read(path, found(tmp_path, [str(number + 600 * row) for row in range(300)]).times or TimeColumns())
    assert all(one in caught.value.message for one in shown)
    historic = read(path, TimeColumns(["time"], unit="s"))
    assert historic.times[0] == number  # said by the user
    later = read(path, TimeColumns(["time"], unit="s", start=parse_time("2000-01-01")))
    assert later.times[0] == number + 946_684_800


def test_texts_of_the_last_century_are_taken_as_they_are(tmp_path: Path) -> None:
    path = written(tmp_path, [f"1987-03-{day:02d} 12:00" for day in range(1, 20)])
    assert read(path, dialect(path).times or TimeColumns()).times[0] == parse_time("1987-03-01T12:00:00Z")


@pytest.mark.parametrize(
    ("name", "cell", "message", "hint"),
    [
        ("time", "2024-03-01 00:00:00 CET", "found '2024-03-01 00:00:00 CET'", "like Europe/Berlin; in a recipe"),
        ("time", "2024-03-01 00:00:00 EST", "found '2024-03-01 00:00:00 EST'", "--timezone, like America/New_York"),
        ("Timestamp", "T+17", "column \"Timestamp\": expected times, found 'T+17'", "--time-format"),
        ("startDate", "32.03.2024", "column \"startDate\": expected times, found '32.03.2024'", "--interval"),
    ],
)
def test_a_column_that_says_time_is_read_or_refused(
    tmp_path: Path, name: str, cell: str, message: str, hint: str
) -> None:
    with pytest.raises(EdgeLstmError) as caught:
        found(tmp_path, [cell] * 3, name)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_dates_with_an_unreadable_time_of_day_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "logger.csv"
    path.write_text("date,time,x\n" + "".join(f"2024-03-01,{hour} o'clock,1\n" for hour in range(24)))
    expected = '"time": expected times of day beside the dates in "date", found "0 o\'clock"'
    with pytest.raises(EdgeLstmError, match=expected):
        dialect(path)


def test_a_column_that_may_say_time_is_named_in_a_note(tmp_path: Path) -> None:
    for name, cell in [("date", "Monday"), ("Messzeit", "früh"), ("when", "2024 12:00 Uhr")]:
        told = found(tmp_path, [cell] * 3, name)
        assert told.times is None
        assert told.notes == [f'column "{name}" is not read as times, since its first cell is {cell!r}']
    assert found(tmp_path, ["on", "off"], "lifetimes").notes == []


def test_abbreviations_are_read_in_a_given_zone(tmp_path: Path) -> None:
    path = written(tmp_path, ["2024-10-27 02:30:00 CEST", "2024-10-27 02:00:00 CET", "2024-10-27 02:30:00 CET"])
    times = dialect(path, TimeColumns(zone=BERLIN)).times
    assert times == TimeColumns(["time"], "%Y-%m-%d %H:%M:%S %Z", zone=BERLIN)
    assert np.diff(read(path, times).times).tolist() == [1800, 1800]


def test_a_cell_of_another_form_names_the_format_to_set(tmp_path: Path) -> None:
    path = written(tmp_path, ["2024/3/1 0:00", "2024/3/1 0:10"])
    with pytest.raises(EdgeLstmError) as caught:
        read(path, TimeColumns(["time"]))
    assert "row 2, column \"time\": '2024/3/1 0:00' is not a time" in caught.value.message
    assert caught.value.hint.startswith('if all rows are like it, set time_format = "%Y/%m/%d %H:%M"; else fix')


def local_texts(times: Doubles, zone: ZoneInfo = BERLIN, form: str = "%Y-%m-%d %H:%M:%S") -> list[str]:
    return [datetime.fromtimestamp(time, zone).strftime(form) for time in times.tolist()]


def times_from(begin: str, count: int, step_s: float) -> Doubles:
    return parse_time(begin) + step_s * np.arange(count)


@pytest.mark.parametrize("form", [None, "%d.%m.%Y %H:%M:%S"])
@pytest.mark.parametrize(
    ("begin", "count", "step_s"),
    [
        ("2024-10-26T22:00:00Z", 6 * 3600, 1),  # more than one block of rows
        ("2024-10-26T12:00:00Z", 150, 600),
        ("2024-10-26T12:00:00Z", 60, 1800),
        ("2024-10-26T12:00:00Z", 40, 3600),
        ("2024-10-26T12:00:00Z", 20, 7200),
        ("2024-10-27T01:20:00Z", 30, 600),  # begins in the second occurrence
        ("2024-10-27T00:20:00Z", 30, 600),
        ("2024-10-26T20:00:00Z", 33, 600),  # ends in it
        ("2022-01-01T00:00:00Z", 3 * 365 * 24, 3600),  # six changes
    ],
)
def test_the_order_of_rows_distinguishes_equal_local_times(
    tmp_path: Path, begin: str, count: int, step_s: float, form: str | None
) -> None:
    times = times_from(begin, count, step_s)
    path = written(tmp_path, local_texts(times, form=form or "%Y-%m-%d %H:%M:%S"))
    np.testing.assert_array_equal(read(path, TimeColumns(["time"], form, zone=BERLIN)).times, times)


def test_equal_local_times_are_distinguished_in_each_stream(tmp_path: Path) -> None:
    one = times_from("2024-10-26T20:00:00Z", 60, 600)
    times = np.stack([one, one + 7], axis=1).ravel()
    path = tmp_path / "two.csv"
    rows = zip(local_texts(times), "ab" * 60, strict=True)
    path.write_text("time,stream,x\n" + "".join(f"{text},{stream},1\n" for text, stream in rows))
    np.testing.assert_array_equal(read(path, TimeColumns(["time"], zone=BERLIN), "stream").times, times)


def test_equal_local_times_are_distinguished_across_files_and_gaps(tmp_path: Path) -> None:
    times = times_from("2024-10-26T20:00:00Z", 60, 600)
    paths = [tmp_path / "1.csv", tmp_path / "2.csv"]
    for path, part in zip(paths, (times[:27], times[27:]), strict=True):
        path.write_text("time,x\n" + "".join(f"{text},1\n" for text in local_texts(part)))
    zoned = TimeColumns(["time"], zone=BERLIN)
    np.testing.assert_array_equal(read(paths, zoned).times, times)
    for chosen in (np.r_[:20, 34:60], np.r_[:26, 27, 26, 28:60], np.r_[:26, 30:60]):
        path = written(tmp_path, local_texts(times[chosen]))
        np.testing.assert_array_equal(read(path, zoned).times, times[chosen])


def test_an_hour_that_the_zone_does_not_have_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, ["2024-03-31 01:50:00", "2024-03-31 02:10:00", "2024-03-31 03:00:00"])
    with pytest.raises(EdgeLstmError) as caught:
        read(path, TimeColumns(["time"], zone=BERLIN))
    assert 'row 3, column "time": 2024-03-31 02:10:00 does not exist in Europe/Berlin' in caught.value.message
    assert caught.value.hint == "set timezone to the zone of its clock"
    days = written(tmp_path, ["45382.09"])
    with pytest.raises(EdgeLstmError, match="does not exist in Europe/Berlin"):
        read(days, TimeColumns(["time"], unit="days", zone=BERLIN))
    path = written(tmp_path, ["2024-03-31T01:10:00Z", "2024-03-31T03:10:00+02:00"])
    assert np.diff(read(path, TimeColumns(["time"], zone=BERLIN)).times).tolist() == [0]


@pytest.mark.parametrize(
    ("zone", "begin", "days", "step_s", "name", "names"),
    [
        ("Europe/Berlin", "2024-01-01", 360, 600, "Europe/Berlin", ["Europe/Berlin", "Europe/Chisinau"]),
        ("Europe/Berlin", "2024-09-01", 90, 3600, "Europe/Berlin", ["Europe/Berlin"]),
        ("Europe/London", "2024-02-01", 120, 300, "Europe/London", ["Europe/London"]),
        ("Australia/Sydney", "2024-01-01", 360, 900, None, ["Australia/Sydney", "Australia/Adelaide"]),
        ("America/Chicago", "2024-01-01", 360, 900, None, ["America/New_York", "America/Chicago", "America/Denver"]),
    ],
)
def test_zones_are_found_by_the_hours_that_repeat_or_miss(
    zone: str, begin: str, days: int, step_s: float, name: str | None, names: list[str]
) -> None:
    times = times_from(begin, int(days * 86_400 / step_s), step_s)
    seconds = times + offsets(ZoneInfo(zone), times)
    fitting = fitting_zones(seconds, np.zeros(len(seconds), np.int64))
    assert fitting is not None
    assert fitting.name == name
    assert set(names) <= set(fitting.names)


def test_a_row_in_the_missing_hour_contradicts_a_zone() -> None:
    times = times_from("2024-03-01", 250 * 144, 600)
    local = times + offsets(BERLIN, times)
    fitting = fitting_zones(local, np.zeros(len(local), np.int64))
    assert fitting is not None
    assert fitting.name == "Europe/Berlin"
    skipped = np.searchsorted(local, parse_time("2024-03-31T03:00:00Z"))
    local = np.insert(local, skipped, parse_time("2024-03-31T02:30:00Z"))
    assert fitting_zones(local, np.zeros(len(local), np.int64)) is None


def test_no_zone_is_found_where_no_clock_was_set(tmp_path: Path) -> None:
    times = times_from("2024-01-01", 360 * 144, 600)
    streams = np.zeros(len(times), np.int64)
    assert fitting_zones(times, streams) is None
    gap = np.delete(times, np.s_[5000:5006])  # an hour that is missing at another time
    assert fitting_zones(gap, streams[6:]) is None
    again = np.insert(times, 5000, times[4994:5000])  # an hour that was written twice
    assert fitting_zones(again, np.zeros(len(again), np.int64)) is None


def test_a_recording_is_read_in_the_zone_that_it_shows(tmp_path: Path) -> None:
    times = times_from("2024-10-01T00:00:00Z", 60 * 144, 600)
    path = written(tmp_path, local_texts(times, form="%d.%m.%Y %H:%M"))
    columns = Columns({"x": "x"}, TimeColumns(["time"], "%d.%m.%Y %H:%M"), stream="one")
    zoned = in_local_zone(path, columns)
    np.testing.assert_array_equal(zoned.recording.times, times)
    assert str(zoned.times.zone) == "Europe/Berlin"
    (note,) = zoned.notes
    assert note.startswith("the times are read in the zone Europe/Berlin, since 2024-10-27 02:00 to 03:00 occurs twice")
    texts = written(tmp_path, [f"{text}Z" for text in local_texts(times, form="%Y-%m-%dT%H:%M:%S")])
    assert in_local_zone(texts, Columns({"x": "x"}, "time", stream="one")).notes == ()  # they name their zone


def test_a_choice_of_zones_is_left_to_the_user(tmp_path: Path) -> None:
    times = times_from("2024-10-01T00:00:00Z", 60 * 144, 600)
    path = written(tmp_path, local_texts(times, ZoneInfo("America/Denver")))
    zoned = in_local_zone(path, Columns({"x": "x"}, TimeColumns(["time"]), stream="one"))
    assert zoned.times.zone is timezone.utc
    (note,) = zoned.notes
    assert "set timezone to the right one of America/New_York, America/Chicago, America/Denver" in note


def test_a_last_time_after_now_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, ["2024-03-01", "2324-03-02"])
    (note,) = in_local_zone(path, Columns({"x": "x"}, "time", stream="one")).notes
    assert note == "the last time, 2324-03-02T00:00:00Z, lies after now: check the format and the zone of the times"
