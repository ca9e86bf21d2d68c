"""A backend stepped one row at a time, for kernels whose bits depend on a row's neighbours or on its place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_lstm.backends.protocol import Backend
from edge_lstm.foundation.arrays import Floats


class RowByRow:
    """Steps another backend with batches of one and nothing else, so that no row can feel another."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.scheme = backend.name, backend.scheme
        self._backend = backend

    def step(self, features: Floats, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        """As the backend; the time grows with the rows, since a batch saves nothing."""
        if len(features) == 1:
            return self._backend.step(features, states)
        rows = [
            self._backend.step(features[row : row + 1], [state[row : row + 1] for state in states])
            for row in range(len(features))
        ]
        columns = zip(*(following for _, following in rows), strict=True)
        return np.concatenate([row for row, _ in rows]), [np.concatenate(column) for column in columns]
