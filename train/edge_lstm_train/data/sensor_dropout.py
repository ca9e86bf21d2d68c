"""Dead sensors in training: blocks in which a feature is missing, so that a model learns to go on without it."""

from __future__ import annotations

import math

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Flags, Floats
from edge_lstm.streaming.features import cosine_columns

_SHORTEST, _LONGEST = 5, 500  # steps of a block; lengths are spread evenly over their logarithm
_MEAN_LENGTH = (_LONGEST - _SHORTEST) / math.log(_LONGEST / _SHORTEST)


class SensorDropout:
    """Makes the sensors of a run dead for a share of its time, each independently of the others.

    A dead sensor gives what a device has then: the last value (the mean, where there is none), a mask of 1, and an age
    that grows. Derived inputs are not changed here.
    """

    def __init__(self, contract: Contract, share: float) -> None:
        """share: of the time, for each feature with a mask that is no target."""
        features = contract.features
        masked = [feature.name for feature in features if feature.mask]
        self._share = share
        self._interval_s = contract.sampling.interval_s or 1.0
        self._sensors: list[tuple[list[int], int, int | None, list[float]]] = []  # columns, mask, age, start values
        cosines = cosine_columns(contract)
        for column, feature in enumerate(features):
            if feature.mask and feature.name not in contract.targets:
                columns, start = [column], [feature.mean]
                if feature.period is not None:
                    angle = 2 * math.pi * feature.mean / feature.period
                    columns, start = [column, cosines[column]], [math.sin(angle), math.cos(angle)]
                age = contract.inputs.index(f"{feature.name} age") if feature.age else None
                self._sensors.append((columns, len(features) + masked.index(feature.name), age, start))

    def __bool__(self) -> bool:
        return self._share > 0 and bool(self._sensors)

    def __call__(self, run: Floats, random: np.random.Generator) -> None:
        """Change the values, masks and ages of one run (steps, inputs) in place."""
        if not self:
            return
        for columns, mask, age, start in self._sensors:
            dead = dead_steps(len(run), self._share, random)
            begins = np.flatnonzero(np.diff(dead, prepend=False) & dead)
            ends = np.flatnonzero(np.diff(dead, append=False) & dead) + 1
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
                run[begin:end, columns] = run[begin - 1, columns] if begin else start
                run[begin:end, mask] = 1
                if age is not None:
                    before_s = math.expm1(run[begin - 1, age]) if begin else -self._interval_s
                    run[begin:end, age] = np.log1p(before_s + self._interval_s * np.arange(1, end - begin + 1))


def dead_steps(steps: int, share: float, random: np.random.Generator) -> Flags:
    """(steps,): where a sensor is dead: `share` of the steps on average, in blocks."""
    dead = np.zeros(steps, np.bool_)
    alive_steps = _MEAN_LENGTH * (1 - share) / share  # mean length of the time between two blocks
    at = 0 if random.random() < share else int(random.exponential(alive_steps))
    while at < steps:
        length = round(_SHORTEST * (_LONGEST / _SHORTEST) ** random.random())
        dead[at : at + length] = True
        at += length + max(1, int(random.exponential(alive_steps)))
    return dead
