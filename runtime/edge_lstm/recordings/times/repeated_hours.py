"""Distinguishes the two occurrences of an hour by the order of a stream's rows, when clocks were set back."""

from __future__ import annotations

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Integers


def settled(times: Doubles, stream_of: Integers, rows: Integers, shifts: Doubles) -> Doubles:
    """(rows,): times in which the rows of a second occurrence are later.

    `rows` are those whose local time occurs twice, in ascending order; `times` holds the first occurrence, and `shifts`
    by how many seconds the second is later. In a stream, the rows of the first occurrence come before those of the
    second: the place between them is where the steps become most regular.
    """
    if not len(rows):
        return times
    times = times.copy()
    for stream in np.unique(stream_of[rows]).tolist():
        own = np.flatnonzero(stream_of == stream)
        chosen = stream_of[rows] == stream
        _settle_stream(times, own, np.searchsorted(own, rows[chosen]), shifts[chosen])
    return times


def _settle_stream(times: Doubles, own: Integers, places: Integers, shifts: Doubles) -> None:
    """`own`: the rows of one stream; `places`: those of them whose time occurs twice."""
    steps = np.diff(times[own])
    usual_s = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    breaks = (np.diff(places) > 1) | (np.abs(np.diff(times[own[places]])) > 86_400.0)
    for chosen in np.split(np.arange(len(places)), np.flatnonzero(breaks) + 1):
        run, shift = places[chosen], float(shifts[chosen[0]])
        before, after = run[0] - 1, run[-1] + 1
        around = np.full(len(run) + 2, np.nan)  # a neighbour that there is not costs nothing
        around[1:-1] = times[own[run]]
        if before >= 0:
            around[0] = times[own[before]]
        if after < len(own):
            around[-1] = times[own[after]]
        times[own[run[_split(around, shift, usual_s) :]]] += shift


def _split(around: Doubles, shift: float, usual_s: float) -> int:
    """The first row of the second occurrence, as a place in the run; the length of the run if there is none."""
    steps = np.diff(around)
    later = _cost(steps[:-1] + shift, usual_s) - _cost(steps[:-1], usual_s)
    back = float(_cost(steps[-1:] - shift, usual_s)[0] - _cost(steps[-1:], usual_s)[0])
    best = int(np.argmin(later))
    return best if later[best] + back < -1e-9 else len(later)


def _cost(steps: Doubles, usual_s: float) -> Doubles:
    """How irregular steps are: a long gap costs little more than a short one, so that two are not better than one."""
    costs: Doubles = np.log1p(np.abs(steps - usual_s) / max(usual_s, 1e-9))
    return np.where(np.isnan(costs), 0.0, costs)
