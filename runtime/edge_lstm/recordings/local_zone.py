"""Reads a recording whose times name no zone in the zone that its own clock changes show."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timezone
from pathlib import Path

from edge_lstm.foundation.times.text import format_time, local_time_parser
from edge_lstm.foundation.times.units import AHEAD_S, YEAR_2000
from edge_lstm.foundation.times.zones import zone_named
from edge_lstm.recordings.columns import TimeColumns, texts_of
from edge_lstm.recordings.recording import Columns, Recording, read_recording, time_columns
from edge_lstm.recordings.tables.table import Layout, open_table, recording_files
from edge_lstm.recordings.times.zone_search import fitting_zones

_MOST_NAMES = 5


@dataclass(frozen=True)
class ZonedRecording:
    """A recording, the format of its times with their zone, and what a user has to know about it."""

    recording: Recording
    times: TimeColumns
    notes: Sequence[str] = ()
    choices: Sequence[str] = ()  # zones that its times fit alike: a user has to choose


def in_local_zone(path: str | Path | Sequence[str | Path], columns: Columns) -> ZonedRecording:
    """The recording. If no zone is set, and local times show one by its clock changes, they are read in that zone."""
    read = read_recording(path, columns)
    found = _in_shown_zone(path, columns, read)
    latest = float(found.recording.times.max()) if len(read) else 0.0
    if found.times.interval_s is None and YEAR_2000 < time.time() < latest - AHEAD_S:
        note = f"the last time, {format_time(latest)}, lies after now: check the format and the zone of the times"
        return replace(found, notes=[*found.notes, note])
    return found


def _in_shown_zone(path: str | Path | Sequence[str | Path], columns: Columns, read: Recording) -> ZonedRecording:
    times = (
        columns.time if isinstance(columns.time, TimeColumns) else TimeColumns([columns.time] if columns.time else [])
    )
    if times.zone is not timezone.utc or times.interval_s is not None or not _are_local(path, columns.layout, times):
        return ZonedRecording(read, times)
    fitting = fitting_zones(read.times, read.stream_of)
    if fitting is None:
        return ZonedRecording(read, times)
    some = ", ".join(fitting.names[:_MOST_NAMES])
    if fitting.name is None:
        note = f"the times are local: {fitting.reason}; set timezone to the right one of {some}, ... (--timezone)"
        return ZonedRecording(read, times, [note], fitting.names)
    zoned = replace(times, zone=zone_named(fitting.name))
    note = f"the times are read in the zone {fitting.name}, since {fitting.reason}"
    if len(fitting.names) > 1:
        note += f" ({', '.join(name for name in fitting.names if name != fitting.name)} would fit, too)"
    return ZonedRecording(read_recording(path, replace(columns, time=zoned)), zoned, [note])


def _are_local(path: str | Path | Sequence[str | Path], layout: Layout, times: TimeColumns) -> bool:
    """Whether the first time names no zone."""
    table = open_table(recording_files(path)[0], layout)
    at = time_columns(table, times)
    block = next(iter(table.blocks(at, 1)))
    cell = " ".join(texts_of(block.cells[column])[0] for column in at)
    with contextlib.suppress(ValueError):
        return local_time_parser(times.format, times.unit, times.zone, times.start)(cell) is not None
    return False
