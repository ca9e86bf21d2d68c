"""Input and output types of the predictor: a reading of one device at one time, and a prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

# Tuples: a frozen dataclass takes several times as long to make, and every message makes one of each.


class _Reading(NamedTuple):
    stream: str
    time: float
    values: Mapping[str, float]
    sequence: str | None = None
    partial: bool = False
    restart: bool = False
    arrived: bool = False


class Reading(_Reading):
    """The values that one device measured at one time.

    `time` is in seconds since 1970 (UTC); `Predictor.feed` and `predict` also take a datetime with a time zone.
    `values` maps names of features to numbers in the bundle's units. A feature that is absent, NaN or None is a missing
    value. A category is given by its index. `sequence` is the device's own number or id of the reading, which shows
    together with its time whether it was sent before; None: its time alone shows this. `partial`: the reading has only
    some values of a sample. Then an absent name comes in a later reading, and only NaN or None is a missing value.

    `restart`: the times of the stream begin again here, because its clock or the clock of this machine was set. Its
    state gets its start values, and the reading may be older than the last one. `arrived`: the time is that of the
    reading's arrival, since the device gave none. Then sequence and values show whether the reading was sent before.
    """

    __slots__ = ()

    if TYPE_CHECKING:  # what a caller may give; the sampler only sees seconds and numbers

        def __new__(
            cls,
            stream: str,
            time: float | datetime,
            values: Mapping[str, float | None],
            sequence: str | None = None,
            partial: bool = False,
            restart: bool = False,
            arrived: bool = False,
        ) -> Reading: ...


class Refusal(NamedTuple):
    """A reading that was refused for its time (seconds since 1970). It stepped nothing; `reason` is in words."""

    stream: str
    time: float
    reason: str


class Forgotten(NamedTuple):
    """The stream left the service: its next reading is that of a new stream."""

    stream: str


class Driver(NamedTuple):
    """One of the sensors that drove an anomaly score.

    `share` is how much of the squared distance would be gone without it; the shares need not add up to 1. `measured`
    and `expected` are in the sensor's unit; NaN: it is missing.
    """

    sensor: str
    share: float
    measured: float
    expected: float


class Event(NamedTuple):
    """An alarm, from its first step on. `since` and `until` are in seconds since 1970; `until` is None while it lasts.

    `id` is the stream's name and the time of the first step, so it is the same after a crash and in a replay. `peak` is
    the highest score so far.
    """

    id: str
    since: float
    peak: float
    until: float | None = None


class Command(NamedTuple):
    """An operator's command that was taken.

    `id`: names it; `kind`: of `decisions.alarms.operator.KINDS`; `time`: the stream's last time then, in seconds since
    1970. `facts`: JSON values that its kind needs.
    """

    stream: str
    id: str
    kind: str
    time: float
    facts: Mapping[str, Any]


class Prediction(NamedTuple):
    """What the model predicts after one step of one stream.

    `time` is the reading's time in seconds since 1970, or on a grid the end of the interval. `step` counts the stream's
    steps from 1 and never restarts; `warm_steps` counts them since the state last had its initial value.
    `values` maps each target to its prediction by horizon (in steps ahead), in the target's unit. `revision` counts how
    often this prediction was corrected because an earlier reading came late. A classifier gives its `label`, and
    probabilities in `values`. An anomaly detector gives an `alarm`, which begins above a `score` of 1; the score is NaN
    until the stream has one. `turned`: the label, the alarm or `degraded`
    differs from that of the step before. `bands`: for each
    target and horizon, the lower and upper bound between which the truth lies with the bundle's probability.
    `drivers`: the sensors that drove a score of 0.5 or more, or an alarm, the main one first. `event`: the alarm that
    lasts, or at the first step after it the one that has ended.
    `degraded`: the features of dead sensors, and the quantities that were not known ahead; empty where it had all.
    `confidence`: how much of the score rests on the stream's own steps, from 0 to 1, and not on those of other devices;
    None once all of it does.
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
    bands: Mapping[str, Mapping[int, tuple[float, float]]] | None = None  # None where the bundle has no intervals
    drivers: Sequence[Driver] | None = None  # None where the score is lower, or the task has none
    event: Event | None = None
    degraded: tuple[str, ...] = ()
    confidence: float | None = None
