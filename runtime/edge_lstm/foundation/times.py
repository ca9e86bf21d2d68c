"""Times as devices write them, to seconds since 1970 (UTC) and back; a time without a zone is in the zone asked for."""

from __future__ import annotations

import functools
import re
from datetime import datetime, timedelta, timezone, tzinfo

NO_CLOCK = 1_704_067_200.0  # 2024: a board without a clock that says less has not heard the time yet

# Seconds since 1970 stay below 1e11 until the year 5138; the same instants in milliseconds lie above it from 1973 on,
# and so on by thousands: one number says its own unit.
_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9))
_FIRST = datetime(1, 1, 1, tzinfo=timezone.utc).timestamp()
_LAST = datetime(9999, 12, 31, tzinfo=timezone.utc).timestamp()
_EPOCH = datetime(1970, 1, 1)  # naive, so that its text ends where the zone would begin
_EXPECTED = "expected ISO 8601, or seconds, milliseconds, microseconds or nanoseconds since 1970"
# What fromisoformat of Python 3.10 does not read: slashes, Z, +02 and +0200, and fractions but of 3 or 6 digits.
_LOOSE_ISO = re.compile(
    r"(\d{4})[-/](\d\d)[-/](\d\d)"
    r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,12}))?)?\s*(?:([Zz]|UTC)|([+-]\d\d)(?::?(\d\d))?)?)?"
)


def parse_time(value: object, zone: tzinfo = timezone.utc) -> float:
    """Seconds since 1970 for ISO 8601 text or an epoch number (as a number or as text).

    A time without a zone is in `zone`; where clocks go back, an hour that happens twice is taken as its first.
    Raises ValueError where `value` is no time, or not one of the years 1 to 9999.
    """
    if (type(value) is int or type(value) is float) and 0 <= value < _UNITS[0][0]:
        return float(value)
    if isinstance(value, str):
        if value[4:5] == "-":  # without this look 1612010112345 would be a date of 1612 to fromisoformat
            try:  # contextlib.suppress would cost more than the parsing
                moment = datetime.fromisoformat(value)
                seconds = (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).timestamp()
                if _FIRST <= seconds < _LAST:
                    return seconds
            except (ValueError, OverflowError):
                pass  # the loose reading below, or the words of its error
        return _from_text(value.strip(), zone)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return _from_number(float(value))
        except OverflowError:
            raise ValueError(f"a number of more than 300 digits is not a time: {_EXPECTED}") from None
    raise ValueError(f"{_shown(value)} is not a time: {_EXPECTED}")


def _from_number(number: float) -> float:
    if 0 <= number < _UNITS[0][0]:
        return number
    size = abs(number)
    for most, divisor in _UNITS:
        if size < most:
            if number / divisor >= _FIRST:
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
        return _seconds(_loose(text), zone)
    except OverflowError:  # a zone's offset at either end of the calendar
        raise ValueError(f"{_shown(text)} is not a time of the years 1 to 9999") from None


def _seconds(moment: datetime, zone: tzinfo) -> float:
    seconds = (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).timestamp()
    if _FIRST <= seconds < _LAST:
        return seconds
    raise OverflowError


def _loose(text: str) -> datetime:
    found = _LOOSE_ISO.fullmatch(text)
    if found is None:
        raise ValueError(f"{_shown(text)} is not a time: {_EXPECTED}")
    year, month, day, hour, minute, second, fraction, utc, offset_hours, offset_minutes = found.groups()
    iso = f"{year}-{month}-{day}T{hour or '00'}:{minute or '00'}:{second or '00'}.{(fraction or '')[:6]:0<6}"
    zone = "+00:00" if utc else f"{offset_hours}:{offset_minutes or '00'}" if offset_hours else ""
    try:
        return datetime.fromisoformat(iso + zone)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time: {error}") from None


def _shown(value: object) -> str:
    """A value in a message: whatever a device sends there, it stays short and on its line."""
    if isinstance(value, (list, dict)):  # repr of a deep one would exceed the recursion limit
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def format_time(seconds: float) -> str:
    """ISO 8601 in UTC, with milliseconds only where there are any: `2016-10-13T10:45:00Z`."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{_second(whole)}.{milliseconds:03d}Z" if milliseconds else f"{_second(whole)}Z"


@functools.lru_cache(1024)  # many streams are predicted in the same second
def _second(whole: int) -> str:
    return (_EPOCH + timedelta(seconds=whole)).isoformat()
