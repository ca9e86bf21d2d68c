"""Checks of arguments from Python: a value of a wrong type gets a sentence instead of a traceback from inside."""

from __future__ import annotations

import json
import math
import operator
import os
from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import escaped

_LONGEST = 60  # characters of a text, in a message


def quoted(text: str) -> str:
    """A text on one line and not too long."""
    return escaped(json.dumps(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…", ensure_ascii=False))


def described(value: object) -> str:
    """What was found, by its type; a text or number with its value."""
    if isinstance(value, (str, int, float)):
        found = type(value).__name__
        size = value.bit_length() // 3 if isinstance(value, int) else len(repr(value))  # Python prints no huge int
        return f"the {found} {value!r}" if size <= _LONGEST else found
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else f"an object of type {type(value).__name__}"


def path_argument(
    value: object, expected: str, refusal: type[EdgeLstmError] = EdgeLstmError, hint: str = "give a str or a Path"
) -> Path:
    """The path. Raises `refusal` for what is neither a str nor a Path, and for a text that no path can be."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(text := os.fspath(value), str):
        raise refusal(f"expected {expected}, found {described(value)}", hint)
    if "\0" in text:
        raise refusal(f"expected {expected}, found {quoted(text)} with a null character", "correct the path")
    return Path(text)


def whole_number(
    value: object, name: str, least: int, most: int, refusal: type[EdgeLstmError] = EdgeLstmError, hint: str = ""
) -> int:
    """The integer, also of numpy. Raises `refusal` for another type and outside `least` to `most`."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        expected = f"{name} as a whole number of {least} to {most}"
        raise refusal(f"expected {expected}, found {described(value)}", hint or "choose such a number")
    return number


def flag_argument(value: object, name: str, refusal: type[EdgeLstmError] = EdgeLstmError) -> bool:
    """The bool, also of numpy. Raises `refusal` for another type: a text like "no" would count as true."""
    if type(value).__name__ not in ("bool", "bool_"):  # numpy is not imported for this
        raise refusal(f"expected {name} as True or False, found {described(value)}", "give True or False")
    return bool(value)


def number_argument(value: object, name: str, refusal: type[EdgeLstmError] = EdgeLstmError) -> float:
    """The float of a number, also of numpy. Raises `refusal` for another type, for NaN and infinity."""
    is_number = hasattr(value, "__float__") and not isinstance(value, (bool, str, bytes))
    try:
        number = float(value) if is_number else math.nan  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise refusal(f"expected {name} as a number, found {described(value)}", "give a finite number")
    return number
