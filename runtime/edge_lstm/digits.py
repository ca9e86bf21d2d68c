"""float32 numbers by their own digits: 812.4, and not the 812.4000244140625 that the nearest float64 would show."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_fast: Any = None
with contextlib.suppress(ImportError):  # the extra `fast`: the same digits in a twentieth of the time
    import orjson as _fast


def _plain_digits(values: NDArray[np.float32]) -> list[list[float]]:
    return [[float(str(value)) for value in row] for row in values]


def _fast_digits(values: NDArray[np.float32]) -> list[list[float]]:
    if not np.isfinite(values).all():  # JSON has no word for these
        return _plain_digits(values)
    found: list[list[float]] = _fast.loads(_fast.dumps(np.ascontiguousarray(values), option=_fast.OPT_SERIALIZE_NUMPY))
    return found


# (n, m) -> n lists of m floats, each written with the fewest digits that no other float32 has
own_digits: Callable[[NDArray[np.float32]], list[list[float]]] = _plain_digits if _fast is None else _fast_digits
