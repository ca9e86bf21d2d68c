"""What was said about steps that had not come yet, kept in the stream's record until their truth arrives."""

from __future__ import annotations

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

    def __init__(self, contract: Contract, name: str, numbers: int) -> None:
        """`name`: of the field in the stream's record; `numbers`: of each prediction."""
        horizons = np.array([horizon for _ in contract.targets for horizon in contract.horizons], np.intp)
        self._name, self._numbers, self._horizons = name, numbers, horizons
        self._places = int(horizons.sum())
        self._begins = np.minimum(np.cumsum(horizons) - horizons, self._places - 1)
        self._lengths = np.maximum(horizons, 1)  # of the rings; nothing is written where the horizon is 0
        self._outputs = np.flatnonzero(horizons > 0)

    @property
    def fits(self) -> bool:
        """Whether a record may hold all that waits, and there is anything that waits."""
        return 0 < self._places * self._numbers <= MOST_WAITING

    @property
    def field(self) -> tuple[str, str, tuple[int, ...]]:
        """The field (name, type, shape) of a stream's record."""
        return self._name, "f4", (self._places, self._numbers)

    def arrived(self, step: Step) -> Floats:
        """(n, targets * horizons, numbers): what was said about this step; NaN where nothing was."""
        current, slots = step.current, step.slots
        found: Floats = current[self._name][slots[:, None], self._now(current, slots)]
        found[~self._was_said(current, slots)] = np.nan
        return found

    def wait(self, step: Step, numbers: Floats) -> None:
        """Keep (n, targets * horizons, numbers) of this step's predictions, after `arrived` was read."""
        current, slots = step.current, step.slots
        chosen = self._outputs
        current[self._name][slots[:, None], self._now(current, slots)[:, chosen]] = numbers[:, chosen]

    def _now(self, current: Records, slots: Slots) -> Slots:
        """(n, targets * horizons): the place of each prediction's ring at this step."""
        steps = current["step"][slots][:, None]
        found: Slots = self._begins + steps % self._lengths
        return found

    def _was_said(self, current: Records, slots: Slots) -> Flags:
        found: Flags = (current["warm_steps"][slots][:, None] > self._horizons) & (self._horizons > 0)
        return found
