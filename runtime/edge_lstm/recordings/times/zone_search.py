"""Finds the time zones that local times fit: an hour occurs twice in autumn, and one is missing in spring."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm.foundation.times.text import format_time
from edge_lstm.foundation.times.zones import Change, changes

_HOUR_S = 3600.0
_USUAL_NAMES = (  # one of each rule, for the suggestion
    *("Europe/Berlin", "Europe/London", "Europe/Helsinki", "Europe/Lisbon", "Europe/Moscow", "Asia/Jerusalem"),
    *("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles", "America/Halifax"),
    *("America/Sao_Paulo", "America/Santiago", "Australia/Sydney", "Australia/Adelaide", "Pacific/Auckland"),
)


@dataclass(frozen=True)
class FittingZones:
    """Zones whose changes of the clock the times of a recording show."""

    names: Sequence[str]  # one of each rule; several rules fit alike, if they are a whole number of hours apart
    reason: str  # what shows it

    @property
    def name(self) -> str | None:
        """The zone, if only one of the usual ones fits, or only one at all."""
        usual = [name for name in self.names if name in _USUAL_NAMES] or self.names
        return usual[0] if len(usual) == 1 else None


@dataclass(frozen=True)
class _Steps:
    """What the rows of all streams show, in local times (seconds as if in UTC)."""

    rows: Doubles  # all times, ascending
    repeats: Doubles  # (n, 2): times of two consecutive rows, of which the second is an hour earlier than expected
    gaps: Doubles  # (n, 2): and an hour later


def fitting_zones(local: Doubles, stream_of: Integers) -> FittingZones | None:
    """The zones that the local times of all rows fit; None if no clock change shows.

    `local`: (rows,) seconds since 1970 as if the times were UTC, in the order of the rows; `stream_of`: (rows,).
    """
    steps = _steps(local, stream_of)
    if steps is None:
        return None
    years = sorted({int(format_time(time)[:4]) for time in steps.rows[:: max(1, len(steps.rows) // 1000)]})
    best: dict[tuple[Change, ...], tuple[list[str], list[str]]] = {}  # rules in these years -> names, what shows them
    refused: set[tuple[Change, ...]] = set()
    for name in sorted(zoneinfo.available_timezones(), key=_familiarity):
        rule = tuple(changes(zoneinfo.ZoneInfo(name), years))
        if not rule or rule in refused:
            continue
        if rule in best:
            best[rule][0].append(name)
        elif found := _shown(rule, steps):
            best[rule] = [name], found
        else:
            refused.add(rule)
    if not best:
        return None
    most = max(len(found) for _, found in best.values())
    fitting = [one for one in best.values() if len(one[1]) == most]
    return FittingZones(tuple(names[0] for names, _ in fitting), " and ".join(fitting[0][1][:2]))


def _familiarity(name: str) -> tuple[int, str]:
    return (_USUAL_NAMES.index(name) if name in _USUAL_NAMES else len(_USUAL_NAMES) + ("/" not in name)), name


def _steps(local: Doubles, stream_of: Integers) -> _Steps | None:
    """None if no step is an hour longer or shorter than the usual one."""
    repeats, gaps = [], []
    for stream in np.unique(stream_of).tolist():
        times = local[stream_of == stream]
        steps = np.diff(times)
        if not (steps > 0).any():
            continue
        usual_s = float(np.median(steps[steps > 0]))
        if usual_s > _HOUR_S:
            continue
        pairs = np.stack([times[:-1], times[1:]], axis=1)
        near = max(0.5 * usual_s, 1.0)
        repeats.append(pairs[(steps <= 0) & (np.abs(steps + _HOUR_S - usual_s) <= near)])
        gaps.append(pairs[np.abs(steps - _HOUR_S - usual_s) <= near])
    if not repeats or not sum(map(len, [*repeats, *gaps])):
        return None
    return _Steps(np.sort(local), np.concatenate(repeats), np.concatenate(gaps))


def _shown(rule: Sequence[Change], steps: _Steps) -> list[str]:
    """What shows that the clocks were set by this rule; empty if nothing does, or if a row contradicts."""
    found, explained = [], 0
    for change in rule:
        if abs(change.after - change.before) != _HOUR_S:
            continue
        least, most = sorted((change.at + change.before, change.at + change.after))  # the hour on a wall clock
        inside = np.searchsorted(steps.rows, [least, most])
        around = np.searchsorted(steps.rows, [least - _HOUR_S, most + _HOUR_S])
        covered = around[0] < inside[0] and inside[1] < around[1]
        hour = f"{format_time(least)[:10]} {format_time(least)[11:16]} to {format_time(most)[11:16]}"
        if change.after > change.before:
            if inside[0] < inside[1]:
                return []  # rows in an hour that there is not
            if covered and _spanning(steps.gaps, least, most):
                found.append(f"no row is of {hour}")
        elif inside[0] < inside[1]:
            repeats = _within(steps.repeats, least, most)
            explained += repeats
            if repeats:
                found.insert(0, f"{hour} occurs twice")
            elif covered:
                return []
    return found if explained * 2 >= len(steps.repeats) else []


def _spanning(pairs: Doubles, least: float, most: float) -> int:
    return int(((pairs[:, 0] < least) & (pairs[:, 1] >= most)).sum())


def _within(pairs: Doubles, least: float, most: float) -> int:
    return int(((pairs >= least) & (pairs < most)).all(axis=1).sum())


def zones_that_say(abbreviation: str) -> Iterator[str]:
    """The usual zones whose clocks show this abbreviation (CET) at some time of the year."""
    for name in _USUAL_NAMES:
        zone = zoneinfo.ZoneInfo(name)
        moments = [change.at for change in changes(zone, [datetime.now(timezone.utc).year - 1])]
        if any(datetime.fromtimestamp(at + side, zone).tzname() == abbreviation for at in moments for side in (-1, 1)):
            yield name
