"""A survey of an unknown recording: its format, and what each column holds.

It reports only what the data confirm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_lstm.foundation.arrays import Doubles
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.numbers import WORD_VALUES
from edge_lstm.recordings.columns import NumberWords, TimeColumns, texts_of
from edge_lstm.recordings.dialect import dialect
from edge_lstm.recordings.local_zone import in_local_zone
from edge_lstm.recordings.recording import Columns, Recording, numeric_columns
from edge_lstm.recordings.tables import Layout, Table, column_index, open_table, recording_files, without_header

_MOST_TEXTS = 30  # different ones that may be classes or categories
_MOST_STREAMS = 1000
_DAY_S = 86_400.0
_EARLY = 0.6  # share of the rows, by time: the training part of a split by time
_FEWEST = 20  # values on either side that a level needs
_DRIFT = 0.5  # standard deviations


@dataclass(frozen=True)
class Survey:
    """The findings."""

    rows: int
    times: TimeColumns | None  # None: no column of times
    stream_column: str | None
    streams: int
    numbers: list[str]  # columns whose numbers change in the training part, the first three fifths of the rows
    constants: list[str]  # columns whose numbers do not change there
    texts: dict[str, list[str]] = field(default_factory=dict)  # columns of few different texts -> these texts
    whole: dict[str, list[str]] = field(default_factory=dict)  # columns of few different whole numbers -> as texts
    interval_s: float | None = None  # the usual time between a stream's rows
    days: float = 0.0  # from the first row to the last
    words: NumberWords = field(default_factory=NumberWords)
    header: Sequence[str] = ()  # the columns' names, if the first row holds none
    others: list[str] = field(default_factory=list)  # all other columns
    drifting: dict[str, tuple[float, float]] = field(default_factory=dict)  # columns -> level before and after
    notes: Sequence[str] = ()  # what a user has to know or to check about the times


def survey(
    path: str | Path | Sequence[str | Path],
    stream_column: str | None = None,
    header: Sequence[str] = (),
    decimal_comma: bool | None = None,
    asked: TimeColumns | None = None,
) -> Survey:
    """Survey a recording; `header` and `decimal_comma` override what is found, and so does what `asked` says of times.

    Raises EdgeLstmError if the file cannot be read as a recording.
    """
    layout = Layout(header=header)
    table = open_table(recording_files(path)[0], layout)
    _refuse_without_header(table)
    found = dialect(path, asked, layout, guess=True)
    words = found.words if decimal_comma is None else NumberWords(decimal_comma)
    times = found.times or TimeColumns(interval_s=1.0)
    if stream_column is not None:
        column_index(table, stream_column)
    columns = Columns({}, times, words=words, layout=layout)
    numbers = [name for name in numeric_columns(path, columns) if table.header.count(name) == 1]
    others = [name for name in table.header if name and name not in numbers and name not in times.columns]
    texts = {name: few for name in others if (few := _few_texts(path, name, layout))}
    own = {name: name for name in numbers}
    together = in_local_zone(path, Columns(own, times, stream="all", words=words, layout=layout))
    times, recording = together.times, together.recording
    values = dict(zip(numbers, recording.values.T, strict=True))
    whole = {name: few for name, column in values.items() if (few := _whole_numbers(column))}
    if stream_column is None and found.times is not None and len(recording_files(path)) == 1:
        stream_column = _stream_column(path, recording.times, [*texts, *_stream_candidates(values)], layout)
    early = recording.times < np.quantile(recording.times, _EARLY)
    constants = [name for name, column in values.items() if not _is_changing(column[early])]
    zoned = in_local_zone(path, Columns({}, times, stream_column, layout=layout))
    times, split = zoned.times, zoned.recording
    drifting = {name: levels for name, column in values.items() if (levels := _drift(column, split))}
    return Survey(
        rows=len(recording),
        times=None if found.times is None else times,
        stream_column=stream_column,
        streams=len(split.streams),
        numbers=[name for name in numbers if name not in constants and name != stream_column],
        constants=[name for name in constants if name != stream_column],
        texts={name: few for name, few in texts.items() if name != stream_column},
        whole={name: few for name, few in whole.items() if name != stream_column},
        interval_s=None if found.times is None else _usual_interval_s(split),
        days=0.0 if found.times is None else float(split.times.max() - split.times.min()) / _DAY_S,
        words=words,
        header=list(header),
        others=[name for name in others if name not in texts and name != stream_column],
        drifting={name: levels for name, levels in drifting.items() if name not in whole and name != stream_column},
        notes=list(dict.fromkeys([*found.notes, *together.notes, *zoned.notes])),
    )


def _refuse_without_header(table: Table) -> None:
    if without_header(table):
        raise EdgeLstmError(
            f"{table.source}: expected a header row, found readings in it: {', '.join(table.header[:3])}, ...",
            f"name its {len(table.header)} columns: --header time,pump,level (or by header = [...] in a recipe)",
        )


def _usual_interval_s(recording: Recording) -> float | None:
    """The median time between rows of a stream, in seconds; None without two rows of different times."""
    gaps = [np.diff(recording.times[recording.stream_of == stream]) for stream in range(len(recording.streams))]
    steps = np.concatenate(gaps)
    steps = steps[steps > 0]
    return float(np.median(steps)) if steps.size else None


def _drift(values: Doubles, recording: Recording) -> tuple[float, float] | None:
    """The mean level of all streams before and after three fifths of the rows, if the levels drift, else None.

    They drift if, in the mean over the streams, a stream's own level moves by half of its standard deviation before.
    """
    late = recording.times >= np.quantile(recording.times, _EARLY)
    known = ~np.isnan(values)
    found = []
    for stream in range(len(recording.streams)):
        own = known & (recording.stream_of == stream)
        before, after = values[own & ~late], values[own & late]
        if len(before) >= _FEWEST and len(after) >= _FEWEST:
            found.append((before.mean(), after.mean(), before.var()))
    if not found:
        return None
    first, last, variance = np.array(found).T
    moved = ((last - first) ** 2).mean() > _DRIFT**2 * variance.mean()
    return (float(first.mean()), float(last.mean())) if moved else None


def _few_texts(path: str | Path | Sequence[str | Path], column: str, layout: Layout) -> list[str]:
    """The different texts of a column, sorted; empty if there are too many, or if they hardly repeat."""
    found: set[str] = set()
    rows = 0
    for texts in _column(path, column, layout):
        rows += len(texts)
        found.update(texts)
        if len(found) > _MOST_TEXTS + 1:
            return []
    found = {text for text in found if not math.isnan(WORD_VALUES.get(text.lower(), 0.0))}
    return sorted(found) if 2 <= len(found) <= min(_MOST_TEXTS, rows / 5) else []


def _column(path: str | Path | Sequence[str | Path], column: str, layout: Layout) -> Iterator[list[str]]:
    for file in recording_files(path):
        table = open_table(file, layout)
        at = column_index(table, column)
        for block in table.blocks([at]):
            yield texts_of(block.cells[at])


def _whole_numbers(values: Doubles) -> list[str]:
    found = np.unique(values[~np.isnan(values)])
    few = 2 <= len(found) <= min(_MOST_TEXTS, len(values) / 5) and not (found % 1).any()
    return [f"{number:.0f}" for number in found] if few else []


def _stream_candidates(values: dict[str, Doubles]) -> list[str]:
    """Columns of whole numbers that may name streams."""
    return [
        name
        for name, column in values.items()
        if not np.isnan(column).any() and not (column % 1).any() and 2 <= len(np.unique(column)) <= _MOST_STREAMS
    ]


def _is_changing(values: Doubles) -> bool:
    known = values[~np.isnan(values)]
    return bool(known.size) and bool((known != known[0]).any())


def _stream_column(
    path: str | Path | Sequence[str | Path], times: Doubles, candidates: Sequence[str], layout: Layout
) -> str | None:
    """The column whose values split the rows into streams of ascending times; None if all rows are ascending already.

    Of several such columns, the one with the fewest streams.
    """
    if (np.diff(times) > 0).all():
        return None
    best: tuple[int, str] | None = None
    for name in candidates:
        texts = np.concatenate([np.array(part) for part in _column(path, name, layout)])
        _, stream_of = np.unique(texts, return_inverse=True)
        count = int(stream_of.max()) + 1
        order = np.argsort(stream_of, kind="stable")
        same = np.diff(stream_of[order]) == 0
        if (np.diff(times[order])[same] > 0).all() and (best is None or count < best[0]):
            best = count, name
    return None if best is None else best[1]
