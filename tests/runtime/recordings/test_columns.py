"""Cells of numbers as loggers write them: units, thousands and words; and what is refused with a key that helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.columns import NumberWords, ValueColumn
from edge_lstm.recordings.dialect import dialect
from edge_lstm.recordings.recording import Columns, read_recording, value_columns


def read(folder: Path, cells: list[str], words: NumberWords = NumberWords(), unit: str = "") -> list[float]:  # noqa: B008
    path = folder / "pump.csv"
    path.write_text("time;x\n" + "".join(f"2024-03-01 00:{row:02d};{cell}\n" for row, cell in enumerate(cells)))
    recording = read_recording(path, Columns({"x": ValueColumn("x", unit=unit)}, "time", words=words))
    values: list[float] = recording.values[:, 0].tolist()
    return values


COMMA = NumberWords(decimal_comma=True)


@pytest.mark.parametrize(
    ("cells", "words", "unit", "values"),
    [
        (["21 °C", "-1.5°C", "22.5 C", "23"], NumberWords(), "°C", [21, -1.5, 22.5, 23]),
        (["21,5 °C", "-1 °C"], COMMA, "°C", [21.5, -1]),
        (["55 %", "5.5e1%"], NumberWords(), "%", [55, 55]),
        (["1,234.5", "1,234,567", "1'234", "7"], NumberWords(), "", [1234.5, 1234567, 1234, 7]),
        (["1.234,5", "1.234.567", "7,25"], COMMA, "", [1234.5, 1234567, 7.25]),
        (["1,234", "12,345.5", "1"], NumberWords(thousands=","), "", [1234, 12345.5, 1]),
        (["1.234", "0,5"], NumberWords(True, (), "."), "", [1234, 0.5]),
        (["1,234.5 kWh", "2 kWh"], NumberWords(), "kWh", [1234.5, 2]),
    ],
)
def test_units_and_thousands_are_no_part_of_the_number(
    tmp_path: Path, cells: list[str], words: NumberWords, unit: str, values: list[float]
) -> None:
    assert read(tmp_path, cells, words, unit) == values


def test_words_of_loggers_are_missing_numbers_but_categories_of_texts(tmp_path: Path) -> None:
    words = ["---", "#N/A", "OVER", "Bad", "#DIV/0!", "NAN"]
    assert np.isnan(read(tmp_path, [*words, "4"])[:-1]).all()
    path = tmp_path / "pump.csv"
    path.write_text("time,quality\n2024-03-01,bad\n2024-03-02,good\n2024-03-03,bad\n")
    recording = read_recording(path, Columns({"quality": ValueColumn("quality", text=True)}, "time"))
    assert recording.categories == {"quality": ["bad", "good"]}


@pytest.mark.parametrize(
    ("cell", "unit", "hint"),
    [
        ("21 °C", "", "if °C is its unit: unit = '°C' under [features.x]"),
        ("21 °F", "°C", "if °F is its unit: unit = '°F' under [features.x]"),
        ("1,234", "", 'if "," is between thousands: thousands = "," under [recording]'),
        ("warming up", "", "missing = ['warming up'] under [recording] (init: --missing 'warming up')"),
    ],
)
def test_a_cell_that_is_no_number_names_the_key_that_helps(tmp_path: Path, cell: str, unit: str, hint: str) -> None:
    with pytest.raises(EdgeLstmError, match=r'row 3, column "x": .* is not a number') as caught:
        read(tmp_path, ["1", cell, "2"], unit=unit)
    assert hint in str(caught.value.hint)


def test_units_and_thousands_are_found_in_the_cells(tmp_path: Path) -> None:
    path = tmp_path / "meter.csv"
    rows = [f"2024-03-01 00:0{row};2{row} °C;{1 + row},00{row};{row},2{row}0.5;Bad" for row in range(9)]
    path.write_text("time;t;ambiguous;energy;state\n" + "\n".join(rows) + "\n2024-03-01 00:09;20 °C;1,234;900;Good\n")
    found = dialect(path)
    assert found.words == NumberWords(thousands=",")
    columns = value_columns(path, Columns({}, found.times, words=found.words))
    assert (columns["t"].unit, columns["t"].text, columns["energy"].text, columns["state"].text) == (
        "°C",
        False,
        False,
        True,
    )
