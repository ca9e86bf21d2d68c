"""Parses JSON of an untrusted source: values are counted before any is made."""

from __future__ import annotations

import json
from typing import Any

_MOST_DIGITS = 1000  # of a whole number; the largest float64 has 309


def parsed_json(raw: bytes, most_values: int) -> Any:
    """The value of the JSON text. Raises ValueError where it is none, or has more than about `most_values` values."""
    # a value is followed by a comma, or is the last of a list or table
    if (values := raw.count(b",") + raw.count(b"[") + raw.count(b"{")) > most_values:
        raise ValueError(f"about {values} values, more than {most_values}")
    try:
        return json.loads(raw, parse_int=_whole_number)
    except RecursionError:
        raise ValueError("lists within lists, too deep") from None


def _whole_number(text: str) -> int:
    if len(text) > _MOST_DIGITS:  # its conversion takes time with the square of its length
        raise ValueError("a number of very many digits")
    return int(text)
