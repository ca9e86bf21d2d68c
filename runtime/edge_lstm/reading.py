"""A reading (one device's values at one time) and a prediction: the two values that cross the middle of the house."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """What one device said at one moment.

    `time` is in seconds since 1970 (UTC); `values` maps feature names to numbers in the bundle's units, where an
    absent name or NaN is a missing value. `sequence` is the device's own number or name for the reading, its identity
    where the time is not; a `partial` reading is joined with others into one sample.
    """

    stream: str
    time: float
    values: Mapping[str, float]
    sequence: str | None = None
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the network says after one step of one stream.

    `time` is the reading's time in seconds since 1970; `step` counts the stream's steps from 1 and never restarts;
    `warm_steps` counts them since the state last started from its initial value; `values` maps each target to its
    prediction by horizon (in steps ahead), in the target's unit; `revision` counts how often it was corrected because
    an earlier reading came late.
    """

    stream: str
    time: float
    step: int
    warm_steps: int
    values: Mapping[str, Mapping[int, float]]
    revision: int = 0
