"""What loggers write around a table: it is found, left out and reported; and no name ever shifts."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_lstm.cli.main import main
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.columns import texts_of
from edge_lstm.recordings.tables.table import Layout, Table, open_table
from tests.paths import PUMP

ROWS = [[f"2024-03-01 00:0{minute}", f"{20 + minute / 4}", f"{55 - minute}.5"] for minute in range(8)]
NAMES = ["time", "temp", "hum"]


def lines(rows: list[list[str]] = ROWS, separator: str = ",", end: str = "") -> str:
    return "".join(separator.join(row) + end + "\n" for row in rows)


def opened(folder: Path, content: str | bytes, layout: Layout | None = None, name: str = "attic.csv") -> Table:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_table(path, layout or Layout())


def rows_of(table: Table) -> list[list[str]]:
    columns = range(len(table.header))
    blocks = [
        texts for block in table.blocks(columns) for texts in zip(*map(texts_of, block.cells.values()), strict=True)
    ]
    return [list(row) for row in blocks]


def column(table: Table, name: str) -> list[str]:
    return [row[table.header.index(name)] for row in rows_of(table)]


HEAD = lines([NAMES])
PLAIN = [
    "sep=,\n" + HEAD + lines(),
    '"SEP=;"\n' + lines([NAMES, *ROWS], ";"),
    "Plot Title: attic\n" + HEAD + lines(),
    "Attic; ground floor\n\nSerial 12345,\n" + HEAD + lines(),
    "# logger v3\n# site: attic, 2nd floor\n" + HEAD + lines(),
    "// exported 2024-03-02\n\n" + HEAD + lines(ROWS[:4]) + "// battery, changed\n" + lines(ROWS[4:]),
    "# time,temp,hum\n" + lines(),
    "%time,temp,hum\n" + lines(),
    HEAD + lines(ROWS[:3]) + HEAD + lines(ROWS[3:]),
    HEAD + lines(ROWS[:3]) + "# battery changed\n" + lines(ROWS[3:]),
    HEAD + lines() + "\nMin,20.0,48.5\nMax,21.75,55.5\n",
    HEAD + lines() + "8 rows\n",
    HEAD + lines() + "2024-03-01 00:08,2",
    HEAD + lines() + "2024-03-01 00:08,22.0,4",
    HEAD + lines() + "\0" * 300,
    HEAD + lines() + "2024-03-01 00:08,2\0\0\0\0",
    HEAD + lines(ROWS[:3]) + "2024-0\0\0\0\0\0\n" + lines(ROWS[3:]),
    HEAD + lines(ROWS[:3]) + "\0\0\0\0\0" + lines(ROWS[3:]),
    HEAD + lines(ROWS[:3]) + "2024-03-01 00:02,2\0\0\0,48.5\n" + lines(ROWS[3:]),
    HEAD + lines() + "\x1a",
    "Station,7\n" + HEAD + lines(),
    "# line\n" * 100 + HEAD + lines(),
    "Site,attic,\nSerial,77,\n" + HEAD + lines(),
]


@pytest.mark.parametrize("text", PLAIN)
def test_only_the_readings_are_rows(tmp_path: Path, text: str) -> None:
    table = opened(tmp_path, text)
    assert table.header == NAMES
    assert rows_of(table) == ROWS
    packed = opened(tmp_path, gzip.compress(text.encode()), name="attic.csv.gz")
    assert rows_of(packed) == ROWS


@pytest.mark.parametrize(
    ("text", "note", "reason"),
    [
        (PLAIN[9], "row 5 is a comment and was left out", {"comments": 1}),
        (PLAIN[8], "row 5 repeats the header and was left out", {"repeated headers": 1}),
        (
            PLAIN[10],
            'row 11 and what follows are no readings and were left out: "Min, 20.0, 48.5"',
            {"below the table": 2},
        ),
        (PLAIN[12], "row 10, the last one, is incomplete and was left out", {"incomplete": 1}),
        (PLAIN[13], "row 10, the last one, is incomplete and was left out", {"incomplete": 1}),
        (PLAIN[14], "row 10 holds NUL bytes and was left out, and so is each row like it", {"damaged": 1}),
        (PLAIN[17], "", {}),
    ],
)
def test_what_is_left_out_is_counted_with_its_row(tmp_path: Path, text: str, note: str, reason: dict[str, int]) -> None:
    table = opened(tmp_path, text)
    rows_of(table)
    assert (table.notes, table.left_out) == ([note] if note else [], reason)


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "UTC,°C,%\n" + lines(),
        "Attic\n" + HEAD + "UTC,[°C],(%)\n" + lines(),
        '"TOA5","Station","CR1000","1","CR1000.Std.31","CPU:p.CR1","4062","T1"\n'
        + HEAD
        + "TS,°C,%\n,Avg,Smp\n"
        + lines(),
        HEAD + "Zeit,°C,%\n" + lines(ROWS[:3]) + HEAD + "Zeit,°C,%\n" + lines(ROWS[3:]),
        "sep=;\n" + lines([NAMES, ["", "°C", "%"], *ROWS], ";"),
    ],
)
def test_the_units_below_the_header_are_found(tmp_path: Path, text: str) -> None:
    table = opened(tmp_path, text)
    assert table.header == NAMES
    assert rows_of(table) == ROWS
    assert (table.units["temp"], table.units["hum"]) == ("°C", "%")


def test_keys_say_what_cannot_be_found(tmp_path: Path) -> None:
    text = "1,2,3\n4,5,6\n" + HEAD + "1/min,1/s,x\n" + lines() + "* 7\n" + lines(ROWS[:1])
    layout = Layout(skip_lines=2, comment="*", units_row=True)
    table = opened(tmp_path, text, layout)
    assert table.header == NAMES
    assert table.units == {"time": "1/min", "temp": "1/s", "hum": "x"}
    assert rows_of(table) == [*ROWS, ROWS[0]]


TRAILING = [
    (NAMES, ROWS, ","),
    (NAMES, ROWS[:1], ","),
    (["Record", "Temp"], [["1", "20"], ["2", "21"]], ","),
    (["a", "b"], [["7", "20"], ["9", "21"]], ","),
    (["date", "clock", "b"], [["2024-03-01", "00:00", "2"], ["2024-03-01", "00:10", "3"]], ","),
]


@pytest.mark.parametrize(("names", "rows", "end"), TRAILING)
def test_a_delimiter_at_the_end_shifts_no_name(
    tmp_path: Path, names: list[str], rows: list[list[str]], end: str
) -> None:
    table = opened(tmp_path, lines([names]) + lines(rows, end=end))
    assert [column(table, name) for name in names] == [list(cells) for cells in zip(*rows, strict=True)]


def test_row_names_in_front_and_a_last_unnamed_column_shift_no_name(tmp_path: Path) -> None:
    table = opened(tmp_path, lines([NAMES]) + lines([[str(at), *row] for at, row in enumerate(ROWS, 140)]))
    assert column(table, "hum") == [row[2] for row in ROWS]
    cars = [["fiat", "1.5"], ["opel", "2.5"], ["audi", "3.5"]]
    assert column(opened(tmp_path, lines([["power"]]) + lines(cars)), "power") == ["1.5", "2.5", "3.5"]
    table = opened(tmp_path, lines([NAMES]) + lines([[*row, "7"] for row in ROWS]))
    assert column(table, "hum") == [row[2] for row in ROWS]
    table = opened(tmp_path, lines([[*NAMES, "", ""]]) + lines())
    assert column(table, "hum") == [row[2] for row in ROWS]


@pytest.mark.parametrize(
    "rows",
    [
        [["1", "20", ""], ["2", "21", ""], ["3", "22", ""]],  # row names and a last column without values?
        [["20", "55", "1013"], ["21", "54", "1012"]],
        [["20", "55", ""], ["21", "54", ""], *([["21", "54", ""]] * 100), ["21", "53", "1"]],
    ],
)
def test_where_the_missing_name_belongs_is_not_guessed(tmp_path: Path, rows: list[list[str]]) -> None:
    with pytest.raises(EdgeLstmError, match=r'either "a" is .* has no name, or "a" is .* the first column \('):
        rows_of(opened(tmp_path, lines([["a", "b"]]) + lines(rows)))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1"])
def test_the_encoding_is_found_by_its_mark_or_given(tmp_path: Path, encoding: str) -> None:
    text = lines([["time", "Temp °C", "hum"], *ROWS])
    given = None if encoding.startswith("utf") else encoding
    table = opened(tmp_path, text.encode(encoding), Layout(encoding=given))
    assert table.header == ["time", "Temp °C", "hum"]
    assert rows_of(table) == ROWS
    half = opened(tmp_path, (text + "2024-03-01 00:08,°").encode(encoding)[:-1], Layout(encoding=given))
    assert rows_of(half) == ROWS


def test_another_encoding_is_named_with_how_it_would_read(tmp_path: Path) -> None:
    with pytest.raises(EdgeLstmError, match='0xb0 in row 1; in cp1252 it would be "time;Temp °C;rH %"') as caught:
        opened(tmp_path, "time;Temp °C;rH %\n".encode("cp1252") + lines(ROWS, ";").encode())
    assert 'encoding = "cp1252" under [recording]' in str(caught.value.hint)
    with pytest.raises(EdgeLstmError, match="expected a known encoding, found: unknown encoding: cp1"):
        opened(tmp_path, HEAD + lines(), Layout(encoding="cp1"))


def test_columns_of_one_name_get_numbers(tmp_path: Path) -> None:
    table = opened(tmp_path, "time,T,T,T\n" + lines([[*row, "1"] for row in ROWS]))
    assert table.header == ["time", "T #1", "T #2", "T #3"]


def test_a_row_of_another_width_among_the_readings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeLstmError, match="row 5: expected 3 columns, found 2") as caught:
        rows_of(opened(tmp_path, HEAD + lines(ROWS[:3]) + "2024-03-01 00:03,4\n" + lines(ROWS[3:])))
    assert "skip_lines = N" in str(caught.value.hint)
    with pytest.raises(EdgeLstmError, match="row 10: expected 3 columns, found 2"):
        rows_of(opened(tmp_path, HEAD + lines() + "1,2\n" * 21))


def test_replay_is_the_same_with_a_delimiter_at_the_end_of_each_row(tmp_path: Path) -> None:
    head = "time,level,pressure,flow\n"
    rows = [f"2024-03-01T00:0{row}:00Z,77,4.3{row},12.9" for row in range(5)]
    (tmp_path / "clean.csv").write_text(head + "\n".join(rows) + "\n")
    (tmp_path / "trailing.csv").write_text(head + ",\n".join(rows) + ",\n")
    tags = [tag for row in range(5) for tag in ("level,77", f"pressure,4.3{row}", "flow,12.9")]
    lines = [f"2024-03-01T00:0{at // 3}:00Z,{tag}" for at, tag in enumerate(tags)]
    (tmp_path / "long.csv").write_text("time,tag,value\n" + "\n".join(lines) + "\n")
    shown = {}
    for name in ("clean", "trailing", "long"):
        path = tmp_path / f"{name}.csv"
        result = CliRunner().invoke(main, ["replay", str(PUMP), str(path), "--stream", "pump", "--json"])
        assert result.exit_code == 0, result.stderr
        shown[name] = result.stdout
    assert shown["clean"].count("\n") == 5
    assert shown["trailing"] == shown["clean"]
    assert shown["long"] == shown["clean"]
