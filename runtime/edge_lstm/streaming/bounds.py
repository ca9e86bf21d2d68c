"""A cheap check that numbers are within a bound. It can only confirm: if it fails, each number has to be checked."""

from __future__ import annotations

import numpy as np

from edge_lstm.foundation.arrays import Floats

_MAX_PER_PRODUCT = 8192  # numbers: from 10,000 on OpenBLAS starts threads of its own


def squares_below(numbers: Floats, bound: float) -> bool:
    """Whether the sum of the squares is below `bound`. A NaN makes it False."""
    if numbers.size > _MAX_PER_PRODUCT:
        return float(np.square(numbers, dtype=np.float64).sum()) < bound
    return float(np.vdot(numbers, numbers)) < bound
