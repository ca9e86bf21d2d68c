"""The formats by which one cell may be read as a date, a time of day or both: 01/03/2024 has two."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import tzinfo
from itertools import product

from edge_lstm.foundation.times.formats import format_reader

_ISO_DATES = ("%Y-%m-%d", "%Y/%m/%d")
_ISO_CLOCKS = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f")
_BARE_CLOCKS = ("%H", "%H.%M", "%H.%M.%S")  # a measured value may look like these, and like 20240301,
_DATE_NAMES = ("date", "day", "datum", "fecha", "data", "jour", "yyyymmdd", "time", "stamp")  # so the column's name
_CLOCK_NAMES = ("time", "hour", "clock", "uhr", "zeit", "stunde", "heure", "hora", "ora")  # must fit too
_BARE_DATE = re.compile(r"(?:19|20)\d{6}")
_WEEKDAY = r"(?P<weekday>[^\W\d_]{2,12}\.?)"
_PART = r"\d{1,4}|[^\W\d_]{3,10}\.?"
_DATE = re.compile(
    rf"(?:{_WEEKDAY}(?P<s0>,?\s+))?"
    rf"(?P<a>{_PART})(?P<s1>[-/. ,]{{1,2}})(?P<b>{_PART})(?P<s2>[-/. ,]{{1,2}})(?P<c>{_PART})",
    re.IGNORECASE,
)
_CLOCK_TEXT = (
    r"(?P<h>\d{1,2})(?P<c1>[:.])\d{1,2}(?:(?P<c2>[:.])\d{1,2}(?:(?P<c3>[.,])\d{1,12})?)?"
    r"(?:(?P<c4>\s*)(?P<p>[ap]\.?m\.?))?"
)
_CLOCK = re.compile(_CLOCK_TEXT, re.IGNORECASE)
_BOTH = re.compile(
    rf"(?P<date>.*?\w)(?P<join>T|_|:|,?\s+(?:-\s+)?)(?P<clock>{_CLOCK_TEXT})"
    r"(?P<gap>\s*)(?P<zone>Z|[+-]\d\d(?::?\d\d)?|[A-Za-z]{2,6}|[A-Za-z_]+/[A-Za-z_/+-]+)?",
    re.IGNORECASE,
)
_COMPACT = re.compile(r"\d{8}(?P<join>[ _-]?)(?:\d{4}|(?P<seconds>\d{6}))")
_UNIX_DATE = re.compile(
    rf"{_WEEKDAY}\s+[A-Za-z]{{3}}\s+\d{{1,2}}\s+\d\d:\d\d:\d\d(?P<zone>\s+[A-Z]{{2,5}})?\s+\d{{4}}", re.I
)


def date_formats(name: str, cell: str) -> list[str]:
    """Formats of a cell that is a date; digits alone need a column that is named like one."""
    if _BARE_DATE.fullmatch(cell) and not _is_named(name, _DATE_NAMES):
        return []
    return _fitting([*_date_forms(cell)], cell)


def clock_formats(name: str, cell: str) -> list[str]:
    """Formats of a cell that is a time of day; digits without a colon need a column that is named like one."""
    named = says_clock(name)
    forms = [form for form in _clock_forms(cell) if named or ":" in form] + [*(_BARE_CLOCKS if named else ())]
    return [one.removeprefix("%Y ") for one in _fitting([f"%Y {one}" for one in forms], f"2000 {cell}")]


def says_clock(name: str) -> bool:
    """Whether a column is named like a time of day."""
    return _is_named(name, _CLOCK_NAMES) or name.lower() in ("hh", "hhmm", "utc")


def moment_formats(cell: str, zone: tzinfo) -> list[str]:
    """Formats of a cell that is a date and a time of day, perhaps with a zone, in whatever order."""
    forms: list[str] = []
    if (unix := _UNIX_DATE.fullmatch(cell)) is not None:
        forms.append(f"%a %b %d %H:%M:%S {'%Z ' if unix['zone'] else ''}%Y")
    if (found := _BOTH.fullmatch(cell)) is not None:
        name = found["zone"] or ""
        suffix = found["gap"] + ("" if not name else "%z" if re.match("[+-]|Z$", name, re.I) else "%Z")
        clocks = list(_clock_forms(found["clock"].rstrip()))
        forms += [date + found["join"] + clock + suffix for date, clock in product(_date_forms(found["date"]), clocks)]
    if (compact := _COMPACT.fullmatch(cell)) is not None:
        forms.append(f"%Y%m%d{compact['join']}%H%M{'%S' if compact['seconds'] else ''}")
    date, _, clock = cell.partition(" ")
    forms += [f"{one} {bare}" for one, bare in product(_date_forms(date), _BARE_CLOCKS)]
    forms += [f"{one} {other}" for one, other in product(_clock_forms(date), _date_forms(clock))]
    return _fitting(forms, cell, zone)


def is_iso(date: str, clock: str = "") -> bool:
    """Whether a format is one of ISO 8601, which needs none where its parts have all their digits."""
    return date in _ISO_DATES and clock in ("", *_ISO_CLOCKS)


def is_iso_moment(form: str) -> bool:
    """Whether a format of date and time of day is one of ISO 8601."""
    date, _, clock = form.replace("T", " ").partition(" ")
    return is_iso(date, clock)


def _date_forms(text: str) -> Iterator[str]:
    if _BARE_DATE.fullmatch(text):
        yield "%Y%m%d"
    found = _DATE.fullmatch(text)
    if found is None:
        return
    a, b, c = found["a"], found["b"], found["c"]
    weekday = "%a" + found["s0"] if found["weekday"] else ""
    for order in _orders(a, b, c, found["s1"]):
        yield weekday + f"%{order[0]}{_literal(found['s1'])}%{order[1]}{_literal(found['s2'])}%{order[2]}"


def _literal(separator: str) -> str:
    return " " if separator.isspace() else separator


def _orders(a: str, b: str, c: str, separator: str) -> Sequence[str]:
    """The codes of three parts of a date, the usual order first."""
    if a[0].isalpha():
        return ["bdY"]
    if b[0].isalpha():
        return ["Ybd"] if len(a) == 4 else ["dbY"] if len(c) == 4 else ["dby"]
    if len(a) == 4:
        return ["Ymd"]
    if len(c) == 4:
        return ["dmY"] if "." in separator else ["dmY", "mdY"]
    return ["dmy"] if "." in separator else ["dmy", "mdy", "ymd"]


def _clock_forms(text: str) -> Iterator[str]:
    found = _CLOCK.fullmatch(text)
    if found is None:
        return
    seconds = f"{found['c2']}%S{found['c3'] + '%f' if found['c3'] else ''}" if found["c2"] else ""
    clock = f"{found['c1']}%M{seconds}"
    yield f"%I{clock}{found['c4']}%p" if found["p"] else f"%H{clock}"


def _is_named(name: str, words: Sequence[str]) -> bool:
    return any(word in name.lower() for word in words)


def _fitting(forms: Sequence[str], text: str, zone: tzinfo | None = None) -> list[str]:
    fitting = []
    for form in dict.fromkeys(forms):
        try:
            (format_reader(form) if zone is None else format_reader(form, zone))(text)
        except ValueError:
            continue
        fitting.append(form)
    return fitting
