"""Reports classes that are hard to learn, before training: absent from a part, or rare and all in one place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.split import PARTS
from edge_lstm_train.recipe.recipe import Recipe

_RARE = 0.1  # of the training part's steps
_SMALL = 0.1  # of the training part: what one place is
_DAY_S = 86_400.0


def class_notes(recipe: Recipe, dataset: Dataset) -> Iterator[str]:
    """Sentences on classes that a part lacks, and on rare ones; each with what to do. Empty for other tasks."""
    if recipe.classify is None:
        return
    counts = {part: _counts(dataset, dataset.steps(part)) for part in PARTS}
    source, names = dataset.recording.source, dataset.contract.targets
    for part in PARTS:
        absent = [name for name, count in zip(names, counts[part], strict=True) if not count]
        if absent:
            yield f"{source}: {_listed(absent)} in no step of the {_NAMES[part]} part: {_CONSEQUENCE[part]}"
    share = counts["train"] / max(1, counts["train"].sum())
    if recipe.classify.balance and recipe.classify.rare_chunks:
        return
    for index in np.flatnonzero((share > 0) & (share < min(_RARE, 0.5 / len(names)))):
        yield (
            f'{source}: "{names[index]}" is {100 * share[index]:.2g} % of the steps of the training part'
            f"{_place(dataset, int(index))}: balance = true and rare_chunks = 0.5 under [classify] help to learn it"
        )


_NAMES = {"train": "training", "validation": "validation", "test": "test"}
_CONSEQUENCE = {
    "train": "the model will never predict it; record it, remove it from classes, or change [split]",
    "validation": "no choice of weights will look at it; change [split]",
    "test": "the report says nothing about it; change [split]",
}


def _counts(dataset: Dataset, steps: Integers) -> Doubles:
    """(classes,): the number of steps of each class."""
    counts: Doubles = np.nansum(dataset.targets[steps], axis=0)
    return counts


def _listed(names: list[str]) -> str:
    quoted = ", ".join(f'"{name}"' for name in names[:8])
    return f"class{'es' if len(names) > 1 else ''} {quoted}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"


def _place(dataset: Dataset, index: int) -> str:
    """Where the class occurs, if that is one stream of several or one short stretch of time."""
    train = dataset.steps("train")
    own = train[dataset.targets[train, index] == 1]
    streams = np.unique(dataset.stream_of[own])
    if len(streams) == 1 and len(np.unique(dataset.stream_of[train])) > 1:
        return f", all in {dataset.recording.streams[streams[0]]}"
    reach, whole = np.ptp(dataset.times[own]), np.ptp(dataset.times[train])
    if reach <= _SMALL * whole:
        return f", all within {reach / _DAY_S:.2g} of {whole / _DAY_S:.2g} days"
    return ""
