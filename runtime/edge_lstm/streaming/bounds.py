"""Whether numbers surely lie within a bound, by one product; what does not may yet, and takes a closer look."""

from __future__ import annotations

import numpy as np

from edge_lstm.foundation.arrays import Floats

_MAX_PER_PRODUCT = 8192  # numbers a product of vectors: from 10,000 on OpenBLAS wakes threads of its own


def squares_below(numbers: Floats, bound: float) -> bool:
    """Whether the sum of the squares is below `bound`: the quickest to have, and a NaN is not below anything."""
    if numbers.size > _MAX_PER_PRODUCT:
        return float(np.square(numbers, dtype=np.float64).sum()) < bound
    return float(np.vdot(numbers, numbers)) < bound
