"""Units of times that are numbers: what a number means in each unit, and which of them give a likely time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Literal, get_args

TimeUnit = Literal[
    "s", "ms", "us", "ns", "min", "h", "days", "days-1904", "days-matlab", "days-julian", "filetime", "ticks"
]
TIME_UNITS: tuple[TimeUnit, ...] = get_args(TimeUnit)
YEAR_2000 = 946_684_800.0  # an earlier number counts from another moment than 1970, or in another unit
AHEAD_S = 2 * 86_400.0  # a clock may be in another zone, and a little fast

_DAY_S = 86_400.0
_COUNTED: dict[str, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9, "min": 1 / 60, "h": 1 / 3600}  # per second
# Days that programs count, as their number at 1970-01-01. Their fraction is the time of day that a clock on the wall
# shows; a Julian day begins at noon. Spreadsheets count from 1899-12-30, those of old Macs from 1904-01-01.
_AT_1970: dict[str, float] = {"days": 25_569.0, "days-1904": 24_107.0, "days-matlab": 719_529.0}
_AT_1970["days-julian"] = 2_440_587.5
# Tenths of microseconds: those of Windows count from 1601, those of .NET from the year 1
_TICKS_AT_1970: dict[str, float] = {"filetime": 116_444_736e9, "ticks": 621_355_968e9}
_MEANINGS = {
    "days": "days of a spreadsheet",
    "days-1904": "days of a spreadsheet that counts from 1904",
    "days-matlab": "days of MATLAB",
    "days-julian": "Julian days",
    "filetime": "file times of Windows",
    "ticks": "ticks of .NET",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "min": "minutes",
    "h": "hours",
}
_EPOCH = datetime(1970, 1, 1)
_ROUND_S = (60.0, 1.0, 1e-3)  # what a time of day is rounded to, if its digits allow it


def unit_meaning(unit: str) -> str:
    """The unit in words."""
    return _MEANINGS[unit]


def is_wall_unit(unit: str | None, start: float | None = None) -> bool:
    """Whether numbers in this unit give the time on a wall clock, which needs a time zone."""
    return unit in _AT_1970 and start is None


def seconds_of(number: float | str, unit: str, zone: tzinfo = timezone.utc, start: float | None = None) -> float:
    """Seconds since 1970 of a number in `unit`.

    It counts from `start` (seconds since 1970; None: from 1970, or from the origin of these days). Days without a
    `start` are local times of `zone`. Raises ValueError if the number is not one, or not a time of the years 1 to 9999.
    """
    try:
        value = float(number.replace(",", ".") if isinstance(number, str) else number)
        if not math.isfinite(value):
            raise ValueError
    except ValueError:
        raise ValueError("expected a number") from None
    if unit in _COUNTED:
        return value / _COUNTED[unit] + (start or 0.0)
    if unit in _TICKS_AT_1970:
        return (value - _TICKS_AT_1970[unit]) / 1e7 if start is None else value / 1e7 + start
    if start is not None:
        return value * _DAY_S + start
    moment = wall_time(number, unit)
    return moment.replace(tzinfo=zone).timestamp()


def wall_time(number: float | str, unit: str) -> datetime:
    """The local time of a number of days, without a zone: rounded to what its digits can tell."""
    number = number.replace(",", ".") if isinstance(number, str) else number
    value = float(number)
    seconds = (value - _AT_1970[unit]) * _DAY_S
    try:
        return _EPOCH + timedelta(seconds=_rounded(seconds, _half_digit_s(number)))
    except OverflowError:
        raise ValueError("expected a time of the years 1 to 9999") from None


def _half_digit_s(number: float | str) -> float:
    """Half of the last digit of a number of days, in seconds: 45352.006944 is 00:09:59.96, give or take 0.04 s."""
    text = number if isinstance(number, str) else repr(float(number))
    if "e" in text.lower():
        return 0.5e-3
    return 0.5 * _DAY_S / 10.0 ** len(text.partition(".")[2].strip())


def _rounded(seconds: float, within: float) -> float:
    for unit in _ROUND_S:
        nearest = float(round(seconds / unit)) * unit
        if abs(nearest - seconds) <= within * 1.01:
            return nearest
    return round(seconds, 6)


def likely_units(number: float, now: float) -> Iterator[tuple[TimeUnit, float]]:
    """(unit, seconds since 1970) of the units in which a number is a time from the year 2000 until now."""
    for unit in TIME_UNITS:
        try:
            seconds = seconds_of(number, unit)
        except (ValueError, OverflowError):
            continue
        if is_likely(seconds, now):
            yield unit, seconds


def is_likely(seconds: float, now: float) -> bool:
    """Whether a time lies between 2000 and now; a `now` before 2000 is of a clock that is not set, and no limit."""
    return seconds >= YEAR_2000 and (now < YEAR_2000 or seconds <= now + AHEAD_S)
