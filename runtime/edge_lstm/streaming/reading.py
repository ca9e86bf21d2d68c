"""A reading (one device's values at one time) and a prediction: the two values that cross the middle of the house."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# Tuples: a frozen dataclass takes several times as long to make, and every message makes one of each.


class Reading(NamedTuple):
    """What one device said at one moment.

    `time` is in seconds since 1970 (UTC); `values` maps feature names to numbers in the bundle's units, where an
    absent name or NaN is a missing value. `sequence` is the identity that the device gave it (None: its time is its
    identity). `partial` says that it holds only some of the values that make a sample, and is to be joined with its
    neighbours: in it an absent name was not spoken of, and NaN is a value that came and is missing.
    """

    stream: str
    time: float
    values: Mapping[str, float]
    sequence: str | None = None
    partial: bool = False


class Prediction(NamedTuple):
    """What the network says after one step of one stream.

    `time` is the reading's time in seconds since 1970; `step` counts the stream's steps from 1 and never restarts;
    `warm_steps` counts them since the state last started from its initial value; `values` maps each target to its
    prediction by horizon (in steps ahead), in the target's unit; `revision` counts how often it was corrected because
    an earlier reading came late. A classifier gives its `label`, and probabilities in `values`. A detector of anomalies
    gives a `score`, above 1 where an alarm begins, NaN while the stream is not judged yet, and whether there is an
    `alarm`. `turned` says that label or alarm is another one than at the step before.
    """

    stream: str
    time: float
    step: int
    warm_steps: int
    values: Mapping[str, Mapping[int, float]]
    revision: int = 0
    label: str | None = None
    score: float | None = None
    turned: bool = False
    alarm: bool | None = None  # None where the task knows none
