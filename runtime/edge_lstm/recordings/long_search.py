"""Recognizes files of one row a value (`time, sensor_id, value`), and how their values belong together."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_lstm.foundation.arrays import Flags, Integers
from edge_lstm.foundation.numbers import NUMBER_WORDS
from edge_lstm.recordings.columns import texts_of
from edge_lstm.recordings.number_cells import cell_unit
from edge_lstm.recordings.recording import Recording
from edge_lstm.recordings.tables.table import Layout, Table, open_table, recording_files

_NAME_WORDS = """
field entityid sensorid sensor sensorname tagname tag tagid tagpath pointname pointid point variablename variable var
parameter parametername param metric metricname channel channelname signal signalname item itemid itemname nodeid
attribute quantity key measurement property series type topic datapoint object name register messgroesse messstelle
observedproperty characteristic
"""
_NAME_COLUMNS = _NAME_WORDS.split()
_VALUE_WORDS = """
value val valuenum numericvalue measuredvalue measurevalue currentvalue state reading result wert messwert valeur valor
valore waarde pv data vvalue floatvalue
"""
_VALUE_COLUMNS = _VALUE_WORDS.split()
_SAMPLE = 50_000  # rows that are looked at
_LEAST_REPEATS = 3  # rows of a name, in the mean
_MOST_NAMES = 1000
_WHOLE = 0.9  # share of the values of a row that must be there
_ROUND = 1 / 3  # the values of a row come within this share of the time between rows
_NICE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)  # seconds
_INTERVALS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


@dataclass(frozen=True)
class LongColumns:
    """The columns of a file of one row a value."""

    name_column: str
    value_column: str
    names: Sequence[str]  # some of the names


@dataclass(frozen=True)
class Joining:
    """How values belong together."""

    within_s: float = 0.0  # the values of a row come within this time
    grid_s: float | None = None  # None: rows; else each value has a rhythm of its own: rows at this interval


def found_long(table: Table) -> LongColumns | None:
    """The columns of name and value, if their names say so and the names repeat; None for another table.

    Names that differ in digits alone (pump-1, pump-2) are streams that measure the same, and so are numbers.
    """
    value = next((name for known in _VALUE_COLUMNS for name in table.header if _plain(name) == known), None)
    if value is None:
        return None
    candidates = [name for known in _NAME_COLUMNS for name in table.header if _plain(name) == known and name != value]
    if not candidates:
        return None
    places = [table.header.index(name) for name in (value, *candidates)]
    cells: list[list[str]] = [[] for _ in places]
    for block in table.blocks(places):
        for found, at in zip(cells, places, strict=True):
            found += texts_of(block.cells[at])
        if len(cells[0]) >= _SAMPLE:
            break
    if not any(map(_is_value, cells[0])):
        return None
    for name, texts in zip(candidates, cells[1:], strict=True):
        counts = Counter(filter(None, texts))
        kinds = {re.sub(r"\d+", "0", text) for text in counts}
        repeat = len(texts) >= _LEAST_REPEATS * len(counts)
        if 2 <= len(counts) <= _MOST_NAMES and len(kinds) > 1 and repeat and not all(map(_is_value, counts)):
            return LongColumns(name, value, list(counts)[:5])
    return None


def long_layout(
    path: str | Path | Sequence[str | Path],
    layout: Layout,
    stream_column: str | None = None,
    columns: Sequence[str] = (),
) -> tuple[Layout, list[str]]:
    """The layout with the columns of name and value, if the files are recognized as of one row a value; and a note.

    A file that has all of `columns` is none.
    """
    table = open_table(recording_files(path)[0], layout.of_file)
    if layout.name_column is not None or (columns and all(name in table.header for name in columns)):
        return layout, []
    found = found_long(table)
    if found is None or stream_column == found.name_column:
        return layout, []
    note = (
        f'one row a value: "{found.name_column}" says what "{found.value_column}" is ({", ".join(found.names)}); if '
        f"these are devices that measure the same, use --stream-column {found.name_column}"
    )
    return replace(layout, name_column=found.name_column, value_column=found.value_column), [note]


def found_joining(recording: Recording) -> Joining:
    """How the values of a recording, each in a row with those of its time, belong together.

    They do where nearly all come together, or soon after each other and long before the next ones; else on a grid.
    """
    there = ~np.isnan(recording.values)
    names = there.sum(axis=1)
    if not names.any():
        return Joining()
    width = int((there.any(axis=0)).sum())
    if names.mean() >= _WHOLE * width:
        return Joining()
    spans, gaps, sizes = [], [], []
    for stream in range(len(recording.streams)):
        own = recording.stream_of == stream
        if own.sum() < 2:
            continue
        order = np.argsort(recording.times[own], kind="stable")
        times, rounds = recording.times[own][order], _rounds(there[own][order])
        first = np.flatnonzero(np.diff(rounds, prepend=-1))
        last = np.append(first[1:], len(times)) - 1
        spans.append(times[last] - times[first])
        gaps.append(np.diff(times[first]))
        sizes.append(np.bincount(rounds, names[own][order]))
    span = float(np.quantile(np.concatenate(spans), 0.95)) if spans else math.inf
    gap = float(np.median(np.concatenate(gaps))) if any(map(len, gaps)) else 0.0
    if spans and span <= _ROUND * gap and np.concatenate(sizes).mean() >= _WHOLE * width:
        return Joining(next((nice for nice in _NICE if nice >= span), math.ceil(span)))
    usual_s = _usual_interval_s(recording, there)
    if usual_s is None or usual_s < 1:
        return Joining(grid_s=usual_s)
    return Joining(grid_s=min(_INTERVALS, key=lambda nice: abs(math.log(nice / usual_s))))


def _rounds(there: Flags) -> Integers:
    """(rows,): the round of each row; a round ends before a name that it has."""
    rounds = np.zeros(len(there), np.int64)
    seen = np.zeros(there.shape[1], bool)
    number = 0
    for row, found in enumerate(there):
        if (seen & found).any():
            number += 1
            seen = np.zeros_like(seen)
        seen |= found
        rounds[row] = number
    return rounds


def _usual_interval_s(recording: Recording, there: Flags) -> float | None:
    """The median over all names of their usual time between two values; None where each has only one."""
    steps = []
    for stream in range(len(recording.streams)):
        own = recording.stream_of == stream
        for column in range(there.shape[1]):
            gaps = np.diff(recording.times[own & there[:, column]])
            gaps = gaps[gaps > 0]
            if gaps.size:
                steps.append(float(np.median(gaps)))
    return float(np.median(steps)) if steps else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_value(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return text.lower() in NUMBER_WORDS or bool(cell_unit(text))
    return True
