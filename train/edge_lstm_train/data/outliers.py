"""Outliers: values so far from all others of their column that they are no measurement, by file, row and column.

A feature is divided by its standard deviation, so a single outlier can flatten it. Impossible values are refused, odd
ones are reported. Values within the recipe's `least` and `most` are no outliers. An angle has none but numbers that are
no angle, and of a counter the increases count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge_lstm.foundation.arrays import Doubles
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.recording import Recording, row_place
from edge_lstm.streaming.sampling.counters import FALLEN, LARGEST, LAST, START, Counters
from edge_lstm_train.recipe.column_kinds import circle_of
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.recording_sections import FeatureSection

# An outlier is far from the median, with a gap between it and the other values. In eighty columns of public recordings,
# no measurement has a gap of more than 3.1 before it; -200 for a missing value has 3.7 to 160.
_LEAST_GAP = 3.5  # times as far from the median as the next value
_RESOLUTION = 1e-7  # of float32: smaller differences are those of rounding
_FAR = 10.0  # times the usual distance from the median
_IMPOSSIBLE = 1e9  # times the usual distance; a device treats a value this far off as missing
_FEWEST = 10  # values that differ from the median


@dataclass(frozen=True)
class Outlier:
    """The farthest value of a column, and the number of values beyond the gap."""

    section: str  # of the recipe
    column: str
    file: str
    row: int  # in the file
    value: float
    median: float  # of the column
    times: float  # its distance from the median, over the usual distance
    count: int  # values beyond the gap
    looks_circular: bool = False  # whether the column looks like an angle, and the recipe does not say so

    def __str__(self) -> str:
        return f"{self.file}, {self.within}"

    @property
    def within(self) -> str:
        """The outlier in words, without the file."""
        times = f"{self.times:,.0f}" if self.times < 1e6 else f"{self.times:.0e}"
        more = f", and {self.count - 1} more like it" if self.count > 1 else ""
        return (
            f'row {self.row}, column "{self.column}": found {self.value:g}, {times} times as far from the median '
            f"({self.median:g}) as is usual there{more}"
        )

    @property
    def remedy(self) -> str:
        """What the user can do about it."""
        if self.looks_circular:
            return (
                f"it looks like an angle, and 0 is as good as 360: write circular = true and the unit under "
                f"[{self.section}] in the recipe"
            )
        bound = "most" if self.value > self.median else "least"
        return (
            f"correct that row, or mark a missing value (sentinels = [{self.value:g}]) or the plausible range "
            f"({bound} = ...) under [{self.section}] in the recipe"
        )


def refuse_impossible(recipe: Recipe, recording: Recording) -> None:
    """Raise EdgeLstmError if a value cannot be a measurement."""
    for found in outliers(recipe, recording):
        if found.times >= _IMPOSSIBLE:
            raise EdgeLstmError(str(found), found.remedy)


def outliers(recipe: Recipe, recording: Recording) -> Iterator[Outlier]:
    """The farthest value of each column of numbers that has an outlier."""
    values = dict(zip(recording.features, recording.values.T, strict=True))
    for kind, sections, columns in (
        ("features", recipe.features, values),
        ("labels", recipe.labels, recording.labels),
    ):
        for name, section in sections.items():
            if name in recording.categories or name not in columns:
                continue
            column = columns[name]
            if not np.isfinite(column).any():
                continue
            feature = section if isinstance(section, FeatureSection) else None
            if feature is not None and feature.circle is not None:
                yield from _no_angles(recipe, recording, name, feature, column)
                continue
            if feature is not None and feature.counter:
                column = _increases(recording, feature, column)
            if not np.isfinite(column).any():
                continue
            median = float(np.nanmedian(column))
            distances = np.nan_to_num(np.abs(column - median))
            distances[distances < _RESOLUTION * abs(median)] = 0.0
            if section.most is not None:
                distances[column > median] = 0.0
            if section.least is not None:
                distances[column < median] = 0.0
            usual, first = _gap(distances)
            if first is not None:
                row = int(np.argmax(distances))
                yield Outlier(
                    f"{kind}.{name}",
                    section.column or name,
                    *row_place(recording, row),
                    float(column[row]),
                    median,
                    float(distances[row]) / usual,
                    int((distances >= first).sum()),
                    feature is not None
                    and circle_of(section.column or name, column, np.diff(column), section.unit) is not None,
                )


def _no_angles(
    recipe: Recipe, recording: Recording, name: str, section: FeatureSection, column: Doubles
) -> Iterator[Outlier]:
    """The numbers of a circle that lie more than a turn away: a code like 999, where most values are within a turn."""
    period = section.circle or 0.0
    beyond = np.abs(np.nan_to_num(column)) > period * (1 + 1e-6)
    if beyond.any() and np.count_nonzero(beyond) < np.count_nonzero(np.isfinite(column)) / 2:
        row = int(np.argmax(np.where(beyond, np.abs(column), -1.0)))
        median, value = float(np.nanmedian(column)), float(column[row])
        place = row_place(recording, row)
        times, count = abs(value - median) / (period / 2), int(beyond.sum())
        yield Outlier(f"features.{name}", section.column or name, *place, value, median, times, count)


def _increases(recording: Recording, section: FeatureSection, column: Doubles) -> Doubles:
    """(rows,): the increases of a counter, each in the row of its reading, over gaps of any length."""
    order = np.lexsort((recording.times, recording.stream_of))
    order = order[np.isfinite(column[order])]
    readings, stream_of = column[order], recording.stream_of[order]
    memory = np.tile(np.array(START), (len(order), 1, 1))
    first = np.diff(stream_of, prepend=-1) != 0
    memory[1:, 0, LAST] = readings[:-1]
    memory[2:, 0, FALLEN] = np.where(readings[1:-1] < readings[:-2], readings[:-2], np.nan)
    rises = np.diff(readings)[np.diff(readings) > 0]
    memory[:, 0, LARGEST] = np.median(rises) if rises.size else 0.0
    counters = Counters([section.modulus])
    found = np.full(len(column), np.nan)
    found[order] = counters.increases(memory, readings[:, None], first)[0][:, 0]
    return found


def _gap(distances: Doubles) -> tuple[float, float | None]:
    """The usual distance from the median, and the first distance beyond a gap, or None; distances (rows,).

    The usual distance is the median of those that are not 0.
    """
    different = np.sort(distances[distances > 0])
    if len(different) < _FEWEST:
        return 0.0, None
    far = different[len(different) // 2 :]
    steps = far[1:] / far[:-1]
    at = int(np.argmax(steps))
    return float(far[0]), float(far[at + 1]) if steps[at] >= _LEAST_GAP and far[-1] >= _FAR * far[0] else None
