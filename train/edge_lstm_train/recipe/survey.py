"""A survey of a recording that nobody described yet: how it is written, and which columns hold what.

It guesses only what it can check in the data, and says nothing of the rest.
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
from edge_lstm.recordings.recording import Columns, Recording, numeric_columns, read_recording
from edge_lstm.recordings.tables import Layout, column_index, open_table, recording_files, without_header

_MOST_TEXTS = 30  # different ones that may be classes or categories
_MOST_STREAMS = 1000
_DAY_S = 86_400.0
_EARLY = 0.6  # of the rows, by time: what a split by time trains on
_FEWEST = 20  # values on either side, for a level to be told
_DRIFT = 0.5  # standard deviations


@dataclass(frozen=True)
class Survey:
    """What was found."""

    rows: int
    times: TimeColumns | None  # None: no column of times
    stream_column: str | None
    streams: int
    numbers: list[str]  # columns whose numbers change in what is trained on: the first three fifths of the rows
    constants: list[str]  # columns whose numbers do not
    texts: dict[str, list[str]] = field(default_factory=dict)  # columns of few different texts, with them
    whole: dict[str, list[str]] = field(default_factory=dict)  # columns of few different whole numbers, as texts
    interval_s: float | None = None  # the usual time between a stream's rows
    days: float = 0.0  # from the first row to the last
    words: NumberWords = field(default_factory=NumberWords)
    header: Sequence[str] = ()  # the columns' names, where its first row holds none
    others: list[str] = field(default_factory=list)  # columns of none of these
    drifting: dict[str, tuple[float, float]] = field(default_factory=dict)  # numbers: their level at first, in the end


def survey(
    path: str | Path | Sequence[str | Path],
    stream_column: str | None = None,
    header: Sequence[str] = (),
    decimal_comma: bool | None = None,
) -> Survey:
    """What a recording holds; `header` and `decimal_comma` where that is known.

    Raises EdgeLstmError where it cannot be read as one.
    """
    layout = Layout(header=header)
    table = open_table(recording_files(path)[0], layout)
    if without_header(table):
        raise EdgeLstmError(
            f"{table.source}: expected a header row, found readings in it: {', '.join(table.header[:3])}, ...",
            f"name its {len(table.header)} columns: --header time,pump,level (or by header = [...] in a recipe)",
        )
    written = dialect(path, None, layout)
    words, times = written.words, written.times or TimeColumns(interval_s=1.0)
    if decimal_comma is not None:
        words = NumberWords(decimal_comma)
    if stream_column is not None:
        column_index(table, stream_column)
    columns = Columns({}, times, words=words, layout=layout)
    numbers = [name for name in numeric_columns(path, columns) if table.header.count(name) == 1]
    others = [name for name in table.header if name and name not in numbers and name not in times.columns]
    texts = {name: found for name in others if (found := _texts(path, name, layout))}
    whole_of = {name: name for name in numbers}
    recording = read_recording(path, Columns(whole_of, times, stream="all", words=words, layout=layout))
    values = dict(zip(numbers, recording.values.T, strict=True))
    whole = {name: found for name, column in values.items() if (found := _whole(column))}
    if stream_column is None and written.times is not None and len(recording_files(path)) == 1:
        stream_column = _stream_column(path, recording.times, [*texts, *_identities(values)], layout)
    early = recording.times < np.quantile(recording.times, _EARLY)
    constants = [name for name, column in values.items() if not _changes(column[early])]
    split = read_recording(path, Columns({}, times, stream_column, layout=layout))
    gaps = np.concatenate([np.diff(split.times[split.stream_of == one]) for one in range(len(split.streams))])
    steps = gaps[gaps > 0]
    drifting = {name: levels for name, column in values.items() if (levels := _drift(column, split))}
    return Survey(
        len(recording),
        written.times,
        stream_column,
        len(split.streams),
        [name for name in numbers if name not in constants and name != stream_column],
        [name for name in constants if name != stream_column],
        {name: found for name, found in texts.items() if name != stream_column},
        {name: found for name, found in whole.items() if name != stream_column},
        float(np.median(steps)) if steps.size and written.times is not None else None,
        float(split.times.max() - split.times.min()) / _DAY_S if written.times is not None else 0.0,
        words,
        list(header),
        [name for name in others if name not in texts and name != stream_column],
        {name: found for name, found in drifting.items() if name not in whole and name != stream_column},
    )


def _drift(values: Doubles, recording: Recording) -> tuple[float, float] | None:
    """The mean level (of all streams) before and after three fifths of the rows, where the streams' own part company.

    That is where they differ by half of what a stream varies by before; a stream's level is compared with its own.
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


def _texts(path: str | Path | Sequence[str | Path], column: str, layout: Layout) -> list[str]:
    """The different texts of a column, sorted; none where they are too many, or hardly ever the same."""
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


def _whole(values: Doubles) -> list[str]:
    found = np.unique(values[~np.isnan(values)])
    few = 2 <= len(found) <= min(_MOST_TEXTS, len(values) / 5) and not (found % 1).any()
    return [f"{number:.0f}" for number in found] if few else []


def _identities(values: dict[str, Doubles]) -> list[str]:
    """Columns of whole numbers that may name streams."""
    return [
        name
        for name, column in values.items()
        if not np.isnan(column).any() and not (column % 1).any() and 2 <= len(np.unique(column)) <= _MOST_STREAMS
    ]


def _changes(values: Doubles) -> bool:
    known = values[~np.isnan(values)]
    return bool(known.size) and bool((known != known[0]).any())


def _stream_column(
    path: str | Path | Sequence[str | Path], times: Doubles, candidates: Sequence[str], layout: Layout
) -> str | None:
    """The column whose values part rows into streams of ever later times, where all rows together are none.

    Of several the one with the fewest streams.
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
