"""Outliers: values so far from all others of their column that they are no measurement, by file, row and column.

A feature is divided by its standard deviation, so a single outlier can flatten it. Impossible values are refused, odd
ones are reported. Values within the recipe's `least` and `most` are no outliers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge_lstm.foundation.arrays import Doubles
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.recording import Recording, row_place
from edge_lstm_train.recipe.recipe import Recipe

# An outlier is far from the median, with a gap between it and the other values. In eighty columns of public recordings,
# no measurement has a gap of more than 3.1 before it; -200 for a missing value has 3.7 to 160.
_LEAST_GAP = 3.5  # times as far from the median as the next value
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
            median = float(np.nanmedian(column))
            distances = np.nan_to_num(np.abs(column - median))
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
                )


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
