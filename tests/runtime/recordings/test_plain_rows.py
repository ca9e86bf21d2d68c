"""The two readers of CSV files: what pyarrow reads of a file is what the reader of a device reads."""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings import recording as recording_module
from edge_lstm.recordings.columns import NumberWords, TimeColumns, ValueColumn
from edge_lstm.recordings.dialect import dialect
from edge_lstm.recordings.recording import Columns, Recording, read_recording, value_columns
from edge_lstm.recordings.tables import plain_rows
from edge_lstm.recordings.tables.plain_rows import PlainRows
from edge_lstm.recordings.tables.table import open_table

pytest.importorskip("pyarrow")

RECORDINGS = Path(__file__).parents[3] / "train" / "recipes" / "recordings"
WRITTEN = Path(__file__).parents[2] / "fixtures"


@contextlib.contextmanager
def small_blocks(rows: int = 4, chunk: int = 700) -> Iterator[list[int]]:
    """Both readers with small blocks, for small files; yields how many rows pyarrow read each time."""
    counts: list[int] = []
    parts = PlainRows.parts

    def counted(self: PlainRows, columns: list[int]) -> Iterator[object]:
        begin = self.line
        try:
            yield from parts(self, columns)
        finally:
            counts.append(self.line - begin)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_rows, "BLOCK_ROWS", rows)
        patch.setattr(plain_rows, "_CHUNK", chunk)
        patch.setattr(plain_rows, "_LEAST_BYTES", 0)
        patch.setattr(PlainRows, "parts", counted)
        yield counts


def read_by(quick: bool, path: Path, columns: Columns) -> Recording | str:
    try:
        return recording_module._read(path, columns, quick)
    except EdgeLstmError as error:
        return str(error)


def assert_equal_readings(path: Path, columns: Columns) -> None:
    """Both readers give the same, bit for bit; where one refuses the file, the other does too."""
    with contextlib.suppress(EdgeLstmError):
        read_recording(path, columns)  # the readers together never fail in another way
    one, other = read_by(True, path, columns), read_by(False, path, columns)
    if isinstance(one, str) or isinstance(other, str):
        assert isinstance(one, str)
        assert isinstance(other, str)
        return
    for name in ("stream_of", "times", "values", "places"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
        assert getattr(one, name).dtype == getattr(other, name).dtype
    assert one.values.tobytes() == other.values.tobytes()  # -0.0 and 0.0 differ
    facts = ("streams", "left_out", "notes", "categories", "groups", "features")
    assert [getattr(one, name) for name in facts] == [getattr(other, name) for name in facts]
    for name, values in one.labels.items():
        np.testing.assert_array_equal(values, other.labels[name])


def columns_of(path: Path) -> Columns | None:
    try:
        found = dialect(path)
        columns = Columns({}, found.times, words=found.words)
        return Columns(value_columns(path, columns), found.times, words=found.words)
    except EdgeLstmError:
        return None


FILES = sorted([*RECORDINGS.rglob("*.csv*"), *WRITTEN.rglob("*.csv")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_both_readers_read_the_same_from_the_recordings_of_the_recipes(path: Path) -> None:
    columns = columns_of(path)
    assert columns is not None
    with small_blocks(8, 4000) as counts:
        assert_equal_readings(path, columns)
    assert max(counts) > 0


def test_a_plain_file_is_read_by_pyarrow_up_to_its_last_blocks(tmp_path: Path) -> None:
    path = tmp_path / "pump.csv"
    rows = [f"2024-03-01T00:{minute // 60:02d}:{minute % 60:02d}Z,{minute / 7!r},on" for minute in range(100)]
    path.write_text("\n".join(["time,level,valve", *rows]) + "\n")
    columns = Columns({"level": "level", "valve": ValueColumn("valve", text=True)}, "time")
    with small_blocks(4) as counts:
        assert_equal_readings(path, columns)
        assert all(80 <= count <= 92 for count in counts)
        found = read_recording(path, columns)
    assert found.values[:, 0].tolist() == [minute / 7 for minute in range(100)]
    assert found.times[:2].tolist() == [1709251200.0, 1709251201.0]
    assert found.places is not None
    assert found.places[:, 1].tolist() == list(range(2, 102))


ODD = [
    '2024-03-01T00:00:10Z,"1,5",on',
    "2024-03-01T00:00:10Z,1.5",
    "2024-03-01T00:00:10Z,1.5,on,more",
    "",
    ",,",
    " , , ",
    "# restarted",
    "time,level,valve",
    "2024-03-01T00:00:10Z,NA,on",
    "2024-03-01T00:00:10Z,,",
    "2024-03-01T00:00:10Z,1_000,on",
    "2024-03-01T00:00:10Z, 7 ,on",
    "2024-03-01T00:00:10Z,inf,on",
    "2024-03-01T00:00:10Z,nan,on",
    "2024-03-01T00:00:10Z,1e39,on",
    "2024-03-01T00:00:10Z,x,on",
    "2024-03-01T00:00:10+02:00,1.5,on",
    "2024-03-01 00:00:10,1.5, on ",
    "1709251210,1.5,on",
    "20240301000010,1.5,on",
    "2024-03-01T24:00:00Z,1.5,on",
    "2036-03-01T00:00:10Z,1.5,on",
    "2024-03-01T00:00:10Z,1.5,\u00fc",
    "2024-03-01T00:00:10Z,1.5,o\x00n",
    "2024-03-01T00:00:10Z,1.5,o\x1an",
    "2024-03-01T00:00:10Z,1.5,o\rn",
    "2024-03-01T00:00:10Z,1.5,on\r",
    "9999-12-31,1.5,on",
    "2300-01-01T00:00:00.123456Z,1.5,on",
]


@pytest.mark.parametrize("odd", ODD, ids=ascii)
@pytest.mark.parametrize("at", [0, 50, 99])
def test_both_readers_read_the_same_around_an_odd_row(tmp_path: Path, odd: str, at: int) -> None:
    path = tmp_path / "pump.csv"
    rows = [f"2024-03-01T00:00:{second:02d}Z,{second / 7!r},off" for second in range(60)] + [
        f"2024-03-01T00:01:{second:02d}Z,-0.0,off" for second in range(60)
    ]
    rows.insert(at, odd)
    path.write_bytes("\n".join(["time,level,valve", *rows]).encode() + b"\n")
    with small_blocks():
        assert_equal_readings(path, Columns({"level": "level", "valve": ValueColumn("valve", text=True)}, "time"))


CELLS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.integers(-(10**20), 10**20).map(str),
    st.sampled_from(["", "NA", "+1.5", ".5", "5.", "1,5", "1_0", " 3", "-0", "00012", "1e5", "1d5", "true", "٣"]),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=6),
)
TIMES = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.datetimes().map(lambda moment: f"{moment.isoformat(sep=' ', timespec='seconds')}Z"),
    st.floats(0, 1e11).map(repr),
    CELLS,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(TIMES, CELLS, CELLS), min_size=0, max_size=6),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
    st.sampled_from(["", "\ufeff"]),
    st.integers(0, 2**32),
    st.sampled_from(["", "torn,", "below the table"]),
)
def test_both_readers_read_the_same_from_any_table(
    odd: list[tuple[str, str, str]], separator: str, end: str, comma: bool, mark: str, seed: int, last: str
) -> None:
    drawn = random.Random(seed)
    rows = [
        separator.join([f"2024-03-01T{at // 60:02d}:{at % 60:02d}:00Z", f"{drawn.gauss(20, 5):.3f}", f"m{at % 3}"])
        for at in range(70)
    ]
    for row in odd:
        rows.insert(drawn.randrange(len(rows)), separator.join(row))
    text = mark + end.join([separator.join(["time", "level", "stream"]), *rows, last])
    words = NumberWords(decimal_comma=comma, missing=["true"])
    with tempfile.TemporaryDirectory() as folder, small_blocks():
        path = Path(folder) / "any.csv"
        path.write_bytes(text.encode())
        assert_equal_readings(path, Columns({"level": "level"}, "time", "stream", words=words))
        assert_equal_readings(path, Columns({"level": "level"}, TimeColumns(["time"]), words=words))


def test_a_small_file_is_read_without_pyarrow(tmp_path: Path) -> None:
    path = tmp_path / "pump.csv"
    path.write_text("time,level\n2024-03-01,1\n2024-03-02,2\n")
    table = open_table(path, quick=True)
    assert [type(block.cells[1]) for block in table.blocks([1])] == [tuple]
