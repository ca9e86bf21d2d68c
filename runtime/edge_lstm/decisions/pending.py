"""What was said about steps that had not come yet, kept in the stream's record until their truth arrives."""

from __future__ import annotations

import math

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.intervals import MOST_WAITING
from edge_lstm.decisions.angles import difference
from edge_lstm.decisions.step import Step
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Records, Slots


class Truth:
    """The truth that a sample brings about the predictions of earlier steps: its own values of the targets."""

    def __init__(self, contract: Contract) -> None:
        names = [feature.name for feature in contract.features]
        columns = [names.index(target) if target in names else -1 for target in contract.targets]
        self._horizons = np.array(contract.horizons)
        self._columns = np.repeat(np.maximum(columns, 0), len(contract.horizons))
        self._unmeasured = np.flatnonzero(np.repeat(columns, len(contract.horizons)) < 0)
        self._circles = [
            (place, contract.circles[name]) for place, name in enumerate(contract.targets) if name in contract.circles
        ]

    def __call__(self, step: Step) -> Doubles:
        """(n, targets * horizons): the value of each target, repeated for each horizon; NaN where there is none."""
        found = step.values[:, self._columns].astype(np.float64)
        found[step.missing[:, self._columns]] = np.nan
        found[:, self._unmeasured] = np.nan
        return found

    def minus(self, truth: Doubles, predicted: Doubles) -> Doubles:
        """truth - predicted, (n, targets * horizons) each; on a circle, the shorter way."""
        error = truth - predicted
        count = len(self._horizons)
        for place, period in self._circles:
            at = slice(place * count, (place + 1) * count)
            error[:, at] = difference(truth[:, at], predicted[:, at], period)
        return error


class Pending:
    """Numbers about each prediction, kept until the step that it predicts.

    A prediction for `horizon` steps ahead waits in a ring of `horizon` places: what is read at a step was written
    `horizon` steps before. A restart of the stream leaves nothing to read.
    """

    def __init__(self, contract: Contract, name: str, numbers: int, most: int | None = None) -> None:
        """`name`: of the field in the stream's record; `numbers`: of each prediction.

        `most`: so many predictions of an output wait at once; for a longer horizon, those of every fifth, seventh, or
        later step. None: all do.
        """
        horizons = np.array([horizon for _ in contract.targets for horizon in contract.horizons], np.intp)
        self._name, self._numbers, self._horizons = name, numbers, horizons
        self._every = np.array([_every(horizon, most) for horizon in horizons.tolist()], np.intp)
        sizes = np.where(horizons > 0, -(-(horizons - 1) // self._every) + 1, 0)  # of the rings
        self._sizes, self._begins, self._places = sizes, np.cumsum(sizes) - sizes, int(sizes.sum())
        self._outputs = np.flatnonzero(horizons > 0)

    @property
    def fits(self) -> bool:
        """Whether a record may hold all that waits, and there is anything that waits."""
        return 0 < self._places * self._numbers <= MOST_WAITING

    @property
    def field(self) -> tuple[str, str, tuple[int, ...]]:
        """The field (name, type, shape) of a stream's record."""
        return self._name, "f4", (self._places, self._numbers)

    @property
    def at_once(self) -> Slots:
        """(targets * horizons,): of how many steps predictions wait at once."""
        found: Slots = -(-self._horizons // self._every)
        return found

    def arrived(self, step: Step) -> Floats:
        """(n, targets * horizons, numbers): what was said about this step; NaN where nothing was."""
        current, slots = step.current, step.slots
        said_at = current["step"][slots][:, None] - self._horizons
        found: Floats = current[self._name][slots[:, None], self._ring(said_at)]
        found[~self._was_said(current, slots) | (said_at % self._every < self._every - 1)] = np.nan
        return found

    def wait(self, step: Step, numbers: Floats) -> None:
        """Keep (n, targets * horizons, numbers) of this step's predictions, after `arrived` was read."""
        slots, chosen = step.slots, self._outputs
        places = self._ring(step.current["step"][slots][:, None])  # of steps that share one, the last one stays
        step.current[self._name][slots[:, None], places[:, chosen]] = numbers[:, chosen]

    def _ring(self, steps: Slots) -> Slots:
        """(n, targets * horizons): the place of what is said at these steps, (n, 1 or targets * horizons)."""
        found: Slots = self._begins + steps // self._every % np.maximum(self._sizes, 1)
        return np.minimum(found, self._places - 1)

    def _was_said(self, current: Records, slots: Slots) -> Flags:
        found: Flags = (current["warm_steps"][slots][:, None] > self._horizons) & (self._horizons > 0)
        return found


def _every(horizon: int, most: int | None) -> int:
    """Of how many steps one waits, so that at most `most` predictions for this horizon wait at once."""
    if most is None or horizon <= most:
        return 1
    every = -(-(horizon - 1) // (most - 1))
    while math.gcd(every, 6) > 1:  # else it could be the same hour of each day
        every += 1
    return every
