"""Stretches of a recording in which an input varies far more than elsewhere, such as a start-up.

A stretch like that fills the statistics, the ridge and the loss of all streams. It is named by stream and rows, and it
can be left out: its values count for no statistics and its targets are not learned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Doubles, Flags, Integers
from edge_lstm.recordings.recording import row_place
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.split import PARTS

_TIMES = 10.0  # the usual spread, from which on a spread is reported
_FEWEST_STREAMS = 3  # with fewer, stretches of one stream are compared
_STRETCHES = 10  # that a stream is cut into then
_FEWEST_STEPS = 20  # of a stream or stretch
_MOST_LEFT_OUT = 0.3  # of the steps: more is no exception
_LARGE_PART = 0.3  # of a stream or stretch: the rest of it is left out too
_RELATIVE = ("difference", "from_", "slope")  # derived inputs without a level of their own


@dataclass(frozen=True)
class Stretch:
    """Steps of one stream in which an input varies far more than in others; rows are those of the recording's file."""

    stream: str
    input: str
    file: str
    rows: tuple[int, int]  # first and last
    spread: float  # of the input in this stream or stretch
    others: tuple[float, float]  # the least and the largest of the others
    among: str  # "streams" or "stretches"

    def __str__(self) -> str:
        low, high = self.others
        return (
            f'{self.file}, rows {self.rows[0]} to {self.rows[1]} of stream {self.stream}: "{self.input}" varies by '
            f"{self.spread:.2g} here, other {self.among} by {low:.2g} to {high:.2g}"
        )


def uneven_stretches(dataset: Dataset) -> tuple[list[Stretch], Flags]:
    """The stretches, and (steps,) whether a step is best left out. Only training and validation part are looked at.

    Where an input goes back to the start of a run, all of the stream's steps are: its beginning reaches into them.
    """
    inside = np.zeros(len(dataset), bool)
    units, among = _units(dataset)
    if len(units) < _FEWEST_STREAMS:
        return [], inside
    worst: dict[int, tuple[str, _Wide]] = {}  # by unit: the input that shows it most
    reach: dict[int, tuple[int, int]] = {}  # by unit: the first and the last step that any input shows
    for column, name, relative in _columns(dataset.contract):
        for wide in _wide(dataset.features[:, column].astype(np.float64), units, relative):
            first, last = reach.get(wide.unit, (wide.first, wide.last))
            reach[wide.unit] = min(first, wide.first), max(last, wide.last)
            if wide.unit not in worst or wide.times > worst[wide.unit][1].times:
                worst[wide.unit] = name, wide
    remembers = any(text.startswith("from_start") for one in dataset.contract.features for text in one.derived)
    found = []
    for unit, (name, wide) in worst.items():
        first, last = reach[unit]
        if remembers or last - first > _LARGE_PART * len(units[unit]):
            first, last = int(units[unit][0]), int(units[unit][-1])
        inside[units[unit][(units[unit] >= first) & (units[unit] <= last)]] = True
        found.append(_stretch(dataset, name, reach[unit], wide, among))
    return found, inside


def are_exceptions(dataset: Dataset, inside: Flags) -> bool:
    """Whether so few steps lie in such stretches that they may be left out."""
    early = dataset.part_of >= 0
    return bool(inside.any()) and bool(inside.sum() <= _MOST_LEFT_OUT * early.sum())


def _units(dataset: Dataset) -> tuple[list[Integers], str]:
    """The steps of each stream in training and validation part, or of each stretch where there are few streams."""
    early = np.isin(dataset.part_of, [PARTS.index("train"), PARTS.index("validation")])
    streams = list(dataset.by_stream(np.flatnonzero(early)).values())
    if len(streams) >= _FEWEST_STREAMS:
        return [steps for steps in streams if len(steps) >= _FEWEST_STEPS], "streams"
    cut = [part for steps in streams for part in np.array_split(steps, _STRETCHES)]
    return [part for part in cut if len(part) >= _FEWEST_STEPS], "stretches"


def _columns(contract: Contract) -> Iterator[tuple[int, str, bool]]:
    """The inputs that are compared: column, name, and whether it has no level of its own."""
    inputs = contract.inputs
    for feature in contract.features:
        if feature.categories or feature.period is not None:
            continue
        yield inputs.index(feature.name), feature.name, False
        for text in feature.derived:
            name = f"{feature.name} {text}"
            yield inputs.index(name), name, text.startswith(_RELATIVE)


class _Wide(NamedTuple):
    """A unit in which an input varies far more than usual."""

    unit: int
    first: int  # step that is far from the center
    last: int
    spread: float
    others: tuple[float, float]  # the least and the largest spread of the others

    @property
    def times(self) -> float:
        return self.spread / self.others[1]


def _wide(values: Doubles, units: list[Integers], relative: bool) -> Iterator[_Wide]:
    """The units with far more than the usual spread of these values (steps,)."""
    centers = np.array([np.median(values[unit]) for unit in units])
    if relative:
        centers[:] = np.median(centers)
    spreads = np.array(
        [np.sqrt(((values[unit] - center) ** 2).mean()) for unit, center in zip(units, centers, strict=True)]
    )
    usual = float(np.median(spreads))
    wide = spreads > _TIMES * usual
    if usual <= 0:
        return
    others = float(spreads[~wide].min()), float(spreads[~wide].max())
    for index in np.flatnonzero(wide).tolist():
        far = units[index][np.abs(values[units[index]] - centers[index]) > _TIMES * usual]
        if far.size:
            yield _Wide(index, int(far[0]), int(far[-1]), float(spreads[index]), others)


def _stretch(dataset: Dataset, name: str, reach: tuple[int, int], wide: _Wide, among: str) -> Stretch:
    recording = dataset.recording
    stream = int(dataset.stream_of[wide.first])
    own = np.flatnonzero(recording.stream_of == stream)
    rows = [int(own[np.argmin(np.abs(recording.times[own] - dataset.times[step]))]) for step in reach]
    (file, begin), (_, end) = (row_place(recording, row) for row in rows)
    return Stretch(recording.streams[stream], name, file, (begin, end), wide.spread, wide.others, among)
