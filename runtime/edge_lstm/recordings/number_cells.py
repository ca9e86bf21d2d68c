"""Cells like `21 °C` and `1,234.5`: numbers with a unit or with separators of thousands, as plain numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edge_lstm.foundation.numbers import without_thousands, without_unit

_UNIT = re.compile(r"^[\d\s.,'+\-eE\u2019\u00a0\u202f]*\d[\s\u00a0\u202f]*")


def plain_number(text: str, unit: str, decimal_comma: bool, thousands: str) -> str | None:
    """The cell as a number with a decimal point; None if it is neither a number with this unit nor one with thousands.

    `thousands`: the sign between groups of three digits. Without it, only groups that are certain are joined: 1,234 may
    be 1.234, but 1,234,567 may not.
    """
    bare = text.strip()
    number = without_unit(bare, unit) if unit else None
    bare = bare if number is None else number
    joined = (
        _without(bare, thousands, decimal_comma) if thousands else without_thousands(bare, decimal_comma=decimal_comma)
    )
    bare = bare if joined is None else joined
    if joined is None and decimal_comma and "." in bare:
        return None  # 1.234 may be a thousand
    point = bare.replace(",", ".") if decimal_comma else bare
    return point if _is_number(point) else None


def cell_unit(text: str) -> str:
    """The unit of a cell that is a number with a unit, else an empty text."""
    bare = text.strip()
    return "" if without_unit(bare, "strip") is None else _UNIT.sub("", bare)


def found_thousands(cells: Sequence[str], decimal_comma: bool) -> str:
    """The separator of thousands of these cells; empty unless one of them is certain and no cell contradicts it."""
    for sign in "." if decimal_comma else ",":
        with_sign = [text.strip() for text in cells if sign in text]
        certain = any(without_thousands(text, decimal_comma=decimal_comma) for text in with_sign)
        if certain and all(_without(text, sign, decimal_comma) is not None for text in with_sign):
            return sign
    return ""


def _without(text: str, sign: str, decimal_comma: bool) -> str | None:
    """The number without separators of thousands; None if a group has not three digits, or there is none."""
    point = "," if decimal_comma else "."
    form = rf"[+-]?\d{{1,3}}(?:{re.escape(sign)}\d{{3}})+(?:{re.escape(point)}\d*)?"
    return text.replace(sign, "") if re.fullmatch(form, text) else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text
