"""Quantities whose later values are known, or forecast, when a prediction is made: weather, tariffs, schedules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from edge_lstm.foundation.config import key

Between = Literal["linear", "previous"]
MOST_STEPS = 1_000_000


@dataclass(frozen=True)
class KnownAhead:
    """One such quantity. The feature `outdoor+6` is the value of `outdoor` six steps after the sample.

    It is the value that the newest forecast had at the time of the sample.
    """

    name: str = key(doc="the quantity, e.g. outdoor")
    topic: str = key(doc="topic pattern of its forecasts; without {stream} they are for all streams")
    steps: list[int] = key(least=0, most=MOST_STEPS, doc="steps after the sample whose values are features")
    between: Between = key(
        "linear",
        doc="value between two points of a forecast: linear: on the line from one to the other; previous: that of the "
        "point before",
    )

    @property
    def features(self) -> dict[str, int]:
        """The features, each with the number of steps after the sample."""
        return {feature_name(self.name, step): step for step in self.steps}

    def faults(self) -> Iterator[tuple[str, str]]:
        if not self.steps or len(set(self.steps)) < len(self.steps):
            yield "steps", f"expected at least one, and each once, found {self.steps}"


def feature_name(quantity: str, step: int) -> str:
    """The name of the feature that has the value so many steps after the sample."""
    return f"{quantity}+{step}"
