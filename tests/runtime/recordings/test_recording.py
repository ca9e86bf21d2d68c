"""Recordings: what is read, and that every fault names file, row and column."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.recording import Columns, read_recording, recording_csv, value_columns

TEXT = """when,pump,level,flow,note
2024-01-01T00:00:00Z,a,1.5,3,ok
2024-01-01T00:00:00Z,b,2.5,,ok

2024-01-01T00:01:00Z,a,nan,4,bad
"""
COLUMNS = Columns({"level": "level", "rate": "flow"}, stream_column="pump")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "pumps.csv"
    path.write_text(TEXT)
    return path


def test_rows_become_readings_without_the_missing_values(path: Path) -> None:
    recording = read_recording(path, COLUMNS)
    assert recording.streams == ["a", "b"]
    assert [(one.stream, one.time - 1704067200, dict(one.values)) for one in recording.readings()] == [
        ("a", 0.0, {"level": 1.5, "rate": 3.0}),
        ("b", 0.0, {"level": 2.5}),
        ("a", 60.0, {"rate": 4.0}),
    ]


def test_a_recording_survives_csv(path: Path, tmp_path: Path) -> None:
    recording = read_recording(path, COLUMNS)
    again = tmp_path / "again.csv"
    again.write_text(recording_csv(recording))
    read = read_recording(again, Columns({"level": "level", "rate": "rate"}, stream_column="stream"))
    assert read.streams == recording.streams
    np.testing.assert_array_equal(read.times, recording.times)
    np.testing.assert_array_equal(read.values, recording.values)


def test_the_time_column_is_detected_and_gzip_is_read(path: Path, tmp_path: Path) -> None:
    packed = tmp_path / "pumps.csv.gz"
    packed.write_bytes(gzip.compress(TEXT.encode()))
    assert read_recording(packed, Columns({"level": "level"})).streams == ["pumps"]
    found = value_columns(path, Columns({}))
    assert [name for name, column in found.items() if not column.text] == ["level", "flow"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "expected a header row and rows of readings, found nothing"),
        ("when,pump,level,flow\n", "found only a header"),
        ("when,pump,level\n2024-01-01,a,1\n", 'expected a column "flow", found when, pump, level'),
        ("when,pump,level,flow\n2024-01-01,a,1\n", "row 2: expected 4 columns, found 3"),
        ("when,pump,level,flow\n2024-01-01,a,1,2\nnoon,a,1,2\n", "row 3, column \"when\": 'noon' is not a time"),
        ("when,pump,level,flow\n2024-01-01,a,high,2\n", "row 2, column \"level\": 'high' is not a number"),
        ("x,pump,level,flow\n7,a,1,2\n", "expected a column of times, found none among x, pump, level, flow"),
    ],
)
def test_a_fault_names_file_row_and_column(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "pumps.csv"
    path.write_text(text)
    with pytest.raises(EdgeLstmError) as caught:
        read_recording(path, COLUMNS)
    assert found in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EdgeLstmError, match=r"expected a recording at .*none\.csv, found no file"):
        read_recording(tmp_path / "none.csv", COLUMNS)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    with pytest.raises(EdgeLstmError, match="expected a CSV file at"):
        read_recording(binary, COLUMNS)
