"""The batches of training: chunks with carried state, runs from a random start, or windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Integers
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.split import PARTS, Part


@dataclass(frozen=True, eq=False)
class Batch:
    """Segments of steps side by side."""

    features: Floats  # (segments, steps, inputs)
    targets: Floats  # (segments, steps, outputs): NaN where the loss ignores the output
    restart: Flags  # (segments, steps): the state is reset before this step


_CHUNKS_OF_AN_ESTIMATE = 500

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
    while True:
        order = random.permutation(len(runs))
        for first in range(0, len(runs), segments):
            group = [runs[place] for place in order[first : first + segments]]
            group = [run[int(random.integers(len(run) // 2 + 1)) :] for run in group]
            full = side_by_side(dataset, group)
            full = full if augment is None else augment(full, random)
            longest = full.restart.shape[1]
            yield from _in_chunks(full, np.array_split(np.arange(longest), math.ceil(longest / chunk)))


def with_rare_chunks(
    batches: Iterator[Batch],
    dataset: Dataset,
    rows: int,
    random: np.random.Generator,
    augment: Augmentation | None = None,
) -> Iterator[Batch]:
    """The batches with `rows` more segments each: chunks of the training part that hold a class drawn at random.

    Each class that occurs is drawn as often as any other, then one of its steps, which lies anywhere in the chunk. From
    uniform chunks alone, a class that occurs on one day of a month is seen too seldom to be learned. The state starts
    again in each such chunk.
    """
    train = dataset.steps("train")
    breaks = np.flatnonzero(dataset.restart[train] | (np.diff(train, prepend=-2) != 1))
    first_of = np.repeat(train[breaks], np.diff(breaks, append=len(train)))  # (training steps,): of its run
    last_of = np.repeat(train[np.append(breaks[1:], len(train)) - 1], np.diff(breaks, append=len(train)))
    classes = [np.flatnonzero(dataset.targets[train, one] == 1) for one in range(dataset.targets.shape[1])]
    classes = [places for places in classes if places.size]
    for batch in batches:
        steps, runs = batch.restart.shape[1], []
        for _ in range(rows):
            places = classes[int(random.integers(len(classes)))]
            place = int(places[random.integers(places.size)])
            begin = max(int(first_of[place]), int(train[place]) - int(random.integers(steps)))
            runs.append(np.arange(begin, min(begin + steps, int(last_of[place]) + 1)))
        drawn = side_by_side(dataset, runs, steps)
        drawn = drawn if augment is None else augment(drawn, random)
        yield Batch(
            np.concatenate([batch.features, drawn.features]),
            np.concatenate([batch.targets, drawn.targets]),
            np.concatenate([batch.restart, drawn.restart]),
        )


def share_in_rare_chunks(dataset: Dataset, chunk: int) -> Doubles:
    """(classes,): the share of each class in the steps of such chunks, estimated from 500 of them."""
    random = np.random.default_rng(1)
    empty = Batch(
        np.zeros((0, chunk, dataset.features.shape[1]), np.float32),
        np.zeros((0, chunk, dataset.targets.shape[1]), np.float32),
        np.zeros((0, chunk), bool),
    )
    drawn = next(with_rare_chunks(iter([empty]), dataset, _CHUNKS_OF_AN_ESTIMATE, random))
    share: Doubles = np.nanmean(drawn.targets, axis=(0, 1), dtype=np.float64)
    return share


def side_by_side(dataset: Dataset, runs: Sequence[Integers], steps: int = 0) -> Batch:
    """The runs as segments of equal length, at least `steps`: past the end of a run the targets are unknown."""
    shape = len(runs), max(steps, *map(len, runs))
    features = np.zeros((*shape, dataset.features.shape[1]), np.float32)
    targets = np.full((*shape, dataset.targets.shape[1]), np.nan, np.float32)
    restart = np.zeros(shape, bool)
    restart[:, 0] = True
    for row, run in enumerate(runs):
        features[row, : len(run)], targets[row, : len(run)] = dataset.features[run], dataset.targets[run]
    return Batch(features, targets, restart)


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
