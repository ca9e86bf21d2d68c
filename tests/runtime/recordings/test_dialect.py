"""The format of a recording, detected from its rows: time formats, decimal commas, and what is not guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_lstm.recordings.columns import TimeColumns
from edge_lstm.recordings.dialect import Dialect, dialect


def found(folder: Path, text: str, name: str = "recording.csv") -> Dialect:
    path = folder / name
    path.write_text(text)
    return dialect(path)


@pytest.mark.parametrize(
    ("text", "columns", "form"),
    [
        ("time,x\n2024-03-01T00:00:00Z,1\n2024-03-01T01:00:00Z,2\n", ["time"], None),
        ("n,x\n1709251200,1\n1709251260,2\n", None, None),  # numbers are times where the name says so,
        ("ts,x\n1709251200000,1\n1709251260000,2\n", ["ts"], None),
        ("t,x\n1709251200,1\n1709251260,2\n", ["t"], None),  # or may say so, of moments
        ("t,x\n21.5,1\n21.6,2\n", None, None),
        ("stamp,x\n1709251200,1\n1709251260,2\n", ["stamp"], None),
        ("day,at,x\n2024-03-01,00:00,1\n2024-03-01,01:00,2\n", ["day", "at"], None),
        (
            "x,Date,Time\n1,31.12.2024,22.00.00\n2,31.12.2024,23.00.00\n3,01.01.2025,00.00.00\n",
            ["Date", "Time"],
            "%d.%m.%Y %H.%M.%S",
        ),
        ("Datum;Stunde;x\n31.12.2024;22;1\n31.12.2024;23;1\n01.01.2025;0;2\n", ["Datum", "Stunde"], "%d.%m.%Y %H"),
        ("when,x\n12/31/2024 11:00 PM,1\n1/1/2025 12:00 AM,2\n", ["when"], "%m/%d/%Y %I:%M %p"),
        (
            "No,year,month,day,hour,x\n1,2024,12,31,23,1\n2,2025,1,1,0,2\n",
            ["year", "month", "day", "hour"],
            "%Y %m %d %H",
        ),
        ("date,x\n2024-03-01,1\n2024-03-02,2\n", ["date"], None),
        ("date,x\n20240301,1\n20240302,2\n", ["date"], "%Y%m%d"),
        ("date,sunrise,x\n01.03.24,06:51,1\n02.03.24,06:49,2\n", ["date"], "%d.%m.%y"),  # the days are enough
        ("date,x\n01/03/2024,1\n02/03/2024,2\n03/03/2024,3\n", ["date"], "%d/%m/%Y"),  # three days, not three months
        ("date,x\n01/30/2024,1\n01/31/2024,2\n02/01/2024,3\n", ["date"], "%m/%d/%Y"),
        ("date,clock,x\n2024-03-01,4.31,1\n2024-03-01,soon,2\n", ["date"], None),  # a row that is no clock
        ("date,level,x\n2024-03-01,4.31,1\n2024-03-01,4.32,2\n", ["date"], None),  # a level is none either
        ("a,b\n1,2\n3,4\n", None, None),
    ],
)
def test_the_time_format_is_detected_from_all_rows(
    tmp_path: Path, text: str, columns: list[str] | None, form: str | None
) -> None:
    assert found(tmp_path, text).times == (None if columns is None else TimeColumns(columns, form))


@pytest.mark.parametrize(
    ("text", "comma"),
    [
        ("time;x\n2024-03-01;4,31\n2024-03-02;NA\n2024-03-03;5\n", True),
        ('time,x\n2024-03-01,"4,31"\n', True),
        ("time;x\n2024-03-01;4.31\n", False),
        ("time;x;y\n2024-03-01;4,31;4.31\n", False),  # both: one of them is no number, and reading says which
        ("time;x\n2024-03-01;4,310\n", False),  # four thousand?
        ("time;x\n2024-03-01;4,310\n2024-03-02;4,31\n", True),
        ("time;note\n2024-03-01;4,31\n2024-03-02;oil, water\n", False),
        ("Datum;Stunde;x\n31.12.2024;22.30;1,5\n31.12.2024;23.30;2\n", True),  # the clock's points are no numbers'
    ],
)
def test_a_decimal_comma_is_detected_if_no_row_contradicts(tmp_path: Path, text: str, comma: bool) -> None:
    assert found(tmp_path, text).words.decimal_comma is comma


def test_a_named_column_is_used(tmp_path: Path) -> None:
    path = tmp_path / "recording.csv"
    path.write_text("date,seen\n2024-03-01,2024-03-02\n")
    assert dialect(path, "seen").times == TimeColumns(["seen"])
