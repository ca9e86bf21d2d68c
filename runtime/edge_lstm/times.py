"""Times as devices write them, to seconds since 1970 (UTC) and back; a time without a zone is UTC."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

# Seconds since 1970 stay below this until the year 5138; the same instants in milliseconds lie above it from 1973 on.
_FIRST_MILLISECONDS = 1e11


def parse_time(value: object) -> float:
    """Seconds since 1970 for ISO 8601 text, epoch seconds or epoch milliseconds (as numbers or as text).

    Raises ValueError where `value` is none of them.
    """
    if isinstance(value, str):
        text = value.strip()
        try:
            return _from_number(float(text))
        except ValueError:
            return _from_iso(text)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _from_number(float(value))
    raise ValueError(f"{value!r} is not a time: expected ISO 8601, or seconds or milliseconds since 1970")


def _from_number(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(f"{number} is not a time: expected a finite number")
    return number / 1000.0 if abs(number) >= _FIRST_MILLISECONDS else number


def _from_iso(text: str) -> float:
    iso = text.replace("/", "-")
    if iso.endswith(("Z", "z")):  # fromisoformat takes the Z from Python 3.11 on
        iso = iso[:-1] + "+00:00"
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError:
        raise ValueError(f"{text!r} is not a time: expected ISO 8601, or seconds or milliseconds since 1970") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()


def format_time(seconds: float) -> str:
    """ISO 8601 in UTC, with milliseconds only where there are any: `2016-10-13T10:45:00Z`."""
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=round(seconds * 1000))
    precision = "milliseconds" if moment.microsecond else "seconds"
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"
