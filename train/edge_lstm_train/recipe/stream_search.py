"""Finds the column that names the streams: the one that splits the rows so that the times of each stream rise.

A few rows may be repeated or late, and a clock may have been set: most rows decide.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Integers

MOST_STREAMS = 1000
_MOST_WRONG = 0.01  # share of the rows that may be late or repeated within their stream
_EXPLAINED = 0.5  # share of the rows that are late or repeated without streams, and not with them


def streams_by(times: Doubles, candidates: Mapping[str, Doubles], series: Integers) -> str | None:
    """The column that names the streams; None if the rows need none, or no column fits.

    `candidates`: by column, (rows,) whole numbers for its texts; NaN is no text. `series`: (rows,) what else splits the
    rows, as the names of values; empty: nothing. Of several columns that fit, it is the one with the fewest streams.
    """
    series = series if len(series) else np.zeros(len(times), np.int64)
    back, equal = _disorder(times, series)
    if not back and not equal:
        return None
    most = _MOST_WRONG * len(times)
    best: tuple[int, str] | None = None
    for name, values in candidates.items():
        if np.isnan(values).any() or (values % 1).any():
            continue
        found, stream_of = np.unique(values, return_inverse=True)
        if not 2 <= len(found) <= MOST_STREAMS:
            continue
        own_back, own_equal = _disorder(times, series * len(found) + stream_of)
        if back + equal > most:
            fits = own_back + own_equal <= min(most, _EXPLAINED * (back + equal))
        else:  # one stream after the other: the times go back where a stream begins
            borders = int((np.diff(values) != 0).sum())
            fits = borders == len(found) - 1 and back - own_back >= max(1, _EXPLAINED * borders)
        if fits and (best is None or len(found) < best[0]):
            best = len(found), name
    return None if best is None else best[1]


def _disorder(times: Doubles, stream_of: Integers) -> tuple[int, int]:
    """The number of rows that are older than the row before them in their stream, and of those of the same time."""
    order = np.argsort(stream_of, kind="stable")
    steps = np.diff(times[order])[np.diff(stream_of[order]) == 0]
    return int((steps < 0).sum()), int((steps == 0).sum())
