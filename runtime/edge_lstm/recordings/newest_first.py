"""Files whose newest rows come first, as exports of web pages do: they are read from the last row to the first."""

from __future__ import annotations

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Integers

_MOST_RISING = 0.02  # share of the steps that may rise, as where clocks are set back
_FEWEST = 8  # steps


def oldest_first(times: Doubles, stream_of: Integers, file_of: Integers) -> Integers | None:
    """The order of the rows, oldest first; None where no file has its newest rows first. All arrays are (rows,).

    Streams may alternate: the rows of a whole file are turned around, if the times of its streams fall nearly always.
    """
    if not np.isfinite(times).all() or len(times) <= _FEWEST or (np.diff(times) >= 0).mean() > 0.95:
        return None
    order = np.arange(len(times))
    turned = False
    for file in np.unique(file_of).tolist():
        (rows,) = np.nonzero(file_of == file)
        by_stream = rows[np.argsort(stream_of[rows], kind="stable")]
        steps = np.diff(times[by_stream])[np.diff(stream_of[by_stream]) == 0]
        falls, rises = np.count_nonzero(steps < 0), np.count_nonzero(steps > 0)
        if falls >= _FEWEST and rises <= _MOST_RISING * falls:
            order[rows] = rows[::-1]
            turned = True
    return order if turned else None
