"""A column of an unknown number of rows, in one array that grows: many small ones leave memory scattered and unused."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAST_ROOM = 1024  # rows
_GROWTH = 9 / 8


class GrowingColumn:
    """Rows of one type and shape, appended block by block."""

    def __init__(self, dtype: Any, shape: tuple[int, ...] = ()) -> None:
        """shape: of one row."""
        self._values = np.empty((0, *shape), dtype)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, rows: NDArray[Any]) -> None:
        """Append (rows, *shape)."""
        end = self._length + len(rows)
        if end > len(self._values):
            room = max(end, int(len(self._values) * _GROWTH), _LEAST_ROOM)
            self._values.resize((room, *self._values.shape[1:]), refcheck=False)  # moves pages of memory, copies none
        self._values[self._length : end] = rows
        self._length = end

    def whole(self) -> NDArray[Any]:
        """All rows, once: the column is then empty."""
        values, length = self._values, self._length
        self._values, self._length = np.empty((0, *values.shape[1:]), values.dtype), 0
        values.resize((length, *values.shape[1:]), refcheck=False)
        return values
