"""Faults of one sensor, put into recorded values: an offset, noise, spikes, a drift, a value that stays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edge_lstm.foundation.arrays import Doubles

_SPIKES = 0.1  # share of the steps


class Fault(NamedTuple):
    """A fault. `size`: in standard deviations of the sensor in training; `steps`: those in which a drift reaches it."""

    kind: str
    size: float = 0.0
    steps: int = 0

    @property
    def name(self) -> str:
        """The kind, a drift with its steps."""
        return f"{self.kind} {self.steps}" if self.steps else self.kind


def faults(sizes: tuple[float, ...]) -> list[Fault]:
    """Every kind in these sizes."""
    kinds = [("offset", 0), ("noise", 0), ("spikes", 0), ("drift", 50), ("drift", 500)]
    return [*(Fault(kind, size, steps) for kind, steps in kinds for size in sizes), Fault("stuck")]


def with_fault(values: Doubles, before: float, fault: Fault, deviation: float, rng: np.random.Generator) -> Doubles:
    """The values of a sensor (steps,) with the fault from the first one on. `before`: the value of the step before."""
    size, steps = fault.size * deviation, np.arange(1, len(values) + 1)
    sign = rng.choice((-1.0, 1.0))
    if fault.kind == "offset":
        return values + sign * size
    if fault.kind == "noise":
        return values + rng.normal(0, size, len(values))
    if fault.kind == "spikes":
        struck = rng.random(len(values)) < _SPIKES
        return values + size * rng.choice((-1.0, 1.0), len(values)) * struck
    if fault.kind == "drift":
        return values + sign * size * np.minimum(1.0, steps / fault.steps)
    if fault.kind == "stuck":
        return np.full(len(values), before)
    raise ValueError(f"expected a kind of fault, found {fault.kind}")
