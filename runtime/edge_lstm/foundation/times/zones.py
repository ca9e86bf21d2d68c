"""Local times of a zone whose clocks are set twice a year: which hour is missing, and which of two equal ones it is."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone, tzinfo
from typing import NamedTuple

from edge_lstm.foundation.times.text import format_time

_DAY_S = 86_400.0
_SCAN_S = 7 * _DAY_S  # no zone sets its clocks twice in a week
_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?([0-5]\d))?")


class Change(NamedTuple):
    """A moment at which the clocks of a zone are set."""

    at: float  # seconds since 1970
    before: float  # s, offset from UTC
    after: float  # s, offset from UTC


def zone_named(text: str) -> tzinfo:
    """The zone of a text like UTC, +01:00 or Europe/Berlin. Raises ValueError if this machine does not know it."""
    if text == "UTC":
        return timezone.utc
    if (found := _OFFSET.fullmatch(text)) is not None:
        offset = timedelta(hours=int(found[2]), minutes=int(found[3] or 0))
        return timezone(-offset if found[1] == "-" else offset)
    import zoneinfo  # here: most devices use UTC, and save its memory

    try:
        return zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        expected = "expected a zone of this machine's zone database, like Europe/Berlin (pip install tzdata)"
        raise ValueError(f'{expected}, found "{text}"') from None


def changes(zone: tzinfo, years: Iterable[int]) -> list[Change]:
    """When the clocks of a zone are set in these years; nothing for a fixed offset."""
    if isinstance(zone, timezone):
        return []
    return [change for year in sorted(set(years)) for change in _changes(zone, year)]


@functools.lru_cache(65_536)
def _changes(zone: tzinfo, year: int) -> list[Change]:
    if not 2 <= year <= 9998:
        return []
    begin = datetime(year, 1, 1, tzinfo=timezone.utc).timestamp()
    end = datetime(year + 1, 1, 1, tzinfo=timezone.utc).timestamp()
    found = []
    while begin < end:
        later = min(begin + _SCAN_S, end)
        if offset_s(zone, begin) != offset_s(zone, later):
            found.append(_change_between(zone, begin, later))
        begin = later
    return found


def _change_between(zone: tzinfo, least: float, most: float) -> Change:
    """The change after `least`, at the latest at `most`, to the second."""
    before, after = offset_s(zone, least), offset_s(zone, most)
    while most - least > 1:
        middle = (least + most) // 2
        if offset_s(zone, middle) == before:
            least = middle
        else:
            most = middle
    return Change(most, before, after)


def offset_s(zone: tzinfo, seconds: float) -> float:
    """The offset of the zone from UTC at a time, in seconds."""
    offset = datetime.fromtimestamp(seconds, zone).utcoffset()
    return 0.0 if offset is None else offset.total_seconds()


def require_existing(local: datetime, zone: tzinfo) -> None:
    """Raise ValueError for a local time that does not exist in the zone, because clocks are set forward."""
    first, second = (local.replace(tzinfo=zone, fold=fold).timestamp() for fold in (0, 1))
    if second < first:
        raise ValueError(_missing_hour(local, zone, first))


def _missing_hour(local: datetime, zone: tzinfo, seconds: float) -> str:
    change = next(one for one in changes(zone, [local.year]) if one.at <= seconds < one.at + one.after - one.before)
    from_text, to_text = (_wall_text(change.at + offset) for offset in (change.before, change.after))
    return (
        f"{local} does not exist in {zone}, where clocks were set from {from_text} to {to_text}: the times are of "
        "another zone, or keep standard time all year (then its offset, like +01:00, is their zone)"
    )


def _wall_text(seconds: float) -> str:
    return format_time(seconds)[11:16]
