"""Checks the readings that a caller of the Python API gives; it refuses what the sampler would misread."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from itertools import chain

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arguments import described, quoted
from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import ReadingError
from edge_lstm.streaming.reading import Reading

_READING, _TEXT, _DICT = {Reading}, {str}, {dict}
_TEXT_OR_NONE, _FLAGS = {str, type(None)}, {bool}
_TIMES = {float, int, np.float64}
_NUMBERS = {float, np.float64, np.float32}  # an int may be larger than any float, so it is converted
# numpy converts dates to floats of an unknown unit, texts by their digits, and complex numbers by their real part
_NO_NUMBERS = (np.datetime64, np.timedelta64, str, bytes, np.complexfloating)
_FIRST = datetime(1, 1, 1, tzinfo=timezone.utc).timestamp()
_LAST = datetime(9999, 12, 31, tzinfo=timezone.utc).timestamp()
_MOST_NAMES = 10  # in a message
_EXAMPLE = 'write Reading("pump-7", time=1767225600.0, values={{"{name}": 1.0}})'


class ReadingChecks:
    """The checks for one contract. They change no stream, so a call that is refused has stepped nothing."""

    def __init__(self, contract: Contract) -> None:
        self._features = {feature.name: feature for feature in contract.features}
        self._names = frozenset(self._features)
        names = list(self._features)
        more = len(names) - _MOST_NAMES
        self._known = ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
        self._example = _EXAMPLE.format(name=names[0])

    def __call__(self, readings: Iterable[Reading], ignore_unknown: bool = False) -> Sequence[Reading]:
        """The readings with times in seconds since 1970 and values that are floats; a missing value is NaN.

        Raises ReadingError for the first reading that does not fit.
        """
        if isinstance(readings, Reading):
            raise ReadingError(
                "expected an iterable of readings, found one Reading", "call predict(reading) or feed([reading])"
            )
        if not isinstance(readings, (list, tuple)):
            try:
                iterator = iter(readings)
            except TypeError:
                raise ReadingError(f"expected readings, found {described(readings)}", self._example) from None
            readings = list(iterator)  # a fault of the caller's own iterator stays
        if self._usual(readings):
            return readings
        return [self._checked(index, reading, ignore_unknown) for index, reading in enumerate(readings)]

    def _usual(self, readings: Sequence[Reading]) -> bool:
        """Whether all readings are as the sampler takes them, by passes that run in C; False: look at each of them."""
        if set(map(type, readings)) != _READING:
            return False
        streams, times, values, sequences, partials, restarts, arrived = zip(*readings, strict=True)
        if set(map(type, streams)) != _TEXT or not set(map(type, sequences)) <= _TEXT_OR_NONE:
            return False
        if set(map(type, chain(partials, restarts, arrived))) - _FLAGS:
            return False
        if not set(map(type, times)) <= _TIMES or not (min(times) >= _FIRST and max(times) < _LAST):
            return False
        if set(map(type, values)) != _DICT or not all(values) or not self._names.issuperset(set().union(*values)):
            return False
        numbers = chain.from_iterable(map(dict.values, values))
        return set(map(type, numbers)) <= _NUMBERS and math.isfinite(sum(times))  # a NaN passes min and max

    def _checked(self, index: int, reading: Reading, ignore_unknown: bool) -> Reading:
        """The reading as the sampler takes it. Raises ReadingError that says which one it is."""
        where = f"reading {index}"
        if not isinstance(reading, Reading):
            raise ReadingError(f"{where}: expected a Reading, found {described(reading)}", self._example)
        if not isinstance(reading.stream, str):
            raise ReadingError(
                f"{where}: expected the stream's name as a str, found {described(reading.stream)}", self._example
            )
        where = f"{where} of stream {quoted(reading.stream)}"
        if not isinstance(reading.sequence, (str, type(None))):
            raise ReadingError(
                f"{where}: expected sequence as a str or None, found {described(reading.sequence)}",
                "give the device's own number as text: str(number)",
            )
        if not isinstance(reading.values, Mapping):
            raise ReadingError(
                f"{where}: expected values as a mapping of names to numbers, found {described(reading.values)}",
                self._example,
            )
        time = _seconds(where, reading.time)
        return Reading(
            reading.stream,
            time,
            self._numbers(where, reading.values, ignore_unknown),
            reading.sequence,
            self._flag(where, "partial", reading.partial),
            self._flag(where, "restart", reading.restart),
            self._flag(where, "arrived", reading.arrived),
        )

    def _flag(self, where: str, name: str, flag: object) -> bool:
        if isinstance(flag, (bool, np.bool_)):
            return bool(flag)
        raise ReadingError(f"{where}: expected {name} as True or False, found {described(flag)}", "give True or False")

    def _numbers(self, where: str, values: Mapping[str, object], ignore_unknown: bool) -> dict[str, float]:
        """The values of the model's features, as floats."""
        known = {name: value for name, value in values.items() if name in self._names}
        unknown = [name for name in values if name not in self._names]
        if not values:
            raise ReadingError(
                f"{where}: expected a value of {self._known}, found none",
                f'give {{"{next(iter(self._features))}": None}} where a value is missing',
            )
        if unknown and not (known and ignore_unknown):
            name = unknown[0]
            near = suggestion(name, list(self._features)) if isinstance(name, str) else f"known here: {self._known}"
            remedy = "; or pass ignore_unknown=True to leave such names out" if known else ""
            found = quoted(name) if isinstance(name, str) else described(name)
            raise ReadingError(f"{where}: expected values of {self._known}, found {found}", near + remedy)
        return {name: self._number(where, name, value) for name, value in known.items()}

    def _number(self, where: str, name: str, value: object) -> float:
        if value is None:
            return math.nan
        try:
            return _as_float(value)
        except (TypeError, ValueError, OverflowError):
            categories = self._features[name].categories
            remedy = "give a number, or None where the value is missing"
            if isinstance(value, str) and value in categories:
                remedy = f'give its index: "{value}" is {categories.index(value)}'
            raise ReadingError(f"{where}: expected a number for {name}, found {described(value)}", remedy) from None


def _seconds(where: str, time: object) -> float:
    """Seconds since 1970 of a number or a datetime with a time zone."""
    if isinstance(time, datetime) and time.utcoffset() is None:
        raise ReadingError(
            f"{where}: expected a time with a time zone, found {time.isoformat()} without one",
            "give it one, as in datetime.now(timezone.utc) or time.astimezone()",
        )
    try:
        if isinstance(time, (bool, np.bool_)):
            raise TypeError
        seconds = time.timestamp() if isinstance(time, datetime) else _as_float(time)  # NaN of pandas.NaT
    except (TypeError, ValueError, OverflowError):
        raise ReadingError(
            f"{where}: expected time in seconds since 1970 or as a datetime with a time zone, found {described(time)}",
            "convert it, as in datetime.fromisoformat(text).timestamp()",
        ) from None
    if not _FIRST <= seconds < _LAST:  # nor for NaN
        raise ReadingError(
            f"{where}: expected time in seconds since 1970, of the years 1 to 9999, found {seconds:g}",
            "convert milliseconds to seconds" if abs(seconds) >= _LAST else "give the time of the reading",
        )
    return seconds


def _as_float(value: object) -> float:
    """A Python or numpy number, or any other that converts itself. Raises TypeError for the rest, texts included."""
    if not hasattr(value, "__float__") or isinstance(value, _NO_NUMBERS):
        raise TypeError
    if isinstance(value, np.ndarray) and (value.ndim or value.dtype.kind not in "biuf"):
        raise TypeError
    return float(value)
