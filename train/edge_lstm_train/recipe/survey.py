"""A survey of an unknown recording: its format, and what each column holds.

It reports only what the data confirm.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edge_lstm.foundation.arrays import Doubles
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.numbers import NUMBER_WORDS, WORD_VALUES
from edge_lstm.foundation.times.text import format_time
from edge_lstm.recordings.column_contents import column_texts
from edge_lstm.recordings.columns import NumberWords, TimeColumns, ValueColumn
from edge_lstm.recordings.dialect import dialect
from edge_lstm.recordings.local_zone import in_local_zone
from edge_lstm.recordings.long_search import Joining, found_joining, long_layout
from edge_lstm.recordings.number_cells import cell_unit, plain_number
from edge_lstm.recordings.pace import median_interval_s
from edge_lstm.recordings.recording import Columns, Recording, read_recording, value_columns
from edge_lstm.recordings.same_times import with_same_times
from edge_lstm.recordings.tables.home_assistant import entities, usual_entities, usual_interval_s
from edge_lstm.recordings.tables.name_pattern import STREAM, likely_pattern
from edge_lstm.recordings.tables.table import (
    Layout,
    Table,
    column_index,
    is_database,
    open_table,
    recording_files,
    without_header,
)
from edge_lstm_train.recipe.around import found_around
from edge_lstm_train.recipe.column_kinds import ColumnKinds, column_kinds
from edge_lstm_train.recipe.stream_search import MOST_STREAMS, streams_by

_MOST_TEXTS = 30  # different ones that may be classes or categories
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
    kinds: ColumnKinds = field(default_factory=ColumnKinds)  # angles, counters and row numbers
    takes: list[str] = field(default_factory=list)  # of `texts`: columns whose texts name a stretch of rows each
    notes: Sequence[str] = ()  # what a user has to know or to check about the times and the layout
    doubtful: Sequence[str] = ()  # of the notes, those about columns of numbers and other texts
    layout: Layout = field(default_factory=Layout)  # what was found around the table
    units: dict[str, str] = field(default_factory=dict)  # of columns, where the file has them
    joining: Joining = field(default_factory=Joining)  # in files of one row a value


def survey(
    path: str | Path | Sequence[str | Path],
    stream_column: str | None = None,
    header: Sequence[str] = (),
    decimal_comma: bool | None = None,
    asked: TimeColumns | None = None,
    layout: Layout | None = None,
    missing: Sequence[str] = (),
    wanted: Sequence[str] = (),
) -> Survey:
    """Survey a recording; `header` and `decimal_comma` override what is found, and so does what `asked` says of times.

    `layout` and `missing` say what cannot be found. `wanted`: columns that are surveyed in any case.

    Raises EdgeLstmError if the file cannot be read as a recording.
    """
    layout = replace(layout or Layout(), header=header)
    files = recording_files(path)
    _refuse_without_header(open_table(files[0], layout.of_file))
    found = dialect(path, asked, layout, guess=True, missing=missing)
    words = found.words if decimal_comma is None else NumberWords(decimal_comma, missing)
    times = found.times or TimeColumns(interval_s=1.0)
    layout, long_notes = long_layout(path, layout, stream_column)
    recorded = entities(files[0]) if is_database(files[0]) else []
    if recorded:
        long_notes = ["the states of Home Assistant, and before the first state of an entity its hourly statistics"]
    if layout.name_pattern is not None and STREAM in layout.name_pattern:
        stream_column = STREAM
    table = open_table(files[0], layout)
    if stream_column is not None:
        column_index(table, stream_column)
    columns = Columns({}, times, stream_column, layout=layout, words=words)
    found_columns = value_columns(path, replace(columns, stream_column=None))
    found_columns.pop(STREAM, None)
    if recorded:  # a house has hundreds
        chosen = {*usual_entities(recorded), *wanted}
        found_columns = {name: kind for name, kind in found_columns.items() if name in chosen}
    different = _different_texts(path, [name for name, kind in found_columns.items() if kind.text], layout)
    text_names = [name for name, kind in found_columns.items() if kind.text]
    doubtful = _mostly_numbers(files[0], text_names, layout, words)
    few = {name: texts for name, (texts, _) in different.items() if len(texts) <= _MOST_TEXTS and name not in doubtful}
    own = {name: kind for name, kind in found_columns.items() if not kind.text}
    if stream_column is None and found.times is not None and len(files) == 1:
        stream_column = _found_stream_column(path, replace(columns, values=own), list(different))
    columns = replace(columns, values=own, stream_column=stream_column)
    joining = Joining()
    if layout.name_column is not None:
        joining = found_joining(read_recording(path, columns))
        if recorded:
            joining = Joining(grid_s=usual_interval_s([one for one in recorded if one.name in own]))
        columns = replace(columns, join_within_s=joining.within_s)
    zoned = in_local_zone(path, columns)
    times, recording = zoned.times, zoned.recording
    _refuse_one_time(recording, times)
    values = dict(zip(own, recording.values.T, strict=True))
    whole = {name: texts for name, column in values.items() if (texts := _whole_numbers(column))}
    early = recording.times < np.quantile(recording.times, _EARLY)
    constants = [name for name, column in values.items() if not _is_changing(column[early])]
    drifting = {name: levels for name, column in values.items() if (levels := _drift(column, recording))}
    units = {**table.units, **{name: kind.unit for name, kind in found_columns.items() if kind.unit}}
    kinds = column_kinds(
        {name: values[name] for name in values if name != stream_column}, recording.times, recording.stream_of, units
    )
    plain = [name for name in own if name not in kinds.row_numbers and name != stream_column]
    if stream_column is None and (pattern := likely_pattern(list(own))) is not None:
        long_notes = [f'if the columns name devices, like "{next(iter(own))}", add --name-pattern "{pattern}"']
    around, around_notes = found_around(table, layout) if len(files) == 1 else (layout, [])
    return Survey(
        rows=len(recording),
        times=None if found.times is None else times,
        stream_column=stream_column,
        streams=len(recording.streams),
        numbers=[name for name in plain if name not in constants],
        constants=[name for name in plain if name in constants],
        texts={name: texts for name, texts in few.items() if name != stream_column},
        whole={name: texts for name, texts in whole.items() if name in plain and name not in kinds.circles},
        interval_s=None if found.times is None else joining.grid_s or median_interval_s(recording),
        days=0.0 if found.times is None else float(recording.times.max() - recording.times.min()) / _DAY_S,
        words=words,
        header=list(around.header),
        others=[
            name for name, kind in found_columns.items() if kind.text and name not in few and name != stream_column
        ],
        drifting={name: levels for name, levels in drifting.items() if name in plain and name not in whole},
        notes=[
            *around_notes,
            *long_notes,
            *found.notes,
            *zoned.notes,
            *with_same_times(recording, False).notes,
            *doubtful.values(),
        ],
        doubtful=list(doubtful.values()),
        layout=around,
        units=units,
        joining=joining,
        kinds=kinds,
        takes=_names_of_takes(path, [name for name in few if name != stream_column], layout),
    )


def _refuse_without_header(table: Table) -> None:
    if without_header(table):
        raise EdgeLstmError(
            f"{table.source}: expected a header row, found readings in it: {', '.join(table.header[:3])}, ...",
            f"name its {len(table.header)} columns: --header time,pump,level (or by header = [...] in a recipe)",
        )


def _refuse_one_time(recording: Recording, times: TimeColumns) -> None:
    """Raises EdgeLstmError if all rows of a file have the same time: another column holds the times."""
    if times.interval_s is None and len(recording) > _FEWEST and not np.ptp(recording.times):
        raise EdgeLstmError(
            f"{recording.source}: expected different times in {' and '.join(times.columns)}, found "
            f"{format_time(float(recording.times[0]))} in all {len(recording)} rows",
            "name the column of times (--time COLUMN; twice for date and time of day), and its --time-format",
        )


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


def _mostly_numbers(file: Path, columns: Sequence[str], layout: Layout, words: NumberWords) -> dict[str, str]:
    """Notes by column of texts that hold numbers in most rows: other texts may mean a missing value."""
    table = open_table(file, layout)
    numbers: Counter[str] = Counter()
    others: dict[str, Counter[str]] = {name: Counter() for name in columns}
    units: dict[str, Counter[str]] = {name: Counter() for name in columns}
    for name, texts in column_texts(table, [name for name in columns if name in table.header]):
        for text in texts:
            unit = cell_unit(text)
            if plain_number(text, unit, words.decimal_comma, words.thousands) is not None:
                numbers[name] += 1
                units[name][unit] += 1
            elif text.lower() not in NUMBER_WORDS and len(others[name]) <= _MOST_TEXTS:
                others[name][text] += 1
    notes = {}
    for name, found in others.items():
        if len(units[name]) > 1 and numbers[name] > sum(found.values()):
            both = " and ".join(f'"{unit}"' if unit else "no unit" for unit, _ in units[name].most_common(2))
            notes[name] = f'"{name}" holds numbers of several units, {both}: convert them to one'
        elif found and numbers[name] > sum(found.values()):
            words_found = ", ".join(f'"{text}"' for text, _ in found.most_common(3))
            option = " ".join(f'--missing "{text}"' for text in list(found)[:3])
            notes[name] = f'"{name}" holds numbers, but also {words_found}: if these mean a missing value, add {option}'
    return notes


def _different_texts(
    path: str | Path | Sequence[str | Path], columns: Sequence[str], layout: Layout
) -> dict[str, tuple[list[str], int]]:
    """The different texts of each column, sorted, and its rows; without columns of more texts than streams may be."""
    found: dict[str, set[str]] = {name: set() for name in columns}
    rows: Counter[str] = Counter()
    for file in recording_files(path) if columns else []:
        table = open_table(file, layout)
        for name, texts in column_texts(table, [name for name in found if name in table.header]):
            if name in found:
                rows[name] += len(texts)
                found[name].update(texts)
                if len(found[name]) > MOST_STREAMS + 1:
                    del found[name]
    known = {name: {text for text in texts if not _is_missing(text)} for name, texts in found.items()}
    return {name: (sorted(texts), rows[name]) for name, texts in known.items() if 2 <= len(texts) <= rows[name] / 5}


def _names_of_takes(path: str | Path | Sequence[str | Path], columns: Sequence[str], layout: Layout) -> list[str]:
    """The columns of at least three texts, each in one stretch of rows alone: names of recordings, or of experiments.

    No device measures these: it meets new ones.
    """
    stretches: Counter[str] = Counter()
    last: dict[str, str] = {}
    known: dict[str, set[str]] = {name: set() for name in columns}
    for file in recording_files(path) if columns else []:
        table = open_table(file, layout)
        for name, texts in column_texts(table, [name for name in columns if name in table.header]):
            for text in texts:
                if text != last.get(name):
                    stretches[name] += 1
                    last[name] = text
            known[name].update(texts)
    return [name for name in columns if 3 <= len(known[name]) == stretches[name]]


def _is_missing(text: str) -> bool:
    return math.isnan(WORD_VALUES.get(text.lower(), 0.0))


def _whole_numbers(values: Doubles) -> list[str]:
    found = np.unique(values[~np.isnan(values)])
    known = int((~np.isnan(values)).sum())
    few = 2 <= len(found) <= min(_MOST_TEXTS, known / 5) and not (found % 1).any()
    return [f"{number:.0f}" for number in found] if few else []


def _is_changing(values: Doubles) -> bool:
    known = values[~np.isnan(values)]
    return bool(known.size) and bool((known != known[0]).any())


def _found_stream_column(path: str | Path | Sequence[str | Path], columns: Columns, texts: Sequence[str]) -> str | None:
    """The column that names the streams, if one is needed so that the times of each stream rise."""
    layout = columns.layout
    plain = replace(columns, stream="all", check_clocks=False, layout=layout.of_file)
    series = np.zeros(0, np.int64)
    if layout.name_column is None:
        labels = {name: ValueColumn(name, text=True) for name in texts}
        recording = read_recording(path, replace(plain, layout=layout, labels=labels))
        candidates = dict(zip(recording.features, recording.values.T, strict=True)) | dict(recording.labels)
    else:
        table = open_table(recording_files(path)[0], layout.of_file)
        time = columns.time.columns if isinstance(columns.time, TimeColumns) else []
        others = [name for name in table.header if name and name not in time and name != layout.value_column]
        labels = {name: ValueColumn(name, text=True) for name in others}
        recording = read_recording(path, replace(plain, values={}, labels=labels))
        candidates = {name: values for name, values in recording.labels.items() if name != layout.name_column}
        series = np.nan_to_num(recording.labels[layout.name_column], nan=-1).astype(np.int64)
    return streams_by(recording.times, candidates, series)
