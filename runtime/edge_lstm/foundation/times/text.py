"""Times in the formats of devices to seconds since 1970 (UTC), and back to text."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone, tzinfo

from edge_lstm.foundation.times.formats import clock_time, format_reader
from edge_lstm.foundation.times.units import TIME_UNITS, is_wall_unit, seconds_of, wall_time

# 2024: an earlier time means that a board without a battery-backed clock has not received the time yet
CLOCK_UNSET_BEFORE = 1_704_067_200.0

# Seconds since 1970 are below 1e11 until the year 5138. In milliseconds, times from 1973 on are above 1e11, and so on
# by factors of 1000: the size of a number shows its unit.
_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9))
_EARLIEST = datetime(1, 1, 1, tzinfo=timezone.utc).timestamp()
_LATEST = datetime(9999, 12, 31, tzinfo=timezone.utc).timestamp()
_EPOCH = datetime(1970, 1, 1)  # naive, so that its text has no zone
_EXPECTED = "expected ISO 8601, or seconds, milliseconds, microseconds or nanoseconds since 1970"
_ZONE = r"\s*(?:([Zz]|UTC|GMT)|([+-]\d\d)(?::?(\d\d))?(?:\[[^\]]*\])?)?"
# Not read by fromisoformat of Python 3.10: slashes, Z, +02, +0200, fractions not of 3 or 6 digits, 24:00, a zone's name
# in brackets after an offset, and the basic form 20240301T001000Z.
_OTHER_ISO = re.compile(
    r"(\d{4})[-/](\d\d)[-/](\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,12}))?)?" + _ZONE + ")?"
)
_BASIC_ISO = re.compile(r"(\d{4})(\d\d)(\d\d)[Tt ](\d\d)(?:(\d\d)(?:(\d\d)(?:[.,](\d{1,12}))?)?)?" + _ZONE)
# 202403010010 and 20240301001000 are dates: in milliseconds they would be times of 1976 and 2611.
_COMPACT = re.compile(r"((?:19|20)\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:(\d\d)(\d{3})?)?()()()")
_LONGEST_COMPACT = 17  # digits: more than a float holds
_LEAST_COMPACT, _MOST_COMPACT = 190_001_010_000, 20_991_231_235_959_999
_LONGEST_TEXT = 100  # characters
_NAMED_ZONE = re.compile(r"(.*[\d.]) ?([A-Z]{2,5}|[A-Za-z_]+/[A-Za-z0-9_/+-]+|\[[^\]]+\])")


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
            return _from_number(float(value), zone)
        except OverflowError:
            raise ValueError(f"a number of more than 300 digits is not a time: {_EXPECTED}") from None
    raise ValueError(f"{_short_repr(value)} is not a time: {_EXPECTED}")


def time_parser(
    form: str | None = None, unit: str | None = None, zone: tzinfo = timezone.utc, start: float | None = None
) -> Callable[[object], float]:
    """A function from a value to seconds since 1970, which raises ValueError with a reason for what is no such time.

    `form`: the format of texts (`time_format`), whose %Z may name the zone. `unit`: of numbers (`time_unit`), which
    count from `start`; None: from 1970, or from the origin of these days. With neither: as `parse_time`. A time without
    a zone is in `zone`; of a repeated hour it is the first occurrence. Raises ValueError for an unknown format or unit.
    """
    if form is not None:
        read = format_reader(form, zone)

        def by_format(value: object) -> float:
            text = time_text(value)
            try:
                return _seconds(read(text), zone)
            except OverflowError:
                raise ValueError(f"{_short_repr(text)} is not a time of the years 1 to 9999") from None
            except ValueError as error:
                raise ValueError(f"{_short_repr(text)} is not a time: {error}") from None

        return by_format
    if unit is not None:
        if unit not in TIME_UNITS:
            raise ValueError(f"expected a unit of {', '.join(TIME_UNITS)}, found {unit}")

        def by_unit(value: object) -> float:
            try:
                if not isinstance(value, (int, float, str)) or isinstance(value, bool):
                    raise ValueError("expected a number")
                seconds = seconds_of(value, unit, zone, start)
                if _EARLIEST <= seconds < _LATEST:
                    return seconds
                raise ValueError("expected a time of the years 1 to 9999")
            except OverflowError:
                raise ValueError(f"{_short_repr(value)} is not a time of the years 1 to 9999") from None
            except ValueError as error:
                raise ValueError(f"{_short_repr(value)} is not a time: {error}") from None

        return by_unit
    return parse_time if zone is timezone.utc else lambda value: parse_time(value, zone)


def local_time_parser(
    form: str | None = None, unit: str | None = None, zone: tzinfo = timezone.utc, start: float | None = None
) -> Callable[[object], datetime | None]:
    """A function from what `time_parser` with these arguments reads to its local time; None if it names a zone."""
    if form is not None:
        read = format_reader(form, zone)
        return lambda value: _without_zone(read(time_text(value)))
    if unit is not None:
        if not is_wall_unit(unit, start):
            return lambda value: None
        return lambda value: wall_time(value if isinstance(value, str) else float(str(value)), unit)

    def local_iso_time(value: object) -> datetime | None:
        text = time_text(value)
        try:
            return _without_zone(datetime.fromisoformat(text) if text[4:5] == "-" else iso_time(text))
        except ValueError:
            try:
                return _without_zone(iso_time(text))
            except ValueError:
                return None  # a number

    return local_iso_time


def _without_zone(moment: datetime) -> datetime | None:
    return moment if moment.tzinfo is None else None


def time_text(value: object) -> str:
    """A value as text, for a format: a whole number without a fraction, so that 20240301.0 is 20240301."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None or value != value else str(value)


def _from_number(number: float, zone: tzinfo) -> float:
    if 0 <= number < _UNITS[0][0]:
        return number
    if _LEAST_COMPACT <= number <= _MOST_COMPACT and number.is_integer():
        try:
            return _seconds(_iso_moment(_COMPACT.fullmatch(str(int(number)))), zone)
        except ValueError:
            pass  # no date, so it counts
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
        if len(text) != _LONGEST_COMPACT or not _COMPACT.fullmatch(text):
            return _from_number(number, zone)
    try:
        return _seconds(iso_time(text), zone)
    except OverflowError:  # a zone offset at either end of the calendar
        raise ValueError(f"{_short_repr(text)} is not a time of the years 1 to 9999") from None


def _seconds(moment: datetime, zone: tzinfo) -> float:
    seconds = (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).timestamp()
    if _EARLIEST <= seconds < _LATEST:
        return seconds
    raise OverflowError


def iso_time(text: str) -> datetime:
    """The date and time of a text in ISO 8601, without a zone if it names none. Raises ValueError for another text."""
    found = _OTHER_ISO.fullmatch(text) or _BASIC_ISO.fullmatch(text) or _COMPACT.fullmatch(text)
    # a longer text is no time, and the search for a zone in it could take minutes
    named = _NAMED_ZONE.fullmatch(text) if found is None and len(text) <= _LONGEST_TEXT else None
    if named is not None and named[2] in ("AM", "PM"):
        raise ValueError(
            f'{_short_repr(text)} is not a time: expected time_format = "%m/%d/%Y %I:%M:%S %p" or a similar one'
        )
    if named is not None:
        raise ValueError(
            f"{_short_repr(text)} is not a time: expected an offset like +01:00 instead of {named[2]}, "
            'or time_format = "%Y-%m-%d %H:%M:%S %Z" beside timezone = "Europe/Berlin" or whichever zone it is'
        )
    if found is None:
        raise ValueError(f"{_short_repr(text)} is not a time: {_EXPECTED}")
    try:
        return _iso_moment(found)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time: {error}") from None


def _iso_moment(found: re.Match[str] | None) -> datetime:
    if found is None:
        raise ValueError
    year, month, day, hour, minute, second, fraction, utc, offset_hours, offset_minutes = found.groups()
    micro = int(f"{(fraction or '')[:6]:0<6}")
    moment = clock_time(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), micro)
    if utc:
        return moment.replace(tzinfo=timezone.utc)
    if not offset_hours:
        return moment
    offset = timedelta(hours=int(offset_hours[1:]), minutes=int(offset_minutes or 0))
    return moment.replace(tzinfo=timezone(-offset if offset_hours[0] == "-" else offset))


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
