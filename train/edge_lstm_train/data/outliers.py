"""Outliers: values so far from all others of their column that they are no measurement; named by file, row and column.

One of them is enough to flatten all that a network sees of a feature, which is divided by the standard deviation. What
cannot be is refused, what is odd is told. Where the recipe says which values are plausible, they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge_lstm.foundation.arrays import Doubles
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.recording import Recording, row_place
from edge_lstm_train.recipe.recipe import Recipe

# A value is far off where it lies far from the median, and nothing lies between it and the others. In eighty columns of
# public recordings no measurement has a hole of more than 3.1 before it; -200 for a missing value has 3.7 to 160.
_HOLE = 3.5  # times as far from the median as the next value
_FAR = 10.0  # times as far from the median as half of those that differ from it
_IMPOSSIBLE = 1e9  # times as far; a device takes what is so many standard deviations away for missing
_FEWEST = 10  # values that differ from the median


@dataclass(frozen=True)
class Outlier:
    """The farthest value of a column, and how many are as far off."""

    section: str  # of the recipe
    column: str
    file: str
    row: int  # in the file
    value: float
    median: float  # of the column
    times: float  # as far from the median as is usual
    count: int

    def __str__(self) -> str:
        return f"{self.file}, {self.within}"

    @property
    def within(self) -> str:
        """What it is, without the file."""
        times = f"{self.times:,.0f}" if self.times < 1e6 else f"{self.times:.0e}"
        more = f", and {self.count - 1} more like it" if self.count > 1 else ""
        return (
            f'row {self.row}, column "{self.column}": found {self.value:g}, {times} times as far from the median '
            f"({self.median:g}) as is usual there{more}"
        )

    @property
    def remedy(self) -> str:
        """What to do about it."""
        bound = "most" if self.value > self.median else "least"
        return (
            f"mend that row, or say what a missing value is (sentinels = [{self.value:g}]) or what is plausible "
            f"({bound} = ...) under [{self.section}] in the recipe"
        )


def refuse_impossible(recipe: Recipe, recording: Recording) -> None:
    """Raise EdgeLstmError where a value can be no measurement."""
    for found in outliers(recipe, recording):
        if found.times >= _IMPOSSIBLE:
            raise EdgeLstmError(str(found), found.remedy)


def outliers(recipe: Recipe, recording: Recording) -> Iterator[Outlier]:
    """The farthest value of each column of numbers that has any that are far off."""
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
            away = np.nan_to_num(np.abs(column - median))
            if section.most is not None:
                away[column > median] = 0.0
            if section.least is not None:
                away[column < median] = 0.0
            usual, first = _hole(away)
            if first is not None:
                row = int(np.argmax(away))
                yield Outlier(
                    f"{kind}.{name}",
                    section.column or name,
                    *row_place(recording, recipe.columns.layout, row),
                    float(column[row]),
                    median,
                    float(away[row]) / usual,
                    int((away >= first).sum()),
                )


def _hole(away: Doubles) -> tuple[float, float | None]:
    """The usual distance of values (rows,) from their median, and the first one behind a hole, or None."""
    different = np.sort(away[away > 0])
    if len(different) < _FEWEST:
        return 0.0, None
    far = different[len(different) // 2 :]
    steps = far[1:] / far[:-1]
    at = int(np.argmax(steps))
    return float(far[0]), float(far[at + 1]) if steps[at] >= _HOLE and far[-1] >= _FAR * far[0] else None
