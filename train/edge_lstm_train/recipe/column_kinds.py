"""What the numbers of a column mean, by its name, its unit and its values: an angle, a counter, a row number.

Only clear cases are found: a recipe that takes a plain sensor for a counter would be worse than one that asks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_lstm.bundle.feature import PERIODS
from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm.foundation.numbers import SWITCHES

_FEWEST = 20  # rows, or rises of a counter
_DIFFERENT = 10  # values of a counter
_RESET = 0.1  # a reset falls to at most this share of the number before
_MOST_RESETS = 0.15  # of the rises; a sensor that is switched on and off falls as often as it rises
_REGULAR = 0.99  # share of the rows that a sequence has to continue in equal steps
_NUMBERED = 0.9  # the same for a column that is named like a row number, where rows are lost
_EDGE = 10.0  # degrees from north on either side
_JUMP = 300.0  # degrees, through north
_MOST_ODD = 0.005  # share of codes for missing values among angles

_DIRECTION = re.compile(
    r"direction|heading|azimut|bearing|richtung|compass|orientation|\b(angle|course|kurs|hdg|cog|yaw|hue)\b|\b(wind)?dir\d*\b|\bwd(ir)?\d*\b"
)
_NO_CIRCLE = re.compile(r"lat|lon|elev|altitude|tilt|pitch|roll|slope|inclin|temp|zenith")
_UNIT = re.compile(r"[\[(]([^\])]*)[\])]\s*$|[ _](°|deg|degrees?|rad|radians?)$")
_ROW_NUMBER = re.compile(r"#|(row|rec|record|line|sample|index|idx|seq|sequence|no|nr|num|number|id|unnamed)\b.*|\s*")
_METER = re.compile(r"energy|kwh|\bwh\b|volume|m3|m³|litre|liter|rain|pulse|total|meter")
_TIME = re.compile(r"elapsed|uptime|seconds|millis|epoch|\bts?\b|time")
# Calendar columns that return, by name: the circle, and the least and most of their values.
_CALENDAR: Mapping[str, tuple[float, float, float]] = {
    "hour": (24, 0, 24),
    "hours": (24, 0, 24),
    "hour of day": (24, 0, 24),
    "month": (12, 1, 12),
    "weekday": (7, 0, 7),
    "day of week": (7, 0, 7),
    "dayofweek": (7, 0, 7),
    "minute": (60, 0, 59),
}
_CALENDAR_WORDS = re.compile(r"\b(hours?|minutes?|seconds?|days?|weeks?|weekday|months?|years?|doy)\b")


@dataclass(frozen=True)
class ColumnKinds:
    """The columns of numbers that are no plain measurements."""

    circles: dict[str, float] = field(default_factory=dict)  # by column: the length of the circle
    counters: dict[str, int] = field(default_factory=dict)  # by column: how often it fell back
    row_numbers: list[str] = field(default_factory=list)

    def sentences(self) -> Iterator[str]:
        """What was found, a sentence a column."""
        for name, period in self.circles.items():
            yield f'"{name}" is a position on a circle of {period:g}: circular = true'
        for name, falls in self.counters.items():
            yield f'"{name}" only grows{_falls(falls)}: counter = true, its increase is the value'
        for name in self.row_numbers:
            yield f'"{name}" rises in equal steps, as a row number does: left out'


def column_kinds(
    values: Mapping[str, Doubles], times: Doubles, stream_of: Integers, units: Mapping[str, str] | None = None
) -> ColumnKinds:
    """The kinds of columns of numbers (rows,).

    times (rows,): seconds; stream_of (rows,): the stream of each row; units: of columns whose unit is not in the name.
    """
    order = np.lexsort((times, stream_of))
    same = np.diff(stream_of[order]) == 0
    found = ColumnKinds()
    for name, column in values.items():
        steps = np.diff(column[order])[same]
        before = column[order][:-1][same]
        if (
            period := circle_of(name, column, steps, (units or {}).get(name, ""))
        ) is not None:  # a whole turn may rise like a counter
            found.circles[name] = period
        elif _numbers_rows(name, column, steps) or _numbers_rows(name, column, np.diff(column)):
            found.row_numbers.append(name)
        elif (falls := _falls_of_a_counter(name, column, steps, before)) is not None:
            found.counters[name] = falls
    return found


def unit_in(name: str) -> str:
    """The unit at the end of a column's name, as in "heading (deg)" or "wind_deg"; empty: none."""
    match = _UNIT.search(name)
    return "" if match is None else (match[1] or match[2] or "").strip()


def circle_of(name: str, values: Doubles, steps: Doubles, unit: str = "") -> float | None:
    """The length of the circle that the values (rows,) are on, or None; steps: from row to row of a stream.

    A direction is known by its name or its unit, and by values that spread around the circle. Without either, the
    values have to fill the circle of 360 degrees and to jump through north, and from nowhere else.
    """
    known = values[np.isfinite(values)]
    if known.size < _FEWEST:
        return None
    words = _words(name)
    if words in _CALENDAR:
        period, least, most = _CALENDAR[words]
        fits = known.min() >= least and known.max() <= most and not (known % 1).any()
        return period if fits and known.max() - known.min() >= 2 * period / 3 else None
    if _NO_CIRCLE.search(words):
        return None
    direction, stated = bool(_DIRECTION.search(words)), PERIODS.get((unit or unit_in(name)).lower())
    period = stated or 360.0
    low, high = np.quantile(known, (_MOST_ODD, 1 - _MOST_ODD))
    if high > period * (1 + 1e-6) or low < -period / 2 or (low < 0 and high > period / 2):
        return None
    spread = (high - low) / period
    if direction and (stated is not None or (spread > 0.25 and high > 100)):
        return period
    if stated is not None:
        return period if spread > 0.5 else None
    return period if _jumps_through_north(known, steps) else None


def _jumps_through_north(known: Doubles, steps: Doubles) -> bool:
    """Whether values from 0 to 360 jump between their ends, and seldom over a half turn elsewhere."""
    if known.min() < 0 or known.min() > _EDGE or known.max() > 360 or known.max() < 360 - _EDGE:
        return False
    size = np.abs(steps[np.isfinite(steps)])
    through, far = np.count_nonzero(size > _JUMP), np.count_nonzero((size > 120) & (size < 240))
    return through >= 3 and far < through / 4


def _numbers_rows(name: str, values: Doubles, steps: Doubles) -> bool:
    """Whether the numbers rise in equal steps (rows - 1,), like 1, 2, 3, or as a clock does."""
    if len(steps) < _FEWEST or not np.isfinite(steps).all():
        return False
    words = _words(name)
    usual = float(np.median(steps))
    whole = not (values % 1).any()
    share = float((steps == usual).mean())
    if _TIME.search(words) and float((steps > 0).mean()) >= _REGULAR:  # a clock; a counter of running hours rests
        return True
    if usual == 0 or not whole:
        return False
    if _ROW_NUMBER.fullmatch(words) or name.strip() == "#":
        return abs(usual) == 1 and share >= _NUMBERED
    return share >= _REGULAR and not _METER.search(words)


def _falls_of_a_counter(name: str, values: Doubles, steps: Doubles, before: Doubles) -> int | None:
    """How often a column that counts fell back to near 0; None: it does not count."""
    known = np.isfinite(steps)
    steps, before = steps[known], before[known]
    rises, falls = np.count_nonzero(steps > 0), steps < 0
    if _CALENDAR_WORDS.search(_words(name)) or rises < _FEWEST or np.nanmin(values) < 0:
        return None
    if len(np.unique(values[np.isfinite(values)])) <= _DIFFERENT:
        return None
    count = np.count_nonzero(falls)
    resets = np.count_nonzero(falls & (before + steps <= _RESET * before))
    odd = count - resets  # a meter is seldom corrected by a little, a sensor always falls by a little
    if odd > (rises / 100 if _METER.search(_words(name)) else 0) or count > _MOST_RESETS * rises:
        return None
    return resets


def switch_words(texts: Sequence[str]) -> dict[str, float]:
    """The numbers of two texts that are the states of one switch, like on and off; empty: they are something else."""
    values = {text: SWITCHES.get(text.strip().lower(), math.nan) for text in texts}
    return values if len(texts) == 2 and sorted(values.values()) == [0.0, 1.0] else {}


def how_often(count: int) -> str:
    """A count of at least 1 in words."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _words(name: str) -> str:
    """A column's name in lower case, its words apart."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.sub(r"[\s_./:-]+", " ", apart).strip().lower()


def _falls(falls: int) -> str:
    return f" and fell back to 0 {how_often(falls)}" if falls else ""
