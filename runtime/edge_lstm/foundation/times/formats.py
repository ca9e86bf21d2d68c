"""Texts to dates and times by a format like "%d.%m.%Y %H:%M", with names of months in seven languages."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone, tzinfo

_MONTHS = (  # in English, German, French, Spanish, Italian, Dutch and Portuguese
    ("january", "januar", "janvier", "enero", "gennaio", "januari", "janeiro"),
    ("february", "februar", "février", "fevrier", "febrero", "febbraio", "februari", "fevereiro"),
    ("march", "märz", "maerz", "mrz", "mars", "marzo", "maart", "mrt", "março", "marco"),
    ("april", "avril", "abril", "aprile"),
    ("may", "mai", "mayo", "maggio", "mei", "maio"),
    ("june", "juni", "juin", "junio", "giugno", "junho"),
    ("july", "juli", "juillet", "julio", "luglio", "julho"),
    ("august", "août", "aout", "agosto", "augustus"),
    ("september", "septembre", "septiembre", "settembre", "setembro"),
    ("october", "oktober", "octobre", "octubre", "ottobre", "outubro"),
    ("november", "novembre", "noviembre", "novembro"),
    ("december", "dezember", "décembre", "decembre", "diciembre", "dicembre", "dezembro"),
)
_MONTH = r"(?P<b>[^\W\d_]{3,10})\.?"
_WEEKDAY = r"[^\W\d_]{2,12}\.?"
_CODES = {
    "Y": r"(?P<Y>\d{4})",
    "y": r"(?P<y>\d{2})",
    "m": r"(?P<m>1[0-2]|0?[1-9])",
    "d": r"(?P<d>3[01]|[12]\d|0?[1-9]| [1-9])",
    "j": r"(?P<j>\d{1,3})",
    "H": r"(?P<H>2[0-4]|[01]?\d)",
    "I": r"(?P<I>1[0-2]|0?[1-9])",
    "p": r"(?P<p>[ap]\.?\s?m\.?)",
    "M": r"(?P<M>[0-5]?\d)",
    "S": r"(?P<S>6[01]|[0-5]?\d)",
    "f": r"(?P<f>\d{1,12})",
    "b": _MONTH,
    "B": _MONTH,
    "a": _WEEKDAY,
    "A": _WEEKDAY,
    "z": r"(?P<z>Z|[+-]\d\d(?::?[0-5]\d)?)",
    "Z": r"(?P<Z>[A-Za-z]{1,6}|[A-Za-z_]+(?:/[A-Za-z0-9_+-]+)+)",
    "%": "%",
}
_HOURS_AND_MINUTES = r"(?P<HM>\d{1,4})"  # of %H%M by itself: 0, 100 and 2330, too
_STRPTIME_ALONE = "cxXGuVUWw"  # seldom used: left to strptime
_UTC_NAMES = ("UTC", "GMT", "Z", "UT")


def format_reader(form: str, zone: tzinfo = timezone.utc) -> Callable[[str], datetime]:
    """A function from a text in this format (codes of strptime) to a datetime, without a zone if the text names none.

    Hour 24 is 0 o'clock of the next day. A zone name (%Z) is UTC, one of the zone database, or what the clocks of
    `zone` say at that time (CET, CEST). The function raises ValueError for another text. Raises ValueError for a format
    that is not one of full dates.
    """
    if (fault := format_fault(form)) is not None:
        raise ValueError(fault)
    pattern = _pattern(form)
    if pattern is None:
        return lambda text: datetime.strptime(text, form)
    match = pattern.fullmatch

    def read(text: str) -> datetime:
        found = match(text)
        if found is None:
            raise ValueError(f'expected one like "{form}"')
        return _moment(found.groupdict(), zone)

    return read


def format_fault(form: str) -> str | None:
    """What is wrong with a format of dates, or None."""
    codes = re.findall(r"%(.?)", form, re.DOTALL)
    unknown = next((code for code in codes if not code or code not in {*_CODES, *_STRPTIME_ALONE}), None)
    if unknown is not None:
        return f'expected codes like %d.%m.%Y %H:%M, found "%{unknown}"'
    if not {"Y", "y", "c", "x", "G"} & set(codes):
        return f'expected a year, %Y or %y, found none in "{form}"'
    if "I" in codes and "p" not in codes:
        return "expected %H, or %p (AM or PM) beside %I, found %I alone: 01:00 may be 13:00"
    if twice := {code for code in codes if codes.count(code) > 1} - {"%", "a", "A"}:
        return f'expected each code once, found "%{min(twice)}" twice'
    return None


@functools.lru_cache(256)
def _pattern(form: str) -> re.Pattern[str] | None:
    """The format as a pattern; None if it has codes that only strptime reads."""
    parts: list[str] = []
    digits_before = False
    for both, code, spaces, sign in re.findall(r"(%H%M(?!%))|%(.)|(\s+)|(.)", form, re.DOTALL):
        if code and code not in _CODES:
            return None
        if both:
            parts.append(_CODES["H"] + _CODES["M"] if digits_before else _HOURS_AND_MINUTES)
        else:
            parts.append(_CODES[code] if code else r"\s+" if spaces else re.escape(sign))
        digits_before = bool(code)
    return re.compile("".join(parts), re.IGNORECASE)


def _moment(found: Mapping[str, str | None], zone: tzinfo) -> datetime:
    get = found.get
    year = int(get("Y") or 0) or _full_year(int(get("y") or 0))
    month, day = _month_and_day(year, found)
    hour, minute = _hour(found), int(get("M") or 0)
    if (both := get("HM")) is not None:
        hour, minute = divmod(int(both), 100)
    second = int(get("S") or 0)
    micro = int(f"{(get('f') or '')[:6]:0<6}")
    moment = clock_time(year, month, day, hour, minute, second, micro)
    if (name := get("Z")) is not None:
        return _in_named_zone(moment, name, zone)
    offset = get("z")
    return moment if offset is None else moment.replace(tzinfo=_fixed_offset(offset))


def clock_time(year: int, month: int, day: int, hour: int, minute: int, second: int, micro: int) -> datetime:
    """A local time: 24:00 is 0 o'clock of the next day, and second 60, a leap second, the next minute."""
    if hour < 24 and second < 60:
        return datetime(year, month, day, hour, minute, second, micro)
    if hour == 24 and (minute or second or micro):
        raise ValueError("expected no time after 24:00")
    try:
        return datetime(year, month, day) + timedelta(hours=hour, minutes=minute, seconds=second, microseconds=micro)
    except OverflowError:
        raise ValueError("expected a time of the years 1 to 9999") from None


def _month_and_day(year: int, found: Mapping[str, str | None]) -> tuple[int, int]:
    get = found.get
    if (day_of_year := get("j")) is not None:
        date = datetime(year, 1, 1) + timedelta(days=int(day_of_year) - 1)
        if date.year != year:
            raise ValueError(f"expected a day of the year, found {day_of_year}")
        return date.month, date.day
    name = get("b")
    return int(get("m") or 1) if name is None else _month(name), int(get("d") or 1)


@functools.lru_cache(256)
def _month(name: str) -> int:
    """The number of a month, by its name or an abbreviation of three letters or more that no other month has."""
    found = {at for at, names in enumerate(_MONTHS, 1) if any(one.startswith(name.lower()) for one in names)}
    if len(found) != 1:
        raise ValueError(f"expected the name of a month, found {name}")
    return found.pop()


def _hour(found: Mapping[str, str | None]) -> int:
    if (hour := found.get("I")) is not None:
        return int(hour) % 12 + (12 if (found["p"] or "")[0] in "pP" else 0)
    return int(found.get("H") or 0)


def _full_year(two_digits: int) -> int:
    """As POSIX has it: 69 to 99 are of the last century."""
    return two_digits + (1900 if two_digits >= 69 else 2000)


def _fixed_offset(text: str) -> tzinfo:
    if text in "Zz":
        return timezone.utc
    digits = text[1:].replace(":", "")
    minutes = int(digits[:2]) * 60 + int(digits[2:] or 0)
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))


def _in_named_zone(moment: datetime, name: str, zone: tzinfo) -> datetime:
    """The time in the zone that its text names: CET is one of the two times that clocks in Europe/Berlin show."""
    if name.upper() in _UTC_NAMES:
        return moment.replace(tzinfo=timezone.utc)
    if "/" in name:
        return moment.replace(tzinfo=_database_zone(name))
    for fold in (0, 1):
        local = moment.replace(tzinfo=zone, fold=fold)
        if (local.tzname() or "").upper() == name.upper():
            return local
    shown = moment.replace(tzinfo=zone).tzname()
    raise ValueError(f'expected the name of a time of {zone}, which is {shown} then, found {name}: set "timezone"')


@functools.lru_cache(64)
def _database_zone(name: str) -> tzinfo:
    import zoneinfo  # here: most devices use UTC, and save its memory

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"expected a zone of this machine's zone database (pip install tzdata), found {name}"
        ) from None
