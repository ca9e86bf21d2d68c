"""Files of InfluxDB's line protocol, and files that are no text tables."""

from pathlib import Path

import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.columns import TimeColumns
from edge_lstm.recordings.recording import Columns, Recording, read_recording
from edge_lstm.recordings.tables.table import Layout, open_table

_LONG = Layout(name_column="_field", value_column="_value")
_ROOMS = """# exported
room,host=a temp=21.5,co2=400i 1709251200000000000
room,host=b temp=19.5,co2=500i,note="open, dry" 1709251200000000000

room,host=a temp=21.6,open=true 1709251260000000000
"""


def _written(folder: Path, text: str | bytes, name: str = "export.lp") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def _read(path: Path, *features: str) -> Recording:
    columns = Columns({name: name for name in features}, TimeColumns(["_time"]), "host", layout=_LONG)
    return read_recording(path, columns)


def test_line_protocol_is_one_row_a_value_with_its_tags(tmp_path: Path) -> None:
    table = open_table(_written(tmp_path, _ROOMS))
    assert table.header == ["_time", "_measurement", "host", "_field", "_value"]
    (block,) = table.blocks([2, 3, 4])
    assert list(block.rows) == [2, 2, 3, 3, 3, 5, 5]
    assert block.cells[2] == ("a", "a", "b", "b", "b", "a", "a")
    assert block.cells[3] == ("temp", "co2", "temp", "co2", "note", "temp", "open")
    assert block.cells[4] == ("21.5", "400", "19.5", "500", "open, dry", "21.6", "true")


def test_the_fields_of_a_time_and_host_are_one_reading(tmp_path: Path) -> None:
    recording = _read(_written(tmp_path, _ROOMS), "temp", "open")
    assert recording.streams == ["a", "b"]
    assert recording.times.tolist() == [1709251200.0, 1709251200.0, 1709251260.0]
    assert recording.values[:, 0].tolist() == [21.5, 19.5, 21.6]
    assert recording.values[2, 1] == 1.0


def test_a_field_of_two_measurements_is_named_with_them(tmp_path: Path) -> None:
    text = "cpu value=1 1709251200\nmem value=2,free=3 1709251200\ncpu value=1 1709251210\n"
    (block,) = open_table(_written(tmp_path, text)).blocks([2])
    assert block.cells[2] == ("cpu.value", "mem.value", "free", "cpu.value")


def test_a_cut_last_line_and_lines_without_a_time_are_counted(tmp_path: Path) -> None:
    text = (
        _ROOMS + 'room,host=a temp=3\nroom,host=a temp=4,note="a\nb" 1709251320000000000\nroom,host=a temp=5 17092513'
    )
    table = open_table(_written(tmp_path, text))
    (block,) = table.blocks([0, 4])
    assert list(block.cells[4])[-2:] == ["4.0", "a\nb"]
    assert dict(table.left_out) == {"without a time": 1, "incomplete": 1}
    assert "line 6 has no time" in table.notes[0]


def test_a_wrong_line_in_the_middle_is_refused_by_its_number(tmp_path: Path) -> None:
    with pytest.raises(EdgeLstmError, match=r"line 6: expected line protocol"):
        open_table(_written(tmp_path, f"{_ROOMS}room temp=1,2 5\n" + "room temp=1 1709251200\n" * 9000))


def test_a_sentence_above_a_table_is_no_line_protocol(tmp_path: Path) -> None:
    table = open_table(_written(tmp_path, "Logger no=12 20240301\ntime,level\n2024-03-01,1\n2024-03-02,2\n"))
    assert table.header == ["time", "level"]


@pytest.mark.parametrize(
    ("begin", "kind"),
    [
        (b"PK\x03\x04\x14\x00", "an Excel workbook"),
        (b"\xef\xbb\xbf<!DOCTYPE html>", "HTML"),
        (b'\n{"time": 1}', "JSON"),
        (b"\x1f\x8b\x08\x00", "packed by gzip"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, begin: bytes, kind: str) -> None:
    with pytest.raises(EdgeLstmError, match=f"found .*{kind}"):
        open_table(_written(tmp_path, begin + b"\nmore\n", "export.csv"))
