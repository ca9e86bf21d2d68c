"""A wrapper that steps a backend one row at a time, for kernels whose bits depend on other rows or on the position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_lstm.backends.protocol import Backend
from edge_lstm.foundation.arrays import Floats


class RowByRow:
    """Steps another backend with batches of one row only, so that no row can change another."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.scheme = backend.name, backend.scheme
        self._backend = backend

    def step(self, features: Floats, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        """The same as the wrapped backend. The time is proportional to the number of rows."""
        if len(features) == 1:
            return self._backend.step(features, states)
        rows = [
            self._backend.step(features[row : row + 1], [state[row : row + 1] for state in states])
            for row in range(len(features))
        ]
        columns = zip(*(following for _, following in rows), strict=True)
        return np.concatenate([row for row, _ in rows]), [np.concatenate(column) for column in columns]
