"""Finds rows whose clock was wrong: 2036 among rows of 2024, or 1970 before the clock of a device was set.

Rows that are only late are no such rows: a device drops them too.
"""

from __future__ import annotations

import bisect
import time

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Flags, Integers

_YEAR_S = 365 * 86_400.0
_DAY_S = 86_400.0
_CLOCK_SET_AFTER = 978_307_200.0  # 2001: an unset clock begins in 1970, 1980 or 2000
_RESCUED = 3  # later rows that one wrong row would make late
_FEW = 0.02  # share of a stream's rows
_FEWEST = 20  # rows that are few in any stream
_FAR = 10.0  # times the span of all other rows


def wrong_clocks(times: Doubles, stream_of: Integers) -> Flags:
    """(rows,): whether the time of a row cannot be right; the rows of each stream are in the order of the files."""
    wrong = np.zeros(len(times), bool)
    order = np.argsort(stream_of, kind="stable") if stream_of.any() else np.arange(len(times))
    begins = np.flatnonzero(np.diff(stream_of[order], prepend=-1))
    now = time.time()
    for rows in np.split(order, begins[1:]):
        if len(rows) < 3:
            continue
        own = times[rows]
        far = _far_from_others(own, now)
        wrong[rows[far]] = True
        kept = rows[~far]
        wrong[kept[_contradicted(times[kept])]] = True
    return wrong


def _far_from_others(times: Doubles, now: float) -> Flags:
    """Rows that a gap of years separates from most others, and that are before 2000, after today, or very few."""
    far = np.zeros(len(times), bool)
    if np.ptp(times) <= _YEAR_S:
        return far
    ordered = np.sort(times)
    for cut in np.flatnonzero(np.diff(ordered) > _YEAR_S).tolist():
        early = cut + 1 < len(ordered) - cut - 1
        others, some = (ordered[cut + 1 :], ordered[: cut + 1]) if early else (ordered[: cut + 1], ordered[cut + 1 :])
        if 2 * len(some) >= len(ordered):
            continue
        middle = float(np.median(others))
        unset = early and some[-1] < _CLOCK_SET_AFTER < middle
        future = not early and some[0] > now + _DAY_S > middle
        few = len(some) <= max(3, 0.01 * len(ordered)) and len(others) > 3
        gap = ordered[cut + 1] - ordered[cut]
        if unset or future or (few and gap > _FAR * max(float(np.ptp(others)), _DAY_S)):
            far |= times <= ordered[cut] if early else times > ordered[cut]
    return far


def _contradicted(times: Doubles) -> Flags:
    """A few rows ahead of all rows around them: a device that takes them drops many more rows after them as late."""
    wrong = np.zeros(len(times), bool)
    if (times >= np.maximum.accumulate(times)).all():
        return wrong
    rising = _longest_rising(times)
    bounds = [-1, *rising.tolist()]
    for before, after, at in zip(bounds, bounds[1:], range(len(rising)), strict=False):
        between = np.arange(before + 1, after)
        ahead = between[times[between] > times[after]]
        if ahead.size:
            rescued = np.searchsorted(times[rising[at:]], times[ahead].min())
            wrong[ahead] = rescued >= _RESCUED * ahead.size
    return wrong if wrong.sum() <= max(_FEWEST, _FEW * len(times)) else np.zeros(len(times), bool)


def _longest_rising(times: Doubles) -> Integers:
    """The indices of a longest sequence of rows whose times never fall.

    It has every row that is not before any row above it and not after any row below it. So only what lies between such
    rows is searched, which is little of a long recording.
    """
    cuts = np.flatnonzero(np.maximum.accumulate(times)[:-1] <= np.minimum.accumulate(times[::-1])[::-1][1:]) + 1
    begins, ends = np.concatenate([[0], cuts]), np.concatenate([cuts, [len(times)]])
    found = [begins[ends - begins == 1]]
    for run in np.flatnonzero(ends - begins > 1).tolist():
        found.append(begins[run] + _rising_between(times[begins[run] : ends[run]]))
    return np.sort(np.concatenate(found))


def _rising_between(times: Doubles) -> Integers:
    """`_longest_rising` of few rows."""
    ends: list[float] = []  # by length: the smallest last time of such a sequence
    rows: list[int] = []  # by length: the row of that time
    former = []  # by row: the row before it in its sequence
    for row, moment in enumerate(times.tolist()):
        length = bisect.bisect_right(ends, moment)
        former.append(rows[length - 1] if length else -1)
        if length == len(ends):
            ends.append(moment)
            rows.append(row)
        else:
            ends[length], rows[length] = moment, row
    chain = []
    row = rows[-1]
    while row >= 0:
        chain.append(row)
        row = former[row]
    return np.array(chain[::-1])
