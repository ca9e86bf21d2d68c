"""Finds out how a recording writes its times and numbers: what does not fit all rows is not taken."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_lstm.foundation.numbers import NUMBER_WORDS, without_thousands
from edge_lstm.foundation.progress import Advance, work
from edge_lstm.recordings.columns import NumberWords, TimeColumns
from edge_lstm.recordings.number_cells import cell_unit, found_thousands
from edge_lstm.recordings.tables.table import Layout, Table, open_table, recording_files
from edge_lstm.recordings.times.time_search import found_times

_COMMA = re.compile(r"[+-]?\d+,(\d+)(?:[eE][+-]?\d+)?")
_POINT = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?")
_GROUPS = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}")
_WHOLE = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class Dialect:
    """How a recording writes its times and numbers."""

    times: TimeColumns | None  # None: no column of times
    words: NumberWords = field(default_factory=NumberWords)
    notes: Sequence[str] = field(default=(), compare=False)  # what a user has to know or to check about the times


def dialect(
    path: str | Path | Sequence[str | Path],
    time: str | TimeColumns | None = None,
    layout: Layout | None = None,
    guess: bool = False,
    missing: Sequence[str] = (),
) -> Dialect:
    """The dialect of a recording's first file. What `time` says about the times is used, the rest is found.

    `guess`: choose the likely unit of times that count from any start, and say so in the notes. Raises EdgeLstmError
    without a table, and if a column that is named like a time cannot be read.
    """
    first = recording_files(path)[0]
    with work(f"looking through {first.name}", unit="blocks of rows") as advance:
        return _dialect(first, time, layout or Layout(), guess, missing, advance)


def _dialect(
    first: Path, time: str | TimeColumns | None, layout: Layout, guess: bool, missing: Sequence[str], advance: Advance
) -> Dialect:
    table = open_table(first, layout.of_file)
    asked = time if isinstance(time, TimeColumns) else TimeColumns([] if time is None else [time])
    found = found_times(table, asked, guess)
    taken = [] if found.times is None else found.times.columns
    comma = _has_decimal_comma(table, taken, advance)
    thousands = _thousands(table, taken, comma, advance)
    notes = list(found.notes)
    if comma and not thousands and (grouped := _grouped(table, taken, advance)) is not None:
        thousands, (name, cell) = ".", grouped
        notes.append(f'"{name}": {cell} is read as {cell.replace(".", "")}, since another column has a decimal comma')
    return Dialect(found.times, NumberWords(comma, missing, thousands), notes)


def _grouped(table: Table, taken: Sequence[str], advance: Advance) -> tuple[str, str] | None:
    """A column and its first cell like 1.234, if all its cells with a point are like it; only after a decimal comma."""
    at = [place for place, name in enumerate(table.header) if name and name not in taken]
    first: dict[int, str] = {}
    others: set[int] = set()
    for place, cells in _text_cells(table, at, advance):
        for text in map(_bare, cells):
            if _GROUPS.fullmatch(text):
                first.setdefault(place, text)
            elif _POINT.fullmatch(text) or "," in text:
                others.add(place)
    return next(((table.header[place], text) for place, text in first.items() if place not in others), None)


def _thousands(table: Table, taken: Sequence[str], comma: bool, advance: Advance) -> str:
    """The separator of thousands, if a column is certain of it."""
    at = [place for place, name in enumerate(table.header) if name and name not in taken]
    found: dict[int, set[str]] = {place: set() for place in at}
    for place, cells in _text_cells(table, at, advance):
        if ("." if comma else ",") in "".join(cells):
            found[place].add(found_thousands(cells, comma))
    return next((max(signs) for signs in found.values() if max(signs, default="")), "")


def _has_decimal_comma(table: Table, taken: Sequence[str], advance: Advance) -> bool:
    """Whether a column has a decimal comma, and none a decimal point. 1,234 alone may be a thousand."""
    at = [place for place, name in enumerate(table.header) if name and name not in taken]
    if not any("," in "".join(cells) for _, cells in _text_cells(table, at, advance)):
        return False
    sure, points, others = set(), set(), set()  # columns by content
    for place, cells in _text_cells(table, at, advance):
        for text in map(_bare, cells):
            if found := _COMMA.fullmatch(text):
                if len(found[1]) != 3:
                    sure.add(place)
            elif _POINT.fullmatch(text):
                if not _GROUPS.fullmatch(text):  # 1.234 may be a thousand
                    points.add(place)
            elif not (_WHOLE.fullmatch(text) or math.isnan(NUMBER_WORDS.get(text.lower(), 0.0))):
                others.add(place)
                break
    return bool(sure - others) and not points - others


def _bare(text: str) -> str:
    """A cell without the parts that say nothing about its decimal separator: 1.234,5 kWh is 1234,5."""
    bare = text.strip()
    if bare.replace(",", "").replace(".", "").isdigit() and not {",", "."} <= {*bare}:
        return bare
    unit = cell_unit(bare)
    bare = bare.removesuffix(unit).rstrip() if unit else bare
    for comma in (False, True):
        bare = without_thousands(bare, decimal_comma=comma) or bare
    return bare


def _text_cells(table: Table, at: Sequence[int], advance: Advance) -> Iterator[tuple[int, Sequence[str]]]:
    """(column, cells) of the texts, block by block; numbers of a Parquet file are left out."""
    for block in table.blocks(at):
        advance(1)
        yield from ((place, cells) for place, cells in block.cells.items() if not isinstance(cells, np.ndarray))
