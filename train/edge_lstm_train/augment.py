"""Changes to a stretch of training that do not change what it means: noise, size, pace, and how a sensor is worn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_lstm_train.dataset import Batch, Dataset
from edge_lstm_train.sections import AugmentSection

Floats = NDArray[np.float32]

_LINEAR = ("difference", "mean", "from_mean", "from_start", "slope")  # of a turned sensor, these turn with it


@dataclass(frozen=True, eq=False)
class Augment:
    """The recipe's changes to batches of a dataset, each segment changed in its own way."""

    section: AugmentSection
    measured: NDArray[np.int64]  # the inputs that are measured or derived of it
    noisy: NDArray[np.int64]  # those of them that the layers see
    scale: NDArray[np.float32]  # (inputs,): standard deviations
    axes: list[list[int]]  # groups of three inputs

    @staticmethod
    def of(section: AugmentSection, dataset: Dataset, scale: NDArray[np.float32], seen: NDArray[np.float32]) -> Augment:
        """`scale` (inputs,) are the standard deviations of the inputs; `seen` (inputs,) is 1 where the layers see one.

        What goes past the layers gets no noise: a level that a change is added to would carry it into the loss.
        """
        contract = dataset.contract
        inputs = contract.inputs
        measured = [
            name
            for feature in contract.features
            if not feature.categories
            for name in (feature.name, *(f"{feature.name} {text}" for text in feature.derived))
        ]
        by_name = {feature.name: feature for feature in contract.features}
        axes = []
        for group in section.axes:
            axes.append([inputs.index(name) for name in group])
            for text in by_name[group[0]].derived:
                names = [f"{name} {text}" for name in group]
                if text.split()[0] in _LINEAR and all(name in inputs for name in names):
                    axes.append([inputs.index(name) for name in names])
        places = np.array([inputs.index(name) for name in measured], np.int64)
        return Augment(section, places, places[seen[places] > 0], scale, axes)

    def __bool__(self) -> bool:
        section = self.section
        return bool(section.noise or section.scale or section.warp or section.rotate_degrees)

    def __call__(self, batch: Batch, random: np.random.Generator) -> Batch:
        """The batch, changed."""
        section = self.section
        features, targets, restart = batch.features.copy(), batch.targets, batch.restart
        segments, steps, _ = features.shape
        if section.warp and steps > 2:
            at = np.stack([_paced(steps, section.warp, random) for _ in range(segments)])  # (segments, steps)
            rows = np.arange(segments)[:, None]
            whole = ~restart[:, 1:].any(axis=1)[:, None]  # a stretch in which the state restarts keeps its pace
            at = np.where(whole, at, np.arange(steps))
            features, targets = features[rows, at], targets[rows, at]
        if section.rotate_degrees:
            for segment in range(segments):
                turn = _rotation(section.rotate_degrees, random)
                for group in self.axes:
                    features[segment][:, group] = features[segment][:, group] @ turn.T
        if section.scale:
            factor = 1 + section.scale * random.uniform(-1, 1, (segments, 1, 1))
            features[:, :, self.measured] *= factor.astype(np.float32)
        if section.noise:
            shape = (segments, steps, len(self.noisy))
            noise = random.standard_normal(shape, np.float32) * np.float32(section.noise)
            features[:, :, self.noisy] += noise * self.scale[self.noisy]
        return Batch(features, targets, restart)


def _paced(steps: int, warp: float, random: np.random.Generator) -> NDArray[np.int64]:
    """Places (steps,) of a stretch at a pace that swings between 1 - warp and 1 + warp, its ends kept."""
    turns = np.linspace(0, 2 * math.pi * random.uniform(0.5, 2), steps) + random.uniform(0, 2 * math.pi)
    pace = np.cumsum(1 + warp * np.sin(turns))
    places: NDArray[np.int64] = np.rint((pace - pace[0]) / (pace[-1] - pace[0]) * (steps - 1)).astype(np.int64)
    return places


def _rotation(degrees: float, random: np.random.Generator) -> Floats:
    """A turn about a random axis by at most so many degrees, (3, 3); Rodrigues' formula."""
    axis = random.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = math.radians(random.uniform(-degrees, degrees))
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: Floats = (np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross).astype(np.float32)
    return turn
