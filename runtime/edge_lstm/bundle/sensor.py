"""What a working sensor is like, as training measured it: how still it is, for how long, and between which values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge_lstm.foundation.config import key
from edge_lstm.foundation.numbers import FLOAT32_MAX

MOST_LEVELS = 8  # at which constant stretches are normal
_MOST_STEPS = 10**9


@dataclass(frozen=True)
class Sensor:
    """Statistics of one feature's sensor over the training part, pooled over the streams.

    The sensor is still at a step while the standard deviation of its last few values is not above `still`. It was never
    still for more than `still_steps` in a row, and never repeated a value for more than `equal_steps`, except at its
    `levels`: the values at which this is normal, as for solar power at night.
    """

    still: float = key(doc="standard deviation over a few steps, in the feature's unit", least=0, most=FLOAT32_MAX)
    still_steps: int = key(doc="most steps in a row that it was still", least=0, most=_MOST_STEPS)
    equal_steps: int = key(doc="most steps in a row with the same value", least=0, most=_MOST_STEPS)
    least: float = key(doc="smallest value", least=-FLOAT32_MAX, most=FLOAT32_MAX)
    most: float = key(doc="largest value", least=-FLOAT32_MAX, most=FLOAT32_MAX)
    gap_s: float = key(0.0, doc="longest time without a value, in seconds", least=0, most=1e12)
    levels: list[float] = key([], doc="values at which it is still for longer", least=-FLOAT32_MAX, most=FLOAT32_MAX)
    level_still_steps: list[int] = key([], doc="the same as still_steps at each of them", least=0, most=_MOST_STEPS)
    level_equal_steps: list[int] = key([], doc="the same as equal_steps at each of them", least=0, most=_MOST_STEPS)
    reach: float = key(0.0, doc="how far a value may lie from a level to be at it", least=0, most=FLOAT32_MAX)

    def faults(self) -> Iterator[tuple[str, str]]:
        if len(self.levels) > MOST_LEVELS:
            yield "levels", f"expected at most {MOST_LEVELS}, found {len(self.levels)}"
        for name in ("level_still_steps", "level_equal_steps"):
            if (found := len(getattr(self, name))) != len(self.levels):
                yield name, f"expected one number per level, {len(self.levels)}, found {found}"
        if self.least > self.most:
            yield "least", f"expected at most `most` ({self.most:g}), found {self.least:g}"
