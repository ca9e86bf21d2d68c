"""Counters: readings of a meter to increases, over resets, overflows and single wrong zeros, in float64.

float32 has no 16,777,217, so the differences are formed before anything is rounded to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Doubles, Flags

# (modulus, smallest number) of the registers that counters overflow at: 16 and 32 bits, without sign and with it
_REGISTERS = ((2.0**16, 0.0), (2.0**32, 0.0), (2.0**16, -(2.0**15)), (2.0**32, -(2.0**31)))
_EDGE = 0.05  # an overflow falls from this last part of the register to this first part
_CORRECTION = 0.9  # a fall to more than this share is a correction or noise of the meter, and no reset
_RETURN = 1.1  # within this factor of the number before a fall, the fall was a wrong reading
_USUAL = 10.0  # largest increases; a wrong reading is only told from a reset where the number is larger than these

LAST, FALLEN, LARGEST = range(3)  # the memory of a counter: its last number, the one before a fall, its largest step
MEMORY = 3
START = (np.nan, np.nan, 0.0)


def value_type(contract: Contract) -> np.dtype[Any]:
    """The type of samples as `Sampler.rounds` gives them: on a grid, counters are increases there already."""
    return np.dtype("f8" if counter_columns(contract) and not contract.sampling.grid else "f4")


def counter_columns(contract: Contract) -> list[int]:
    """The indexes of the counters among the features."""
    return [index for index, feature in enumerate(contract.features) if feature.counter]


class Counters:
    """Counters side by side, for many streams at once."""

    def __init__(self, moduli: Sequence[float | None]) -> None:
        """`moduli`: of each counter; None: it overflows at 16 or 32 bits, if at all."""
        self._moduli = np.array([np.nan if modulus is None else modulus for modulus in moduli], np.float64)

    @staticmethod
    def of(contract: Contract) -> Counters | None:
        """The counters among the features of a contract; None: it has none."""
        columns = counter_columns(contract)
        return Counters([contract.features[column].modulus for column in columns]) if columns else None

    def increases(self, memory: Doubles, readings: Doubles, forget: Flags) -> tuple[Doubles, Doubles]:
        """The increases (n, counters), NaN where one is unknown, and the next memory (n, counters, 3).

        readings (n, counters): not finite where missing; forget (n,): the reading comes after a gap or is the first. A
        reading that falls is an overflow, a correction of less than a tenth (no increase), or else a reset: the
        increase since 0. A counter that is back where it was, after a fall, has given one wrong reading; a reset would
        have counted up in steps of the usual size.
        """
        known = np.isfinite(readings)
        readings = np.where(known, readings, np.nan)
        last, fallen = (np.where(forget[:, None], np.nan, memory[..., part]) for part in (LAST, FALLEN))
        largest = memory[..., LARGEST]
        change = readings - last
        falls = change < 0  # False for NaN
        overflow = falls & (self._own_overflow(change) | _register_overflow(last, readings, np.isnan(self._moduli)))
        correction = falls & ~overflow & (readings >= _CORRECTION * last)
        reset = falls & ~overflow & ~correction
        far_beyond = (largest > 0) & (fallen > _USUAL * largest)
        back = (change >= 0) & (readings >= fallen) & (readings <= _RETURN * fallen) & far_beyond
        usual = (change >= 0) & ~back
        found = np.where(overflow, change + self._modulus_of(last, readings), change)
        found = np.where(correction, 0.0, found)
        found = np.where(reset, np.where(readings >= 0, readings, np.nan), found)
        found = np.where(back, readings - fallen, found)
        following = memory.copy()
        following[..., LAST] = np.where(known, readings, last)
        still_fallen = np.where(change == 0, fallen, np.nan)  # until it counts again
        following[..., FALLEN] = np.where(reset, last, np.where(known, np.where(back, np.nan, still_fallen), fallen))
        following[..., LARGEST] = np.where(usual, np.maximum(largest, change), largest)
        return found, following

    def _own_overflow(self, change: Doubles) -> Flags:
        """Whether a fall is an overflow by the feature's own modulus: less than half a turn."""
        forward = change + self._moduli
        overflow: Flags = (forward >= 0) & (forward <= self._moduli / 2)  # False for NaN: no modulus
        return overflow

    def _modulus_of(self, last: Doubles, readings: Doubles) -> Doubles:
        modulus = np.broadcast_to(self._moduli, last.shape)
        for size, least in _REGISTERS:
            modulus = np.where(np.isnan(modulus) & _overflows(last, readings, size, least), size, modulus)
        return modulus


def _register_overflow(last: Doubles, readings: Doubles, without_modulus: NDArray[np.bool_]) -> Flags:
    """Whether a fall is from the end of a usual register to its begin."""
    found = np.zeros(last.shape, np.bool_)
    for size, least in _REGISTERS:
        found |= _overflows(last, readings, size, least)
    return found & without_modulus


def _overflows(last: Doubles, readings: Doubles, size: float, least: float) -> Flags:
    near = _EDGE * size
    end = least + size
    overflow: Flags = (last < end) & (last >= end - near) & (readings >= least) & (readings < least + near)
    return overflow
