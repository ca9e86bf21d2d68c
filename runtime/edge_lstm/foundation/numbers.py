"""Words of devices for numbers, and float32 numbers in their shortest digits: 812.4, not 812.4000244140625."""

from __future__ import annotations

import contextlib
import math
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
_MISSING = ("", "nan", "null", "none", "unavailable", "unknown", "err", "error", "n/a", "na", "-", "--")
WORD_VALUES: Mapping[str, float] = {**SWITCHES, **dict.fromkeys(_MISSING, math.nan)}

# between these magnitudes orjson and Python both write a number without exponent
_NO_EXPONENT_FROM, _NO_EXPONENT_BELOW = 1e-3, 1e12

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
