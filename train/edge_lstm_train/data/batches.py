"""What an update sees of a dataset: chunks that carry their state, runs from a random start, or windows."""

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
    """Stretches of steps side by side."""

    features: Floats  # (segments, steps, inputs)
    targets: Floats  # (segments, steps, outputs): NaN where nothing is asked
    restart: Flags  # (segments, steps): the state starts anew before this step


Change = Callable[[Batch, np.random.Generator], Batch]


def carried_chunks(
    dataset: Dataset, segments: int, chunk: int, random: np.random.Generator, change: Change | None = None
) -> Iterator[Batch]:
    """Without end: chunks of the training part for truncated backpropagation through time.

    The training part is cut into `segments` stretches that go side by side, chunk after chunk of at most `chunk` steps,
    so that the state at a chunk's end is the state at the next one's start. Every epoch cuts at other places: a state
    must not learn where it began. What `change` does, it does to whole stretches.
    """
    steps = dataset.steps("train")
    segments = min(segments, len(steps))
    length = len(steps) // segments
    while True:
        turned = np.roll(steps, -int(random.integers(len(steps))))[: segments * length].reshape(segments, length)
        restart = dataset.restart[turned]
        restart[:, 0] = True
        restart[:, 1:] |= np.diff(turned, axis=1) != 1
        pieces = np.array_split(np.arange(length), math.ceil(length / chunk))
        if change is not None:
            whole = Batch(dataset.features[turned], dataset.targets[turned].astype(np.float32), restart)
            yield from _cut(change(whole, random), pieces)
            continue
        for columns in pieces:
            chosen = turned[:, columns]  # (segments, steps)
            targets = dataset.targets[chosen].astype(np.float32)
            yield Batch(dataset.features[chosen], targets, restart[:, columns])


def cropped_runs(
    dataset: Dataset, segments: int, chunk: int, random: np.random.Generator, change: Change | None = None
) -> Iterator[Batch]:
    """Without end: runs of the training part, `segments` side by side, each from a random step of its first half on.

    A run is what lies between two restarts. Whoever trains on whole runs alone learns to count their age. What `change`
    does, it does to whole runs.
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
            targets = np.full((len(group), longest, outputs), np.nan, np.float32)  # behind the end of a run
            restart = np.zeros((len(group), longest), bool)
            restart[:, 0] = True
            for row, run in enumerate(group):
                features[row, : len(run)], targets[row, : len(run)] = dataset.features[run], dataset.targets[run]
            whole = Batch(features, targets, restart)
            whole = whole if change is None else change(whole, random)
            yield from _cut(whole, np.array_split(np.arange(longest), math.ceil(longest / chunk)))


def _cut(whole: Batch, pieces: list[Integers]) -> Iterator[Batch]:
    """Stretches, chunk after chunk of these steps."""
    for columns in pieces:
        yield Batch(whole.features[:, columns], whole.targets[:, columns], whole.restart[:, columns])


def window_ends(dataset: Dataset, window: int, part: Part = "train") -> Integers:
    """The steps of the part that end a window of `window` steps without a restart inside, all in that part."""
    ends = dataset.steps(part)
    ends = ends[ends - dataset.run_start[ends] >= window - 1]
    inside: Flags = dataset.part_of[ends - window + 1] == PARTS.index(part)
    return ends[inside]


def windows(dataset: Dataset, window: int, batch: int, random: np.random.Generator) -> Iterator[Batch]:
    """Without end: shuffled windows of the training part (batch, window, ...), asked for at their last step alone."""
    ends = window_ends(dataset, window)
    if not ends.size:
        raise EdgeLstmError(
            f"{dataset.recording.source}: expected windows of {window} steps in the training part, found none so long",
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
