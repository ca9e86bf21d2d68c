"""Rows of one stream with the same time but other values: a grid takes them all, a sample takes the first."""

from __future__ import annotations

import dataclasses

import numpy as np

from edge_lstm.foundation.arrays import Flags, Integers
from edge_lstm.recordings.recording import Recording, row_place


def with_same_times(recording: Recording, grid: bool) -> Recording:
    """The recording with a note on such rows. On a grid, the later ones come some digits of a float64 later.

    So that an interval aggregates all of them: a device recognizes readings that were sent twice by their times. Rows
    that repeat the row before them stay as they are.
    """
    order, same = _same_times(recording)
    rows = order[same]
    if not len(rows):
        return recording
    first = int(rows.min())
    file, place = row_place(recording, first)
    found = f"{file}, row {place}: {len(rows):,} rows have the time of the row before them in their stream"
    if not grid:
        note = (
            f"{found}, but other values; only the first row of a time is used. To use all: grid = true with interval_s "
            "under [sampling], which aggregates them; if they are several streams: name their column (stream_column "
            "under [recording])"
        )
        return dataclasses.replace(recording, notes=[*recording.notes, note])
    times = recording.times.copy()
    times[order] += _places_in_runs(recording, order, same) * np.spacing(recording.times[order])
    note = (
        f"{found}: the grid aggregates them; on a device, such readings need a sequence of their own (mapping), since "
        "a reading of the same time is taken as sent twice"
    )
    return dataclasses.replace(recording, times=times, notes=[*recording.notes, note])


def _same_times(recording: Recording) -> tuple[Integers, Flags]:
    """The rows stream by stream, and (rows,) whether each of them has the time of the one before, and other values."""
    if (np.diff(recording.stream_of) >= 0).all():
        order = np.arange(len(recording))
    else:
        order = np.argsort(recording.stream_of, kind="stable")
    same = np.zeros(len(order), bool)
    same[1:] = np.diff(recording.times[order]) == 0
    same[1:] &= np.diff(recording.stream_of[order]) == 0
    at = np.flatnonzero(same)
    here, before = recording.values[order[at]], recording.values[order[at - 1]]
    same[at] = ~((here == before) | (np.isnan(here) & np.isnan(before))).all(axis=1)
    return order, same


def _places_in_runs(recording: Recording, order: Integers, same: Flags) -> Integers:
    """(rows,): how many rows of the same stream and time, with other values, come before each row of `order`."""
    count = np.cumsum(same)
    begins = np.ones(len(order), bool)
    begins[1:] = (np.diff(recording.times[order]) != 0) | (np.diff(recording.stream_of[order]) != 0)
    start = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
    places: Integers = count - count[start]
    return places
