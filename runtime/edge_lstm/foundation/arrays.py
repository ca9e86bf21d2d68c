"""Names of NumPy array types, one for each kind of number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Records = NDArray[np.void]
Slots = Integers  # indexes of streams in the stream table


def narrow(values: NDArray[Any], kind: Any) -> Integers:
    """The values as a smaller type of integers (np.int32, np.int8): large recordings have millions of them."""
    found: NDArray[Any] = values.astype(kind, copy=False)
    return found
