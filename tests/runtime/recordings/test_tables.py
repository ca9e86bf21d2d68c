"""Tables: separators, headers and files, and the error messages for faults in them."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from datetime import datetime, time, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.columns import NumberWords, TimeColumns, ValueColumn
from edge_lstm.recordings.label_windows import Countdown, LabelWindow, LabelWindows
from edge_lstm.recordings.recording import Columns, Recording, read_recording, value_columns
from edge_lstm.recordings.tables.table import Layout, recording_files

SINCE_START = TimeColumns(["time"], unit="s")  # times that count from any start


def written(folder: Path, text: str, name: str = "pump.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def column(recording: Recording, name: str = "x") -> list[float]:
    values: list[float] = recording.values[:, recording.features.index(name)].tolist()
    return values


@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
def test_the_separator_is_found_in_the_first_row(tmp_path: Path, separator: str) -> None:
    path = written(tmp_path, 'time,"a;b|c\td",x\n2024-01-01,1,2.5\n'.replace(",", separator))
    assert column(read_recording(path, Columns({"x": "x"}))) == [2.5]


@pytest.mark.parametrize("separator", [" ", None])
def test_spaces_separate_and_a_missing_header_gets_the_given_names(tmp_path: Path, separator: str | None) -> None:
    path = written(tmp_path, "1 1   -0.5 \n1 2  0.25\n\n2 1 7\n")
    layout = Layout(separator, ["engine", "cycle", "x"])
    columns = Columns({"x": "x"}, TimeColumns(interval_s=10, start=100), "engine", layout=layout)
    recording = read_recording(path, columns)
    assert (recording.streams, recording.times.tolist()) == (["1", "2"], [100, 110, 100])
    assert column(recording) == [-0.5, 0.25, 7]
    with pytest.raises(EdgeLstmError, match="hint: its first row holds readings: name its columns by header ="):
        read_recording(path, Columns({"x": "x"}, TimeColumns(interval_s=10)))


def test_spaces_within_names_and_texts_do_not_separate(tmp_path: Path) -> None:
    path = written(tmp_path, "outer water\n1.5\n2.5\n")
    assert column(read_recording(path, Columns({"x": "outer water"}, TimeColumns(interval_s=10)))) == [1.5, 2.5]


def test_a_decimal_comma_is_read_and_a_mixed_point_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "time;x;y\n2024-01-01;1,5;-0,25\n2024-01-02;NA;2\n")
    columns = Columns({"x": "x", "y": "y"}, words=NumberWords(decimal_comma=True))
    np.testing.assert_array_equal(read_recording(path, columns).values, [[1.5, -0.25], [np.nan, 2]])
    path.write_text("time;x;y\n2024-01-01;1.500;1\n")
    with pytest.raises(EdgeLstmError, match=r"row 2, column .x.: '1\.500' is not a number"):
        read_recording(path, columns)


def test_an_unnamed_index_column_shifts_no_column(tmp_path: Path) -> None:
    path = written(tmp_path, '"date","x"\n"140","2024-01-01",5\n"141","2024-01-02",6\n')
    assert column(read_recording(path, Columns({"x": "x"}))) == [5, 6]


def test_rows_of_separators_only_are_skipped(tmp_path: Path) -> None:
    path = written(tmp_path, "time,x,,\n2024-01-01,1,,\n,,,\n , ,,\n2024-01-02,2,,\n")
    assert column(read_recording(path, Columns({"x": "x"}))) == [1, 2]
    path.write_text("time,x,,\n2024-01-01,1,,\n,,,\n2024-01-02,two,,\n")
    with pytest.raises(EdgeLstmError, match="row 4, column \"x\": 'two' is not a number"):
        read_recording(path, Columns({"x": "x"}))


@pytest.mark.parametrize(
    ("times", "cells"),
    [
        (TimeColumns(), {"time": "2024-03-31T01:30:00Z"}),
        (TimeColumns(), {"time": "1711848600"}),
        (TimeColumns(), {"time": "1711848600000"}),
        (TimeColumns(["when"], unit="ms"), {"when": "1711848600000"}),
        (TimeColumns(["time"], zone=ZoneInfo("Europe/Berlin")), {"time": "2024-03-31 03:30:00"}),
        (TimeColumns(["day", "hour"]), {"day": "2024-03-31", "hour": "01:30"}),
        (TimeColumns(["day", "hour"], "%d.%m.%Y %H.%M"), {"day": "31.03.2024", "hour": "01.30"}),
        (TimeColumns(["y", "m", "d", "h"], "%Y %m %d %H%M"), {"y": "2024", "m": "3", "d": "31", "h": "0130"}),
    ],
)
def test_times_of_devices_and_spreadsheets_are_read(
    tmp_path: Path, times: TimeColumns, cells: Mapping[str, str]
) -> None:
    path = written(tmp_path, f"{';'.join(cells)};x\n{';'.join(cells.values())};1\n")
    assert read_recording(path, Columns({"x": "x"}, times)).times.tolist() == [1711848600]


def test_rows_without_times_are_one_interval_apart(tmp_path: Path) -> None:
    for name in ("1", "2"):
        written(tmp_path, "mote,x\na,1\nb,2\na,3\n", f"{name}.csv")
    recording = read_recording(tmp_path / "*.csv", Columns({"x": "x"}, TimeColumns(interval_s=5, start=1000), "mote"))
    assert recording.times.tolist() == [1000, 1000, 1005, 1010, 1005, 1015]


def test_sentinels_and_implausible_values_are_missing_and_counted(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "time,x,sky\n1,-200,sun\n2,-273.20001,fog\n3,5,hail\n4,99,\n5,-40,rain\n6,on,rain\n7,,unknown\n",
    )
    columns = Columns(
        {
            "x": ValueColumn("x", sentinels=[-200, -273.2], least=-30, most=60),
            "sky": ValueColumn("sky", categories=["rain", "sun", "fog"]),
        },
        SINCE_START,
    )
    recording = read_recording(path, columns)
    nan = np.nan
    np.testing.assert_array_equal(column(recording), [nan, nan, 5, nan, nan, 1, nan])
    np.testing.assert_array_equal(column(recording, "sky"), [1, 2, nan, nan, 0, 0, nan])
    assert recording.left_out == {"sentinels": 2, "implausible": 2, "unknown": 1}
    assert recording.categories == {"sky": ["rain", "sun", "fog"]}


def test_labels_come_from_a_column_windows_or_remaining_rows(tmp_path: Path) -> None:
    path = written(tmp_path, "time,m,x,what\n1,a,1,walk\n2,a,2,sit\n2,b,3,\n3,a,4,walk\n", "run.csv")
    labels = {
        "what": ValueColumn("what", text=True),
        "broken": LabelWindows([LabelWindow(2, 3, "a"), LabelWindow(0, 0.5)]),
        "left": Countdown(),
    }
    recording = read_recording(path, Columns({"x": "x"}, SINCE_START, "m", labels=labels))
    assert recording.features == ["x"]
    assert recording.categories == {"what": ["sit", "walk"]}
    np.testing.assert_array_equal(recording.labels["what"], [1, 0, np.nan, 1])
    assert recording.labels["broken"].tolist() == [0, 1, 0, 1]
    assert recording.labels["left"].tolist() == [2, 1, 0, 0]
    assert recording.rows(recording.stream_of == 1).labels["left"].tolist() == [0]
    with pytest.raises(EdgeLstmError, match='expected windows for streams of the recording, found one for "c"'):
        read_recording(
            path, Columns({"x": "x"}, SINCE_START, "m", labels={"broken": LabelWindows([LabelWindow(0, 1, "c")])})
        )


def test_files_of_a_pattern_become_streams_in_natural_order(tmp_path: Path) -> None:
    for name in ("valve1/2.csv", "valve1/10.csv", "valve2/2.csv.gz"):
        written(tmp_path, "time,x\n1,1\n", name)
    (tmp_path / "valve2/2.csv.gz").write_bytes(gzip.compress(b"time,x\n1,1\n"))
    columns = Columns({"x": "x"}, SINCE_START)
    assert read_recording(tmp_path / "*/*.csv*", columns).streams == ["valve1-2", "valve1-10", "valve2-2"]
    assert read_recording(tmp_path / "valve1/*.csv", columns).streams == ["2", "10"]
    assert read_recording(tmp_path / "valve1/*.csv", Columns({"x": "x"}, SINCE_START, stream="v")).streams == ["v"]
    both = [tmp_path / "valve1/*.csv", tmp_path / "valve1/2.csv"]
    with pytest.raises(EdgeLstmError, match=r"expected each file once, found .*valve1/2\.csv twice"):
        recording_files(both)
    with pytest.raises(EdgeLstmError, match=r"expected recordings at .*none\*, found no file"):
        recording_files(tmp_path / "none*")


def test_a_stream_in_two_groups_is_refused_with_its_row(tmp_path: Path) -> None:
    path = written(tmp_path, "time,who,run,x\n1,ann,1,1\n1,bob,2,1\n2,bob,1,1\n")
    columns = Columns({"x": "x"}, SINCE_START, "run", group_column="who")
    expected = 'row 4, column "who": expected the stream "1" in one group, found it in "ann" and "bob"'
    with pytest.raises(EdgeLstmError, match=expected):
        read_recording(path, columns)
    path.write_text("time,who,run,x\n1,ann,1,1\n1,bob,2,1\n2,bob,3,1\n")
    assert read_recording(path, columns).groups == ["ann", "bob", "bob"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("time,x,x\n1,2,3\n", 'expected one column "x", found 2'),
        ("time,y\n1,2\n", 'expected a column "x", found time, y'),
        ("time,x\n1,1_000\n", "row 2, column \"x\": '1_000' is not a number"),
        ("time,x\n1,inf\n", "row 2, column \"x\": 'inf' is too large for float32"),
        ("time,x\n1,1\n,2\n", "row 3, column \"time\": '' is not a time"),
        ('time,x\n1,1\n2,"2\n3,3\n4,4\n', "row 3, column \"x\": '2\\n3,3\\n4,4\\n' is not a number"),
    ],
)
def test_an_invalid_cell_is_named_by_row_and_column(tmp_path: Path, text: str, found: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(EdgeLstmError) as caught:
        read_recording(path, Columns({"x": "x"}, "time"))
    assert found in caught.value.message
    assert str(path) in caught.value.message


def test_a_row_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pump.csv"
    path.write_bytes(b"time,x\n" + b"1,2\n" * 9000 + "2,5 °C\n".encode("latin-1"))
    with pytest.raises(EdgeLstmError, match="in UTF-8, found the byte 0xb0 in row 9002"):
        read_recording(path, Columns({"x": "x"}))


def test_a_damaged_gzip_file_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "pump.csv.gz"
    path.write_bytes(gzip.compress(b"time,x\n" + b"1,2\n" * 5000)[:-20])
    with pytest.raises(EdgeLstmError, match=r"expected a CSV file at .*pump\.csv\.gz, found: "):
        read_recording(path, Columns({"x": "x"}))


def test_parquet_and_csv_give_the_same_recording(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install 'edge-lstm[parquet]')")
    from pyarrow import parquet

    begin = datetime(2024, 1, 1, tzinfo=timezone.utc)
    moments = [begin + timedelta(minutes=minute) for minute in range(4)]
    columns = {
        "when": pyarrow.array(moments, pyarrow.timestamp("ns", "Europe/Berlin")),
        "x": pyarrow.array([1.5, None, 3, 4], pyarrow.float32()),
        "count": pyarrow.array([1, 2, None, -200], pyarrow.int16()),
        "pump": pyarrow.array(["a", "b", "a", "b"]).dictionary_encode(),
        "local": pyarrow.array([moment.replace(tzinfo=None) for moment in moments]),
        "number": pyarrow.array([7, 7, 8, 8]),
    }
    path = tmp_path / "pump.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    text = "when,x,count,pump\n"
    for moment, x, count, pump in zip(moments, ("1.5", "", "3", "4"), ("1", "2", "", "-200"), "abab", strict=True):
        text += f"{moment.isoformat()},{x},{count},{pump}\n"
    where = Columns({"x": "x", "count": ValueColumn("count", sentinels=[-200])}, stream_column="pump")
    one, other = read_recording(path, where), read_recording(written(tmp_path, text), where)
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.times, other.times)
    assert one.streams == other.streams == ["a", "b"]
    local = Columns({"x": "x"}, TimeColumns(["local"], zone=ZoneInfo("Europe/Berlin")), "number")
    read = read_recording(path, local)
    assert read.streams == ["7", "8"]
    np.testing.assert_array_equal(read.times, one.times - 3600)
    found = value_columns(path, Columns({}, "when", "pump"))
    assert [name for name, column in found.items() if not column.text] == ["x", "count", "number"]
    with pytest.raises(EdgeLstmError, match='expected a column "y", found when, x, count, pump, local, number'):
        read_recording(path, Columns({"y": "y"}))
    path.write_bytes(b"PAR1")
    with pytest.raises(EdgeLstmError, match=r"expected a Parquet file at .*pump\.parquet, found: "):
        read_recording(path, Columns({"x": "x"}))


def test_parquet_times_and_large_integers_are_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install 'edge-lstm[parquet]')")
    from pyarrow import parquet

    begin = datetime(2024, 1, 1, tzinfo=timezone.utc)
    columns = {
        "day": pyarrow.array([begin.date()] * 2),
        "hour": pyarrow.array([22, 23]),
        "clock": pyarrow.array([time(22), time(23)]),
        "exact": pyarrow.array([1_704_146_400_000_000_789, 1_704_150_000_000_000_123], pyarrow.timestamp("ns")),
        "count": pyarrow.array([2**60, 2**60 + 1]),
    }
    path = tmp_path / "meter.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    for written_as in (
        TimeColumns(["day", "hour"], "%Y-%m-%d %H"),
        TimeColumns(["day", "clock"]),
        TimeColumns(["exact"]),
    ):
        read = read_recording(path, Columns({"count": "count"}, written_as))
        np.testing.assert_array_equal(read.times - begin.timestamp(), [79_200, 82_800])
    assert read.values[:, 0].tolist() == [2.0**60, 2.0**60]
