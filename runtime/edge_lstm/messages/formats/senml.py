"""Resolves SenML packs (RFC 8428): each record gets its full name, own time and unit. It refuses later versions.

The JSON form is read; the other forms (CBOR, XML, EXI) are not.
"""

from __future__ import annotations

import math
from typing import Any

from edge_lstm.messages.formats.payloads import PayloadError, parse_json, shown, shown_bytes

# The keys of a resolved record.
NAME, LOCAL_NAME, VALUE, UNIT, TIME = "name", "n", "value", "unit", "time"

_RELATIVE_BELOW = 2.0**28  # a smaller time is relative to now (RFC 8428, 4.5.3)
_NEWEST_VERSION = 10
_MOST_FAULTS = 1000  # in a pack, after which the rest is not read: describing a fault takes time
_SENSIBLE = ("v", "vb", "vs")  # where a record has its value; `vd` holds other data


def parse_senml(payload: bytes) -> list[Any]:
    """The records of a pack with their base values added, as dicts; a PayloadError in place of one that is not valid.

    `time` is in seconds since 1970, or a number below 2**28 relative to the arrival. Raises PayloadError if the payload
    is not a JSON list, or of a version that this module does not know.
    """
    pack = parse_json(payload)
    if not isinstance(pack, list):
        raise PayloadError(f"expected a SenML pack, which is a JSON list, found {shown_bytes(payload)}")
    base: dict[str, Any] = {}
    records: list[Any] = []
    faults = 0
    for record in pack:
        try:
            resolved = _resolved(record, base)
        except PayloadError as error:
            records.append(error)
            faults += 1
            if faults == _MOST_FAULTS:
                break
        else:
            if resolved is not None:
                records.append(resolved)
    return records


def absolute_time(time: Any, arrival: float) -> Any:
    """The time of a resolved record: what is relative is added to the arrival."""
    return arrival + time if isinstance(time, (int, float)) and time < _RELATIVE_BELOW else time


def _resolved(record: Any, base: dict[str, Any]) -> dict[str, Any] | None:
    """The record with the base values that hold from here on, which it may change; None if it has no value."""
    if not isinstance(record, dict):
        raise PayloadError(f"expected a SenML record, which is an object, found {shown(record)}")
    for key in record:
        if key.endswith("_"):  # "must understand" (RFC 8428, 4.4)
            raise PayloadError(
                f"expected a SenML record without extensions that must be understood, found {shown(key)}"
            )
    base.update({key: record[key] for key in ("bn", "bt", "bu", "bv", "bver") if key in record})
    version = base.get("bver", _NEWEST_VERSION)
    if not isinstance(version, (int, float)) or version > _NEWEST_VERSION:
        raise PayloadError(f"expected SenML up to version {_NEWEST_VERSION} (bver), found {shown(version)}")
    value = next((record[key] for key in _SENSIBLE if key in record), None)
    if value is None:
        return None
    if "v" in record:
        value = _sum(base.get("bv", 0), value, "v")
    prefix, local = base.get("bn", ""), record.get("n", "")
    if not isinstance(prefix, str) or not isinstance(local, str):
        raise PayloadError(f"expected texts as SenML names, found {shown(prefix)} and {shown(local)}")
    resolved = {NAME: prefix + local, LOCAL_NAME: local or prefix, VALUE: value, UNIT: record.get("u", base.get("bu"))}
    if "bt" in base or "t" in record:
        resolved[TIME] = _sum(base.get("bt", 0), record.get("t", 0), "t")
    return resolved


def _sum(base: Any, own: Any, key: str) -> float:
    """Base value and own value of a record."""
    for number in (base, own):
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            raise PayloadError(f'expected a SenML number under "{key}", found {shown(number)}')
    try:
        return float(base + own) if base else own
    except OverflowError:
        return math.inf
