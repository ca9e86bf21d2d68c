"""What is known of the sensors of many streams at a step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_lstm.foundation.arrays import Flags, Floats, Slots


class Sensed(NamedTuple):
    """The sensors of n streams at a step."""

    values: Floats  # (n, features): those that are not used are replaced
    missing: Flags  # (n, features): with those that are not used
    doubted: Flags  # (n,): whether the value of one is not used that is not dead, or not known to be
    turned: Flags  # (n,): whether one died or came back at this step
    faults: NDArray[np.uint8]  # (n, features): index into FAULTS

    def of(self, places: Slots) -> Sensed:
        """The sensors of the streams at these places."""
        return Sensed(
            self.values[places],
            self.missing[places],
            self.doubted[places],
            self.turned[places],
            self.faults[places],
        )
