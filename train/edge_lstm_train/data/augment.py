"""Changes to training that do not change what it means: noise; how a sensor is worn, how large and quick a movement is.

What changes a measured value comes before anything is derived of it: the deviations of a turned sensor are no turned
deviations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Flags, Floats, Integers
from edge_lstm.streaming.derived import Derived
from edge_lstm.streaming.features import record_fields
from edge_lstm_train.data.batches import Batch
from edge_lstm_train.recipe.sections import AugmentSection


@dataclass(frozen=True, eq=False)
class Noise:
    """Random noise on each input that is measured or derived, and that the layers see.

    What goes past the layers gets none: a level that a change is added to would carry it into the loss.
    """

    size: Floats  # (inputs,): standard deviations; 0 where there is none

    @staticmethod
    def of(section: AugmentSection, contract: Contract, scale: Floats, seen: Floats) -> Noise:
        """scale (inputs,): the standard deviations of the inputs; seen (inputs,): 1 where the layers see one."""
        measured = [
            name
            for feature in contract.features
            if not feature.categories
            for name in (feature.name, *(f"{feature.name} {text}" for text in feature.derived))
        ]
        noisy = np.isin(contract.inputs, measured) & (seen > 0)
        return Noise(np.where(noisy, np.float32(section.noise) * scale, np.float32(0)))

    def __call__(self, batch: Batch, random: np.random.Generator) -> Batch:
        """The batch with noise."""
        noisy = np.flatnonzero(self.size)
        features = batch.features.copy()
        noise = random.standard_normal((*features.shape[:2], len(noisy)), np.float32)
        features[:, :, noisy] += noise * self.size[noisy]
        return Batch(features, batch.targets, batch.restart)


class AugmentedRuns:
    """Runs as another device, or somebody else, would have recorded them: each at its own turn, size and pace."""

    def __init__(self, section: AugmentSection, contract: Contract) -> None:
        names = [feature.name for feature in contract.features]
        self._section = section
        self._contract = contract
        self._measured = [column for column, feature in enumerate(contract.features) if not feature.categories]
        self._axes = [[names.index(name) for name in group] for group in section.axes]
        self._derived = Derived(contract)
        masks = sum(feature.mask for feature in contract.features)
        derived = sum(len(feature.derived) + len(feature.categories) for feature in contract.features)
        self._first = len(names) + masks  # of the derived inputs, which lie behind values and masks
        self._last = self._first + derived

    def __bool__(self) -> bool:
        section = self._section
        return bool(section.scale or section.warp or section.rotate_degrees)

    def __call__(self, stretch: Batch, random: np.random.Generator) -> Batch:
        """Whole stretches, changed run by run; what is derived is derived anew, from each run's start in them."""
        features, targets = stretch.features.copy(), stretch.targets.copy()
        steps = features.shape[1]
        for row, asked, restart in zip(features, targets, stretch.restart, strict=True):
            begins = sorted({0, *np.flatnonzero(restart).tolist()})
            for first, last in zip(begins, [*begins[1:], steps], strict=True):
                self._change(row[first:last], asked[first:last], random)
        if self._derived:
            self._derive(features, stretch.restart)
        return Batch(features, targets, stretch.restart)

    def _change(self, features: Floats, targets: Floats, random: np.random.Generator) -> None:
        """One run (steps, inputs) and its targets (steps, outputs), in place."""
        section = self._section
        if section.warp:
            at = _paced(len(features), section.warp, random)
            there = at < len(features)
            at = np.minimum(at, len(features) - 1)
            features[:], targets[:] = features[at], np.where(there[:, None], targets[at], np.float32(np.nan))
        if section.rotate_degrees:
            turn = _rotation(section.rotate_degrees, random)
            for group in self._axes:
                features[:, group] = features[:, group] @ turn.T
        if section.scale:
            features[:, self._measured] *= np.float32(1 + section.scale * random.uniform(-1, 1))

    def _derive(self, features: Floats, restart: Flags) -> None:
        """The derived inputs of changed values, as a device would have made them, in place."""
        segments, steps, _ = features.shape
        slots = np.arange(segments)
        current = np.zeros(segments, [("warm_steps", "i8"), *record_fields(self._contract)])
        for step in range(steps):
            current["warm_steps"][restart[:, step]] = 0
            values = features[:, step, : len(self._contract.features)]
            found = self._derived.step(current, slots, values, current["before"])
            features[:, step, self._first : self._last] = np.concatenate(found, axis=1)
            current["before"], current["warm_steps"] = values, current["warm_steps"] + 1


def _paced(steps: int, warp: float, random: np.random.Generator) -> Integers:
    """Places (steps,) of a run at a pace of its own within 1 - warp and 1 + warp, around which it swings; some may lie
    behind the run's end."""
    turns = 2 * math.pi * (np.linspace(0, random.uniform(0.5, 2), steps) + random.uniform())
    pace = 1 + warp * random.uniform(-1, 1) + warp / 4 * np.sin(turns)
    places: Integers = np.rint(np.cumsum(pace) - pace[0]).astype(np.int64)
    return places


def _rotation(degrees: float, random: np.random.Generator) -> Floats:
    """A turn about a random axis by at most so many degrees, (3, 3); Rodrigues' formula."""
    axis = random.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = math.radians(random.uniform(-degrees, degrees))
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: Floats = (np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross).astype(np.float32)
    return turn
