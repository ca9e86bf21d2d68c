"""Files of one row a value, and names that say the stream: they become rows of features, and nothing alternates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.columns import ValueColumn
from edge_lstm.recordings.long_search import Joining, LongColumns, found_joining, found_long
from edge_lstm.recordings.recording import Columns, Recording, read_recording, row_place, value_columns
from edge_lstm.recordings.tables.name_pattern import STREAM, NamePattern, likely_pattern
from edge_lstm.recordings.tables.table import Layout, open_table

BEGIN = 1_709_251_200  # 2024-03-01
LONG = Layout(name_column="tag", value_column="value")
NAN = float("nan")


def written(folder: Path, text: str, name: str = "plant.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def rows(recording: Recording) -> list[tuple[str, float, list[float]]]:
    named = [recording.streams[index] for index in recording.stream_of]
    moments = (recording.times - BEGIN).tolist()
    return list(zip(named, moments, np.nan_to_num(recording.values, nan=-1).tolist(), strict=True))


def read(path: Path, layout: Layout = LONG, within_s: float = 0.0, **columns: object) -> Recording:
    values = {"temp": "temp", "hum": "hum"}
    return read_recording(path, Columns(values, "time", layout=layout, join_within_s=within_s, **columns))  # type: ignore[arg-type]


def test_values_of_one_time_are_one_row_in_any_order_of_the_file(tmp_path: Path) -> None:
    by_time = "time,tag,value\n" + "".join(
        f"{BEGIN + 60 * step},{tag},{value}\n"
        for step in range(3)
        for tag, value in (("temp", 20 + step), ("other", "x"), ("hum", 50 + step))
    )
    expected = [("plant", 60.0 * step, [20.0 + step, 50.0 + step]) for step in range(3)]
    recording = read(written(tmp_path, by_time))
    assert rows(recording) == expected
    assert row_place(recording, 1) == (str(tmp_path / "plant.csv"), 5)
    lines = by_time.splitlines()
    by_tag = "\n".join([lines[0], *sorted(lines[1:], key=lambda line: line.split(",")[1])])
    assert rows(read(written(tmp_path, by_tag))) == expected


def test_values_that_come_soon_after_each_other_are_one_row(tmp_path: Path) -> None:
    moments = [(0, "temp", 1), (2, "hum", 2), (60, "temp", 3), (63, "hum", 4), (121, "hum", 5), (122, "hum", 6)]
    path = written(
        tmp_path, "time,tag,value\n" + "".join(f"{BEGIN + at},{tag},{value}\n" for at, tag, value in moments)
    )
    assert [row[1:] for row in rows(read(path, within_s=2))] == [
        (2, [1, 2]),
        (60, [3, -1]),
        (63, [-1, 4]),
        (121, [-1, 5]),
        (122, [-1, 6]),
    ]
    assert len(read(path)) == 6


def test_a_value_that_comes_twice_with_one_time_counts_once_and_is_counted(tmp_path: Path) -> None:
    text = f"time,tag,value\n{BEGIN},temp,1\n{BEGIN},hum,2\n{BEGIN},temp,3\n{BEGIN + 1},temp,unavailable\n"
    recording = read(written(tmp_path, text))
    assert [row[1:] for row in rows(recording)] == [(0, [3, 2]), (1, [-1, -1])]
    assert recording.left_out == {"repeated values": 1}


def test_devices_in_a_column_keep_their_values_apart(tmp_path: Path) -> None:
    text = "time,device,tag,value,quality\n" + "".join(
        f"{BEGIN},{device},{tag},{number},Good\n" for device in "ab" for tag, number in (("temp", 1), ("hum", 2))
    )
    recording = read(written(tmp_path, text), stream_column="device")
    assert rows(recording) == [("a", 0, [1, 2]), ("b", 0, [1, 2])]
    assert value_columns(tmp_path / "plant.csv", Columns({}, "time", "device", layout=LONG)) == {
        "temp": ValueColumn("temp"),
        "hum": ValueColumn("hum"),
    }


def test_the_wrong_clock_of_one_value_leaves_the_others(tmp_path: Path) -> None:
    lines = [f"{BEGIN + 60 * step},{tag},{step}" for tag in ("temp", "hum") for step in range(100)]
    lines[40] = "2085978496,temp,40"
    recording = read(written(tmp_path, "time,tag,value\n" + "\n".join(lines) + "\n"))
    assert len(recording) == 100
    assert recording.left_out == {"wrong clock": 1}
    assert rows(recording)[40] == ("plant", 2400.0, [-1, 40])


def test_texts_and_words_of_names_are_read_as_their_feature_says(tmp_path: Path) -> None:
    text = f"time,tag,value\n{BEGIN},sky,rain\n{BEGIN},pump,on\n{BEGIN + 1},sky,sun\n{BEGIN + 1},pump,off\n"
    values = {"sky": ValueColumn("sky", categories=["sun", "rain"]), "pump": ValueColumn("pump")}
    recording = read_recording(written(tmp_path, text), Columns(values, "time", layout=LONG))
    assert recording.values.tolist() == [[1, 1], [0, 0]]
    with pytest.raises(EdgeLstmError, match="row 3, column \"pump\": 'slow' is not a number"):
        read_recording(written(tmp_path, text.replace("on", "slow")), Columns(values, "time", layout=LONG))
    with pytest.raises(EdgeLstmError, match='expected values of "temp", found sky, pump'):
        read(written(tmp_path, text.replace("on", "1")))


def test_a_name_that_one_file_lacks_is_missing_there(tmp_path: Path) -> None:
    written(tmp_path, f"time,tag,value\n{BEGIN},temp,1\n{BEGIN},hum,2\n", "1.csv")
    written(tmp_path, f"time,tag,value\n{BEGIN + 60},temp,3\n", "2.csv")
    recording = read(tmp_path / "*.csv", stream="plant")
    assert rows(recording) == [("plant", 0, [1, 2]), ("plant", 60, [3, -1])]


@pytest.mark.parametrize(
    ("pattern", "name", "parts"),
    [
        ("{stream}.{feature}.PV", "P01.PT101.PV", ("P01", "PT101")),
        ("{stream}.{feature}.PV", "SITE.P01.PT101.PV", ("SITE.P01", "PT101")),
        ("{stream}.{feature}.PV", "P01.PT101.SP", None),
        ("sensor.{stream}_{feature}", "sensor.living_room_temperature", ("living_room", "temperature")),
        ("{feature}@{stream}", "temp@a@b", ("a@b", "temp")),
        ("*/{feature}", "plant/1/temp", ("", "temp")),
        ("{feature} [*]", "flow [m3/h]", ("", "flow")),
    ],
)
def test_a_pattern_takes_a_name_apart(pattern: str, name: str, parts: tuple[str, str] | None) -> None:
    assert NamePattern(pattern).parts(name) == parts


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["P1.PT.PV", "P1.FT.PV", "P2.PT.PV", "P2.FT.PV"], "{stream}.{feature}.PV"),
        (["a/temp", "a/hum", "b/temp", "b/hum"], "{stream}/{feature}"),
        (["a.temp", "a.hum", "b.temp", "b.rain"], None),
        (["temp", "hum", "rain", "wind"], None),
        (["1.5", "2.5"], None),
    ],
)
def test_a_pattern_is_likely_if_all_streams_have_all_features(names: list[str], pattern: str | None) -> None:
    assert likely_pattern(names) == pattern


def test_names_of_a_control_system_become_streams_and_features(tmp_path: Path) -> None:
    layout = Layout(name_pattern="{stream}.{feature}.PV")
    path = written(tmp_path, f"time,P01.temp.PV,P01.hum.PV,P02.temp.PV,note\n{BEGIN},1,2,3,x\n{BEGIN + 9},4,5,6,x\n")
    recording = read(path, layout, stream_column=STREAM)
    assert rows(recording) == [("P01", 0, [1, 2]), ("P01", 9, [4, 5]), ("P02", 0, [3, -1]), ("P02", 9, [6, -1])]
    long = Layout(None, (), None, None, None, None, "tag", "value", "{stream}.{feature}.PV")
    text = "time,tag,value\n" + "".join(
        f"{BEGIN},{tag},{number}\n"
        for tag, number in (("P01.temp.PV", 1), ("P02.temp.PV", 3), ("P01.hum.PV", 2), ("x", 9))
    )
    recording = read(written(tmp_path, text), long, stream_column=STREAM)
    assert rows(recording) == [("P01", 0, [1, 2]), ("P02", 0, [3, -1])]
    assert recording.left_out == {"values of other names": 1}
    with pytest.raises(EdgeLstmError, match=r"expected columns like \{stream\}_\{feature\}, found time"):
        open_table(written(tmp_path, f"time,x\n{BEGIN},1\n"), Layout(name_pattern="{stream}_{feature}"))
    with pytest.raises(EdgeLstmError, match=r'feature "b" of the stream "a", found "a\.b\.PV" and "a\.b\.SP"'):
        open_table(written(tmp_path, f"time,a.b.PV,a.b.SP\n{BEGIN},1,2\n"), Layout(name_pattern="{stream}.{feature}.*"))


INFLUX = """#group,false,false,true,true,false,false,true,true
#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,double,string,string
#default,_result,,,,,,,attic
,result,table,_start,_stop,_time,_value,_field,room
,,0,2024-03-01T00:00:00Z,2024-04-01T00:00:00Z,2024-03-01T00:00:00Z,1,temp,attic
,,0,2024-03-01T00:00:00Z,2024-04-01T00:00:00Z,2024-03-01T00:01:00Z,2,temp,

#group,false,false,true,true,false,true,false
#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,string,long
#default,_result,,,,,,
,result,table,_start,_stop,_time,_field,_value
,,1,2024-03-01T00:00:00Z,2024-04-01T00:00:00Z,2024-03-01T00:00:00Z,hum,3
,,1,2024-03-01T00:00:00Z,2024-04-01T00:00:00Z,2024-03-01T00:01:00Z,hum,4
"""


def test_the_sections_of_annotated_csv_are_one_table(tmp_path: Path) -> None:
    path = written(tmp_path, INFLUX)
    table = open_table(path, Layout())
    assert table.header == ["_time", "_value", "_field", "room"]
    layout = Layout(name_column="_field", value_column="_value")
    values = {"temp": "temp", "hum": "hum"}
    recording = read_recording(path, Columns(values, "_time", layout=layout))
    assert rows(recording) == [("plant", 0, [1, 3]), ("plant", 60, [2, 4])]
    assert row_place(recording, 0) == (str(path), 5)
    written(tmp_path, "\n".join(INFLUX.splitlines()[:3]))
    with pytest.raises(EdgeLstmError, match="expected rows of readings, found none"):
        open_table(path, Layout())


@pytest.mark.parametrize(
    ("header", "names", "found"),
    [
        (
            "time,sensor_id,value",
            ["temperature", "humidity"],
            LongColumns("sensor_id", "value", ["temperature", "humidity"]),
        ),
        (
            "last_changed,entity_id,state",
            ["sensor.t", "sensor.h"],
            LongColumns("entity_id", "state", ["sensor.t", "sensor.h"]),
        ),
        ("Timestamp,TagName,Value", ["PT.PV", "FT.PV"], LongColumns("TagName", "Value", ["PT.PV", "FT.PV"])),
        ("time,sensor_id,value", ["17", "18"], None),  # streams
        ("time,sensor_id,value", ["pump-1", "pump-2"], None),  # streams
        ("time,pump,value", ["a", "b"], None),
        ("time,sensor_id,level", ["a", "b"], None),
        ("time,tag,value", [f"unique-{chr(97 + at)}" for at in range(8)], None),
    ],
)
def test_files_of_one_row_a_value_are_recognized(
    tmp_path: Path, header: str, names: list[str], found: LongColumns | None
) -> None:
    repeats = 1 if len(names) > 2 else 10
    lines = [f"{BEGIN + at},{name},{at % 7}.5" for at in range(repeats) for name in names]
    assert found_long(open_table(written(tmp_path, header + "\n" + "\n".join(lines) + "\n"), Layout())) == found


@pytest.mark.parametrize(
    ("moments", "joining"),
    [
        ([(60 * step, name) for step in range(50) for name in ("temp", "hum")], Joining()),
        ([(600 * step + late, name) for step in range(50) for late, name in ((0, "temp"), (2, "hum"))], Joining(2)),
        ([(600 * step + late, name) for step in range(50) for late, name in ((0, "temp"), (7, "hum"))], Joining(10)),
        (
            [*((60 * step, "temp") for step in range(99)), *((71 * step, "hum") for step in range(70))],
            Joining(grid_s=60),
        ),
        ([(60 * step, "temp") for step in range(50)] + [(7, "hum"), (2007, "hum")], Joining(grid_s=900)),
    ],
)
def test_how_values_belong_together_is_found_from_their_times(
    tmp_path: Path, moments: list[tuple[int, str]], joining: Joining
) -> None:
    lines = [f"{BEGIN + at},{name},1" for at, name in sorted(moments)]
    assert found_joining(read(written(tmp_path, "time,tag,value\n" + "\n".join(lines) + "\n"))) == joining
