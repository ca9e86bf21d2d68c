"""The batches of training: chunks with carried state, runs from a random start, or windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edge_lstm.foundation.arrays import Flags, Floats, Integers
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.split import PARTS, Part


@dataclass(frozen=True, eq=False)
class Batch:
    """Segments of steps side by side."""

    features: Floats  # (segments, steps, inputs)
    targets: Floats  # (segments, steps, outputs): NaN where the loss ignores the output
    restart: Flags  # (segments, steps): the state is reset before this step


Augmentation = Callable[[Batch, np.random.Generator], Batch]


def carried_chunks(
    dataset: Dataset, segments: int, chunk: int, random: np.random.Generator, augment: Augmentation | None = None
) -> Iterator[Batch]:
    """Endless chunks of the training part, for truncated backpropagation through time.

    The training part is cut into `segments` side by side, and each segment into chunks of at most `chunk` steps. The
    state at a chunk's end is the state at the next chunk's start. Every epoch cuts the segments at other places, so
    that the state does not learn where it began. `augment` changes whole segments.
    """
    steps = dataset.steps("train").astype(np.int32)  # a large recording has hundreds of MB of them
    segments = min(segments, len(steps))
    length = len(steps) // segments
    while True:
        shifted = np.roll(steps, -int(random.integers(len(steps))))[: segments * length].reshape(segments, length)
        restart = dataset.restart[shifted]
        restart[:, 0] = True
        restart[:, 1:] |= np.diff(shifted, axis=1) != 1
        pieces = np.array_split(np.arange(length), math.ceil(length / chunk))
        if augment is not None:
            full = Batch(dataset.features[shifted], dataset.targets[shifted].astype(np.float32), restart)
            yield from _in_chunks(augment(full, random), pieces)
            continue
        for columns in pieces:
            chosen = shifted[:, columns]  # (segments, steps)
            targets = dataset.targets[chosen].astype(np.float32)
            yield Batch(dataset.features[chosen], targets, restart[:, columns])


def cropped_runs(
    dataset: Dataset, segments: int, chunk: int, random: np.random.Generator, augment: Augmentation | None = None
) -> Iterator[Batch]:
    """Endless runs of the training part, `segments` side by side, each from a random step of its first half on.

    A run is the steps between two restarts. From whole runs alone, a network would learn to count their age. `augment`
    changes whole runs, from that step on.
    """
    train = dataset.steps("train")
    breaks = np.flatnonzero(dataset.restart[train] | (np.diff(train, prepend=-2) != 1))
    runs = np.split(train, breaks[1:])
    width, outputs = dataset.features.shape[1], dataset.targets.shape[1]
    while True:
        order = random.permutation(len(runs))
        for first in range(0, len(runs), segments):
            group = [runs[place] for place in order[first : first + segments]]
            group = [run[int(random.integers(len(run) // 2 + 1)) :] for run in group]
            longest = max(map(len, group))
            features = np.zeros((len(group), longest, width), np.float32)
            targets = np.full((len(group), longest, outputs), np.nan, np.float32)  # NaN past the end of a run
            restart = np.zeros((len(group), longest), bool)
            restart[:, 0] = True
            for row, run in enumerate(group):
                features[row, : len(run)], targets[row, : len(run)] = dataset.features[run], dataset.targets[run]
            full = Batch(features, targets, restart)
            full = full if augment is None else augment(full, random)
            yield from _in_chunks(full, np.array_split(np.arange(longest), math.ceil(longest / chunk)))


def _in_chunks(full: Batch, pieces: list[Integers]) -> Iterator[Batch]:
    """The segments, chunk by chunk; each piece holds the steps of one chunk."""
    for columns in pieces:
        yield Batch(full.features[:, columns], full.targets[:, columns], full.restart[:, columns])


def window_ends(dataset: Dataset, window: int, part: Part = "train") -> Integers:
    """The last steps of windows of `window` steps that lie in the part as a whole, without a restart inside."""
    ends = dataset.steps(part)
    ends = ends[ends - dataset.run_start[ends] >= window - 1]
    inside: Flags = dataset.part_of[ends - window + 1] == PARTS.index(part)
    return ends[inside]


def windows(dataset: Dataset, window: int, batch: int, random: np.random.Generator) -> Iterator[Batch]:
    """Endless shuffled windows of the training part, (batch, window, ...), with targets at their last step alone."""
    ends = window_ends(dataset, window)
    if not ends.size:
        raise EdgeLstmError(
            f"{dataset.recording.source}: expected windows of {window} steps in the training part, found shorter runs",
            "shorten window under [fit] in the recipe, or record more",
        )
    reach = np.arange(1 - window, 1)
    while True:
        shuffled = random.permutation(ends)
        for first in range(0, len(shuffled), batch):
            chosen = shuffled[first : first + batch, None] + reach  # (batch, window)
            targets = np.full((*chosen.shape, dataset.targets.shape[1]), np.nan, np.float32)
            targets[:, -1] = dataset.targets[chosen[:, -1]]
            restart = np.zeros(chosen.shape, bool)
            restart[:, 0] = True
            yield Batch(dataset.features[chosen], targets, restart)
