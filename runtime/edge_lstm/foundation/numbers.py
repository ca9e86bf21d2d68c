"""Numbers as devices write them (words, units, thousands), and float32 in its shortest digits: 812.4, not 812.40002."""

from __future__ import annotations

import contextlib
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge_lstm.foundation.arrays import Floats

FLOAT32_MAX = 3.4028234663852886e38  # the largest float32
_SWITCHED_ON = ("on", "true", "open", "yes", "enabled", "active", "running")
_SWITCHED_OFF = ("off", "false", "closed", "no", "disabled", "inactive", "stopped")
_GERMAN_ON, _GERMAN_OFF = (
    ("ein", "an", "ja", "wahr", "offen", "aktiv"),
    ("aus", "nein", "falsch", "geschlossen", "inaktiv"),
)
_FRENCH_ON, _FRENCH_OFF = ("oui", "vrai", "ouvert"), ("non", "faux", "fermé")
SWITCHES: Mapping[str, float] = {
    **dict.fromkeys((*_SWITCHED_ON, *_GERMAN_ON, *_FRENCH_ON), 1.0),
    **dict.fromkeys((*_SWITCHED_OFF, *_GERMAN_OFF, *_FRENCH_OFF), 0.0),
}
_MISSING = (
    *("", "nan", "null", "none", "unavailable", "unknown", "err", "error", "n/a", "na", "-", "--", "---", "----"),
    *("#n/a", "#na", "#num!", "#value!", "#ref!", "#div/0!"),  # spreadsheets
)
WORD_VALUES: Mapping[str, float] = {**SWITCHES, **dict.fromkeys(_MISSING, math.nan)}
# What loggers and control systems write in place of a number; among texts, `bad` may be a category.
_NO_NUMBER = ("over", "under", "overflow", "underflow", "overrange", "underrange", "ol", "bad", "no data", "nodata")
NUMBER_WORDS: Mapping[str, float] = {**WORD_VALUES, **dict.fromkeys(_NO_NUMBER, math.nan)}

# A number and what follows it. A unit begins with no digit or sign, so 12:30, 1/2 and 2024-03-01 have none.
_WITH_REST = re.compile(
    r"([+-]?(?:\d(?:[\d.,\u2019'\u00a0\u202f]*\d)?\.?|[.,]\d+)(?:[eE][+-]?\d+)?)\s*([^\d\s.,:;/+_'-].{0,19})", re.DOTALL
)
# Terms like kWh, m3 or s-1. A digit is a power, so 12h30 and 0x1F have no unit.
_STRIPPED = re.compile(r"(?![xXeE]\d?$)[%\u2030]?(?:(?:^|[ /*.]|(?<=[%\u2030]))[^\W\d_]+(?:-?[1-4])?)*")
_GROUPED = {  # by decimal comma: numbers whose separators can only be of thousands; 1,234 may be 1.234
    False: re.compile(r"[+-]?\d{1,3}(?:(?:,\d{3})+\.\d+|(?:,\d{3}){2,}|(?:[\u2019'\u00a0\u202f]\d{3})+(?:\.\d+)?)"),
    True: re.compile(r"[+-]?\d{1,3}(?:(?:\.\d{3})+,\d+|(?:\.\d{3}){2,}|(?:[\u2019'\u00a0\u202f]\d{3})+(?:,\d+)?)"),
}
_SEPARATORS = re.compile(r"[\u2019'\u00a0\u202f]")
# Spellings of one unit, after `_unit_key` replaced its signs. SenML has its own names (RFC 8428, 12.1).
_SPELLINGS = {
    "degC": "C Cel celsius Celsius degreeC",
    "degF": "F fahrenheit Fahrenheit",
    "K": "degK kelvin Kelvin",
    "deg": "degree degrees",
    "%": "%RH %rH %rh RH% percent",
    "bar": "Bar BAR",
    "hPa": "hpa HPA",
    "rpm": "RPM r/min",
    "ppm": "PPM",
    "ppb": "PPB",
    "lx": "lux Lux LUX",
    "km/h": "kmh kph",
    "kW": "KW",
    "kWh": "kwh KWh KWH",
    "V": "volt Volt volts",
    "A": "amp amps ampere",
    "W": "watt Watt watts",
    "Hz": "hz HZ",
    "\u03a9": "ohm Ohm",
}
_SAME_UNIT = {spelling: unit for unit, others in _SPELLINGS.items() for spelling in others.split()}

# between these magnitudes orjson and Python both write a number without exponent
_NO_EXPONENT_FROM, _NO_EXPONENT_BELOW = 1e-3, 1e12


def without_unit(text: str, unit: str) -> str | None:
    """The number in a text like `21.5 °C`, as a text; None unless the rest is `unit`, in any of its spellings.

    With the unit `strip` the rest may be any unit. The number itself is not checked.
    """
    found = _WITH_REST.fullmatch(text.strip())
    if found is None or not unit:
        return None
    number, rest = found[1], found[2].strip()
    fits = _STRIPPED.fullmatch(_plain_signs(rest)) is not None if unit == "strip" else same_unit(rest, unit)
    return number if fits else None


def same_unit(one: str, other: str) -> bool:
    """Whether two texts mean the same unit: m³/h and m3/h, ℃ and C. Upper and lower case differ: mW is not MW."""
    return one == other or _unit_key(one) == _unit_key(other)


def _unit_key(unit: str) -> str:
    key = re.sub(r"\s", "", _plain_signs(unit))
    return _SAME_UNIT.get(key, key)


def _plain_signs(unit: str) -> str:
    """The unit with ³ as 3, ° as deg and · as *."""
    key = unicodedata.normalize("NFKC", unit).replace("\u00b0", "deg").replace("\u00b7", "*").replace("\u2212", "-")
    return key.replace("**", "").replace("^", "")


def without_thousands(text: str, *, decimal_comma: bool = False) -> str | None:
    """A text like `1,234.5` or `1'234` without its separators of thousands; None if it has none, or may have none."""
    if _GROUPED[decimal_comma].fullmatch(text) is None:
        return None
    return _SEPARATORS.sub("", text).replace("." if decimal_comma else ",", "")


_orjson: Any = None
with contextlib.suppress(ImportError):  # extra `fast`: the same digits in a twentieth of the time
    import orjson as _orjson


def _python_digits(values: Floats) -> list[list[float]]:
    return [[float(str(value)) for value in row] for row in values]


def _orjson_digits(values: Floats) -> list[list[float]]:
    if not np.isfinite(values).all():  # JSON has no NaN and no infinity
        return _python_digits(values)
    found: list[list[float]] = _orjson.loads(
        _orjson.dumps(np.ascontiguousarray(values), option=_orjson.OPT_SERIALIZE_NUMPY)
    )
    return found


def _python_texts(values: Floats) -> list[str]:
    return [repr(number) if math.isfinite(number) else "null" for row in _python_digits(values) for number in row]


def _orjson_texts(values: Floats) -> list[str]:
    texts: list[str] = _orjson.dumps(values.ravel(), option=_orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode().split(",")
    size = np.abs(values)
    usual = (size >= _NO_EXPONENT_FROM) & (size < _NO_EXPONENT_BELOW)
    if np.count_nonzero(usual) < usual.size:  # orjson writes exponents in another form than Python
        for place in np.flatnonzero(~usual).tolist():
            (texts[place],) = _python_texts(values.ravel()[place].reshape(1, 1))
    return texts


# (n, m) -> n lists of m floats, each with the fewest digits that identify the float32
shortest_digits: Callable[[Floats], list[list[float]]] = _python_digits if _orjson is None else _orjson_digits
# (n, m), n and m at least 1 -> n * m JSON texts as Python writes these numbers; null for NaN and infinity
shortest_texts: Callable[[Floats], list[str]] = _python_texts if _orjson is None else _orjson_texts
