"""Times that are numbers: which units and origins are likely, and the refusal of those that are none of today."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge_lstm.foundation.arrays import Doubles
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.times.text import format_time, parse_time
from edge_lstm.foundation.times.units import TimeUnit, is_likely, likely_units, seconds_of, unit_meaning

# Moments from which programs count seconds: LabVIEW and old Macs, microcontrollers, NTP, Apple
_ORIGINS = ("1904-01-01", "2000-01-01", "1900-01-01", "2001-01-01")
_SELDOM: tuple[TimeUnit, ...] = ("min", "h")  # nobody counts these from 1970
_NAMED: tuple[tuple[str, TimeUnit], ...] = (
    (r"ms|msecs?|millis?|milliseconds?", "ms"),
    (r"us|µs|micros?|microseconds?|usecs?", "us"),
    (r"ns|nanos?|nanoseconds?", "ns"),
    (r"s|secs?|seconds?|sekunden?", "s"),
    (r"mins?|minutes?|minuten?", "min"),
    (r"h|hrs?|hours?|stunden?", "h"),
)
_BY_SIZE: tuple[tuple[TimeUnit, float], ...] = (("s", 1e11), ("ms", 1e14), ("us", 1e17))  # as in `times`
_SAMPLE = 1000  # numbers that show how far they are apart
_LEAST_MS_STEP = 1000.0  # whole numbers this far apart are milliseconds rather than seconds


@dataclass(frozen=True)
class NumberReading:
    """One way to read numbers as times."""

    unit: TimeUnit
    start: str | None  # time of the number 0; None: 1970, or the origin of these days
    first: float  # seconds since 1970
    step_s: float  # usual time between two different numbers

    @property
    def text(self) -> str:
        """Such as: days of a spreadsheet, they begin at 2024-03-01T00:00:00Z and are 600 s apart."""
        counts = self.unit not in ("filetime", "ticks") and not self.unit.startswith("days")
        origin = f" since {self.start or '1970'}" if counts else ""
        if self.start == "":
            return f"{unit_meaning(self.unit)} since any start, they are {_number(self.step_s)} s apart"
        begin = f"they begin at {format_time(self.first)} and are {_number(self.step_s)} s apart"
        return f"{unit_meaning(self.unit)}{origin}, {begin}"

    @property
    def keys(self) -> str:
        """As keys of a recipe."""
        return f'time_unit = "{self.unit}"' + (f' with start = "{self.start}"' if self.start else "")

    @property
    def options(self) -> str:
        """As options of a command."""
        return f"--time-unit {self.unit}" + (f" --time-start {self.start}" if self.start else "")


def as_usual(numbers: Doubles) -> NumberReading:
    """The numbers as `parse_time` reads them, in a unit by their size."""
    seconds = np.array([parse_time(number) for number in numbers[:_SAMPLE].tolist()])
    unit: TimeUnit = next((unit for unit, most in _BY_SIZE if abs(numbers[0]) < most), "ns")
    return NumberReading(unit, None, float(seconds[0]), _step(seconds))


def is_of_this_century(seconds: Doubles) -> bool:
    """Whether most of these times lie between 2000 and now."""
    return is_likely(float(np.median(seconds)), time.time())


def likely_readings(numbers: Doubles) -> list[NumberReading]:
    """The readings by which all numbers are times from 2000 until now, the usual ones first."""
    return list(_likely_readings(numbers, time.time()))


def _likely_readings(numbers: Doubles, now: float) -> Iterator[NumberReading]:
    least, most = float(numbers.min()), float(numbers.max())
    for unit, _ in likely_units(least, now):
        if unit not in _SELDOM and is_likely(seconds_of(most, unit), now):
            seconds = np.array([seconds_of(number, unit) for number in numbers[:_SAMPLE].tolist()])
            yield NumberReading(unit, None, float(seconds[0]), _step(seconds))


def _from_origins(numbers: Doubles, now: float) -> Iterator[NumberReading]:
    """The readings in seconds from an origin that programs use, by which all numbers are from 2000 until now."""
    least, most = float(numbers.min()), float(numbers.max())
    if least < 1e8:
        return  # too few: they count from the start of a device
    for origin in _ORIGINS:
        start = parse_time(origin)
        if is_likely(least + start, now) and is_likely(most + start, now):
            yield NumberReading("s", origin, float(numbers[0]) + start, _step(numbers))


def counted_readings(name: str, numbers: Doubles) -> list[NumberReading]:
    """The ways to read numbers that count from any start, the likely one first; one, if the column's name says it."""
    step = _step(numbers)
    if (named := _named_unit(name)) is not None:
        return [_counted(named, step)]
    whole = bool((numbers % 1 == 0).all())
    milliseconds_first = whole and step >= _LEAST_MS_STEP
    units: tuple[TimeUnit, ...] = ("ms", "s") if milliseconds_first else ("s", "ms")
    return [_counted(unit, step) for unit in units]


def _counted(unit: TimeUnit, step: float) -> NumberReading:
    return NumberReading(unit, "", 0.0, seconds_of(step, unit, start=0.0))


def _named_unit(name: str) -> TimeUnit | None:
    """The unit in a column's name: t_ms, time (s), millis."""
    words = [word for word in re.split(r"[^a-zµ]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()) if word]
    return next((unit for form, unit in _NAMED if any(re.fullmatch(form, word) for word in words)), None)


def refuse_doubtful_numbers(source: str, column: str, numbers: Doubles, seconds: Doubles) -> None:
    """Raises EdgeLstmError that shows both readings if most of these times lie before 2000 or after now.

    Numbers of a column whose name says that they are seconds (t_s) are accepted. NaN among them is no number.
    """
    if is_of_this_century(seconds) or (_named_unit(column) == "s" and np.nanmax(np.abs(numbers)) < _BY_SIZE[0][1]):
        return
    numbers = numbers[~np.isnan(numbers)]
    likely = likely_readings(numbers) or list(_from_origins(numbers, time.time()))
    shown = [as_usual(numbers), *(likely[:3] or counted_readings(column, numbers))]
    found = ", ".join(f"{number:.12g}" for number in numbers[:2])
    ways = "".join(f"\n  as {one.text}" for one in shown)
    choice = shown[1]
    raise EdgeLstmError(
        f'{source}, column "{column}": expected times from 2000 until now, found {found}, ...:{ways}',
        f"say which it is, like {choice.keys} in a recipe, or {choice.options} on the command line",
    )


def _step(numbers: Doubles) -> float:
    steps = np.diff(numbers)
    return float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0


def _number(number: float) -> str:
    return f"{number:.4g}" if number < 1e4 else f"{number:.0f}"
