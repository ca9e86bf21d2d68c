"""Augmentation: noise on the inputs, and runs with another scale, pace or sensor orientation.

Measured values are changed first and derived inputs computed again from them: a rotated sensor's deviations are not the
rotated deviations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_lstm.bundle.contract import Contract, Feature
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Integers
from edge_lstm.streaming.derived import Derived
from edge_lstm.streaming.features import record_fields
from edge_lstm_train.data.batches import Batch, side_by_side
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.sensor_dropout import SensorDropout
from edge_lstm_train.recipe.training_sections import AugmentSection

_RUNS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Noise:
    """Random noise on each measured or derived input that the layers see.

    Inputs that bypass the layers get none: the noise on a level would go straight into the prediction and the loss.
    """

    size: Floats  # (inputs,): standard deviations; 0 for inputs without noise

    @staticmethod
    def of(section: AugmentSection, contract: Contract, scale: Floats, seen: Floats) -> Noise:
        """scale (inputs,): the standard deviations of the inputs; seen (inputs,): 1 where the layers see one."""
        measured = [
            name
            for feature in contract.features
            if not feature.categories
            for name in (*_value_inputs(feature), *(f"{feature.name} {text}" for text in feature.derived))
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


def _value_inputs(feature: Feature) -> tuple[str, ...]:
    """The inputs that a feature's value has in the feature vector."""
    return (feature.name,) if feature.period is None else (f"{feature.name} sin", f"{feature.name} cos")


class RunAugmentation:
    """Random rotation, scale and pace for each run, as if another device or person had recorded it."""

    def __init__(self, section: AugmentSection, contract: Contract) -> None:
        names = [feature.name for feature in contract.features]
        self._section = section
        self._contract = contract
        self._measured = [
            column
            for column, feature in enumerate(contract.features)
            if not feature.categories and feature.period is None
        ]
        self._axes = [[names.index(name) for name in group] for group in section.axes]
        self._derived = Derived(contract)
        masks = sum(feature.mask for feature in contract.features)
        derived = sum(len(feature.derived) + len(feature.categories) for feature in contract.features)
        cosines = sum(feature.period is not None for feature in contract.features)
        self._first = len(names) + masks + cosines  # derived inputs come after values, masks and cosines
        self._last = self._first + derived
        self._dropout = SensorDropout(contract, section.sensor_dropout)

    def __bool__(self) -> bool:
        section = self._section
        return bool(section.scale or section.warp or section.rotate_degrees or self._dropout)

    def __call__(self, batch: Batch, random: np.random.Generator) -> Batch:
        """Whole segments, changed run by run; derived inputs are computed again, from the start of each run."""
        features, targets = batch.features.copy(), batch.targets.copy()
        steps = features.shape[1]
        for row, run_targets, restart in zip(features, targets, batch.restart, strict=True):
            begins = sorted({0, *np.flatnonzero(restart).tolist()})
            for first, last in zip(begins, [*begins[1:], steps], strict=True):
                self._change(row[first:last], run_targets[first:last], random)
                self._dropout(row[first:last], random)
        if self._derived:
            self._derive(features, batch.restart)
        return Batch(features, targets, batch.restart)

    def _change(self, features: Floats, targets: Floats, random: np.random.Generator) -> None:
        """One run (steps, inputs) and its targets (steps, outputs), in place."""
        section = self._section
        if section.warp:
            source_steps = _warped_steps(len(features), section.warp, random)
            inside = source_steps < len(features)
            source_steps = np.minimum(source_steps, len(features) - 1)
            features[:] = features[source_steps]
            targets[:] = np.where(inside[:, None], targets[source_steps], np.float32(np.nan))
        if section.rotate_degrees:
            rotation = _rotation_matrix(section.rotate_degrees, random)
            for group in self._axes:
                features[:, group] = features[:, group] @ rotation.T
        if section.scale:
            features[:, self._measured] *= np.float32(1 + section.scale * random.uniform(-1, 1))

    def _derive(self, features: Floats, restart: Flags) -> None:
        """The derived inputs of the changed values, computed as a device does, in place."""
        segments, steps, _ = features.shape
        slots = np.arange(segments)
        current = np.zeros(segments, [("warm_steps", "i8"), *record_fields(self._contract)])
        for step in range(steps):
            current["warm_steps"][restart[:, step]] = 0
            values = features[:, step, : len(self._contract.features)]
            found = self._derived.step(current, slots, values, current["before"])
            features[:, step, self._first : self._last] = np.concatenate(found, axis=1)
            current["before"], current["warm_steps"] = values, current["warm_steps"] + 1


def augmented_copy(
    section: AugmentSection, dataset: Dataset, random: np.random.Generator
) -> tuple[Floats, Doubles] | None:
    """Features (steps, inputs) and targets (steps, outputs) of the dataset, each run changed; None: nothing changes.

    Steps that a faster pace leaves without a source have unknown targets.
    """
    change = RunAugmentation(section, dataset.contract)
    if not change:
        return None
    features, targets = dataset.features.copy(), dataset.targets.copy()
    runs = np.split(np.arange(len(dataset)), np.flatnonzero(dataset.restart)[1:])
    for first in range(0, len(runs), _RUNS_AT_ONCE):
        group = runs[first : first + _RUNS_AT_ONCE]
        changed = change(side_by_side(dataset, group), random)
        for row, run in enumerate(group):
            features[run], targets[run] = changed.features[row, : len(run)], changed.targets[row, : len(run)]
    return features, targets


def _warped_steps(steps: int, warp: float, random: np.random.Generator) -> Integers:
    """(steps,): the step of the run to take at each step, at a random and slowly varying pace of 1 - warp to 1 + warp.

    Some may lie past the run's end.
    """
    turns = 2 * math.pi * (np.linspace(0, random.uniform(0.5, 2), steps) + random.uniform())
    pace = 1 + warp * random.uniform(-1, 1) + warp / 4 * np.sin(turns)
    places: Integers = np.rint(np.cumsum(pace) - pace[0]).astype(np.int64)
    return places


def _rotation_matrix(degrees: float, random: np.random.Generator) -> Floats:
    """(3, 3): a rotation about a random axis by at most so many degrees; Rodrigues' formula."""
    axis = random.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = math.radians(random.uniform(-degrees, degrees))
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation: Floats = (np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross).astype(np.float32)
    return rotation
