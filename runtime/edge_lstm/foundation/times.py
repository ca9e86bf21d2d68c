"""Times in the formats of devices to seconds since 1970 (UTC), and back to text."""

from __future__ import annotations

import functools
import re
from datetime import datetime, timedelta, timezone, tzinfo

# 2024: an earlier time means that a board without a battery-backed clock has not received the time yet
CLOCK_UNSET_BEFORE = 1_704_067_200.0

# Seconds since 1970 are below 1e11 until the year 5138. In milliseconds, times from 1973 on are above 1e11, and so on
# by factors of 1000: the size of a number shows its unit.
_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9))
_EARLIEST = datetime(1, 1, 1, tzinfo=timezone.utc).timestamp()
_LATEST = datetime(9999, 12, 31, tzinfo=timezone.utc).timestamp()
_EPOCH = datetime(1970, 1, 1)  # naive, so that its text has no zone
_EXPECTED = "expected ISO 8601, or seconds, milliseconds, microseconds or nanoseconds since 1970"
# Not read by fromisoformat of Python 3.10: slashes, Z, +02, +0200, and fractions not of 3 or 6 digits.
_OTHER_ISO = re.compile(
    r"(\d{4})[-/](\d\d)[-/](\d\d)"
    r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,12}))?)?\s*(?:([Zz]|UTC)|([+-]\d\d)(?::?(\d\d))?)?)?"
)


def is_time(value: object) -> bool:
    """Whether it is a number of seconds since 1970 in the years 1 to 9999; no bool, and no NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and _EARLIEST <= value < _LATEST


def parse_time(value: object, zone: tzinfo = timezone.utc) -> float:
    """Seconds since 1970 for ISO 8601 text or an epoch number (as a number or as text).

    A time without a zone is in `zone`. When clocks are set back, the repeated hour is read as its first occurrence.
    Raises ValueError if `value` is not a time of the years 1 to 9999.
    """
    if (type(value) is int or type(value) is float) and 0 <= value < _UNITS[0][0]:
        return float(value)
    if isinstance(value, str):
        if value[4:5] == "-":  # without this check fromisoformat reads 1612010112345 as a date of 1612
            try:  # contextlib.suppress would cost more than the parsing
                moment = datetime.fromisoformat(value)
                seconds = (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).timestamp()
                if _EARLIEST <= seconds < _LATEST:
                    return seconds
            except (ValueError, OverflowError):
                pass  # the other forms below, or their error
        return _from_text(value.strip(), zone)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return _from_number(float(value))
        except OverflowError:
            raise ValueError(f"a number of more than 300 digits is not a time: {_EXPECTED}") from None
    raise ValueError(f"{_short_repr(value)} is not a time: {_EXPECTED}")


def _from_number(number: float) -> float:
    if 0 <= number < _UNITS[0][0]:
        return number
    size = abs(number)
    for most, divisor in _UNITS:
        if size < most:
            if number / divisor >= _EARLIEST:
                return number / divisor
            break
    raise ValueError(f"{number} is not a time: {_EXPECTED}")


def _from_text(text: str, zone: tzinfo) -> float:
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        return _from_number(number)
    try:
        return _seconds(_parse_other_iso(text), zone)
    except OverflowError:  # a zone offset at either end of the calendar
        raise ValueError(f"{_short_repr(text)} is not a time of the years 1 to 9999") from None


def _seconds(moment: datetime, zone: tzinfo) -> float:
    seconds = (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).timestamp()
    if _EARLIEST <= seconds < _LATEST:
        return seconds
    raise OverflowError


def _parse_other_iso(text: str) -> datetime:
    found = _OTHER_ISO.fullmatch(text)
    if found is None:
        raise ValueError(f"{_short_repr(text)} is not a time: {_EXPECTED}")
    year, month, day, hour, minute, second, fraction, utc, offset_hours, offset_minutes = found.groups()
    iso = f"{year}-{month}-{day}T{hour or '00'}:{minute or '00'}:{second or '00'}.{(fraction or '')[:6]:0<6}"
    zone = "+00:00" if utc else f"{offset_hours}:{offset_minutes or '00'}" if offset_hours else ""
    try:
        return datetime.fromisoformat(iso + zone)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time: {error}") from None


def _short_repr(value: object) -> str:
    """A value for an error message: short, and on one line."""
    if isinstance(value, (list, dict)):  # repr of a deeply nested one exceeds the recursion limit
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def format_time(seconds: float) -> str:
    """ISO 8601 in UTC: `2016-10-13T10:45:00Z`. A fraction has milliseconds or, if they would lose some, microseconds.

    So times that differ by a microsecond have different texts, and a subscriber can tell their predictions apart.
    """
    whole, microseconds = divmod(round(seconds * 1_000_000), 1_000_000)
    if not microseconds:
        return f"{_iso_second(whole)}Z"
    if microseconds % 1000:
        return f"{_iso_second(whole)}.{microseconds:06d}Z"
    return f"{_iso_second(whole)}.{microseconds // 1000:03d}Z"


@functools.lru_cache(1024)  # many streams have samples in the same second
def _iso_second(whole: int) -> str:
    return (_EPOCH + timedelta(seconds=whole)).isoformat()
