"""Columns that seem to hold times but are not read as such: they are refused, or named in a note."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from edge_lstm.foundation.arrays import Doubles
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.columns import TimeColumns
from edge_lstm.recordings.tables.table import Table
from edge_lstm.recordings.times.zone_search import zones_that_say

_TIME_NAMES = {
    *(
        "time",
        "date",
        "datetime",
        "timestamp",
        "ts",
        "zeit",
        "datum",
        "uhrzeit",
        "zeitstempel",
        "heure",
        "fecha",
        "hora",
    ),
    *("horodatage", "datahora", "fechahora", "datumzeit"),
}
_HOURS = ("hour", "hours", "hh", "hhmm", "hh:mm", "stunde", "heure")
_TIME_ENDINGS = ("time", "date", "stamp", "zeit", "datum")
_LIKE_A_TIME = re.compile(r"\d{1,4}[-/. ](?:\d{1,2}|[^\W\d_]{3,10})[-/. ]\d{2,4}|\d{1,2}:\d\d")
_ABBREVIATION = re.compile(r".*\d ?([A-Z]{3,5})")


def refuse_unread(table: Table, first: dict[str, str], asked: TimeColumns) -> None:
    """Raises EdgeLstmError for a column that is asked for or named like a time, and whose cells have digits."""
    for name, cell in first.items():
        if name in asked.columns or (says_time(name) and re.search(r"\d", cell)):
            way = "name its format (--time-format, or time_format in a recipe), like %d.%m.%Y %H:%M"
            raise EdgeLstmError(
                f'{table.source}, column "{name}": expected times, found {cell!r}',
                _zone_hint(cell) or f"{way}; or give the seconds between rows (--interval) if it is no time",
            )


def refuse_days_alone(table: Table, first: dict[str, str], date: str, days: Doubles) -> None:
    """Raises EdgeLstmError if most rows have the date of the row before, and a column named like a clock is not read.

    `date`: the column of dates; `days`: (rows,) its times.
    """
    clock = next((name for name in first if name != date and (says_time(name) or name.lower() in _HOURS)), None)
    if clock is None or not days.size or (np.diff(days) == 0).mean() <= 0.5:
        return
    raise EdgeLstmError(
        f'{table.source}, column "{clock}": expected times of day beside the dates in "{date}", found {first[clock]!r}',
        f'name both columns and their format: --time "{date}" --time "{clock}" --time-format FORMAT',
    )


def unread_notes(first: dict[str, str]) -> Iterator[str]:
    """A note for each column that may hold times, by its name or its first cell."""
    for name, cell in first.items():
        if says_time(name) or name.lower().endswith(_TIME_ENDINGS) or (_LIKE_A_TIME.search(cell) and len(cell) < 40):
            yield f'column "{name}" is not read as times, since its first cell is {cell!r}'


def says_time(name: str) -> bool:
    words = re.split(r"[\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    return any(word in _TIME_NAMES for word in words)


def _zone_hint(cell: str) -> str | None:
    """What to do about a zone's abbreviation, which is not unique."""
    found = _ABBREVIATION.fullmatch(cell)
    if found is None:
        return None
    zones = list(zones_that_say(found[1]))[:3] or ["the zone's name, like Europe/Berlin"]
    return (
        f"several zones have times called {found[1]}: name yours by --timezone, like {' or '.join(zones)}; in a recipe "
        'by timezone, beside time_format = "%Y-%m-%d %H:%M:%S %Z"'
    )
