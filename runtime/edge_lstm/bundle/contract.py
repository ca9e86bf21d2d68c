"""The contract of a model: inputs, outputs, states and sampling, as training writes it and every device keeps it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_lstm.bundle.alarm import Alarm as Alarm
from edge_lstm.bundle.feature import Feature as Feature
from edge_lstm.bundle.feature import derived_parts
from edge_lstm.bundle.health import Health
from edge_lstm.bundle.intervals import MOST_WAITING, NUMBERS_WAITING, Intervals
from edge_lstm.bundle.known_ahead import KnownAhead as KnownAhead
from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.config import key
from edge_lstm.foundation.numbers import FLOAT32_MAX
from edge_lstm.foundation.text import is_printable

ClockInput = Literal["time_of_day", "day_of_week", "day_of_year", "elapsed"]
Task = Literal["forecast", "estimate", "classify", "anomaly"]

_MAX_OUTPUTS = 2**16
_MAX_AXES = 8
_MAX_TEXT = 1000  # characters of a name or unit


@dataclass(frozen=True)
class Sampling:
    """How readings become steps: one step per reading, or one per interval of a grid."""

    interval_s: float | None = key(None, least=1e-6, doc="usual time between steps")
    max_gap_s: float | None = key(None, least=1e-6, doc="a longer gap between readings resets the stream's state")
    grid: bool = key(
        False,
        doc="true: the readings of each interval make one step, and an empty interval makes a step of missing values",
    )

    def faults(self) -> Iterator[tuple[str, str]]:
        if not self.grid:
            return
        if self.interval_s is None:
            yield "interval_s", "missing (seconds of each step, where grid = true)"
        if self.max_gap_s is None:
            yield (
                "max_gap_s",
                "missing (where grid = true, a longer silence restarts the state, a shorter one is filled)",
            )
        elif self.interval_s is not None and self.max_gap_s > 10_000 * self.interval_s:
            yield "max_gap_s", f"expected at most 10,000 intervals, found {self.max_gap_s:g} s"


@dataclass(frozen=True)
class Decision:
    """How the probabilities of a classifier become one label."""

    label: str = key("label", doc="name of the label that is predicted, e.g. activity")
    hold_steps: int = key(
        1,
        least=1,
        most=1_000_000,
        doc="the label changes after another class was the most probable in so many steps in a row",
    )
    pool: bool = key(
        False,
        doc="true: average the probabilities of all steps since the state was reset; false: use only this step",
    )


@dataclass(frozen=True)
class StateTensor:
    """One array that each stream carries from step to step."""

    name: str = key(doc="e.g. hidden_state_0")
    shape: list[int] = key(doc="of one stream, without the batch axis")
    start: list[float] = key([], least=-FLOAT32_MAX, most=FLOAT32_MAX, doc="start values, row by row; empty: zeros")

    def faults(self) -> Iterator[tuple[str, str]]:
        if not 1 <= len(self.shape) <= _MAX_AXES or any(size < 1 for size in self.shape):
            yield "shape", f"expected 1 to {_MAX_AXES} sizes of at least 1, found {self.shape[: _MAX_AXES + 1]}"
        elif self.start and len(self.start) != self.size:
            yield "start", f"expected {self.size} numbers or none, found {len(self.start)}"

    @property
    def size(self) -> int:
        """The numbers of one stream; 0 for a shape that is refused."""
        return math.prod(self.shape) if len(self.shape) <= _MAX_AXES else 0

    @property
    def initial(self) -> Floats:
        """The start value of a stream, of this shape."""
        return np.array(self.start or [0.0] * math.prod(self.shape), np.float32).reshape(self.shape)


@dataclass(frozen=True)
class Contract:
    """What a predictor needs to know about a model besides its arithmetic.

    The feature vector (float32, raw units) has, in this order: the value of every feature (a category: its index; on a
    circle: its sine), the masks of the features that have one, the cosine of each feature on a circle, the derived
    inputs of each feature (categories: one-hot), a sine and a cosine for each clock input, for `elapsed` log(1 +
    seconds since the last step), and for each feature with an age log(1 + seconds since its value was measured).

    The prediction vector is target-major: every horizon of the first target, then of the second. Quantiles follow
    their target as targets of their own ("power p10"). The targets of a classifier are its classes, and its prediction
    vector has their logits. A target on a circle has two components, its sine and its cosine; the published value is
    the position that they give.
    """

    name: str = key(doc="the model's name")
    task: Task = key(doc="forecast, estimate, classify or anomaly")
    features: list[Feature] = key(doc="measured inputs, in order")
    targets: list[str] = key(doc="predicted quantities: features, classes, or any names in an estimate")
    horizons: list[int] = key(doc="steps ahead of each prediction", most=10**9)
    states: list[StateTensor] = key(doc="arrays that are carried from step to step")
    clock: list[ClockInput] = key([], doc="inputs computed from the reading's time (UTC)")
    sampling: Sampling = key(Sampling(), doc="how readings become steps")
    clip: float | None = key(None, least=1.0, doc="limit of values, in standard deviations from the mean")
    quantiles: list[float] = key([], least=0.001, most=0.999, doc="quantiles predicted with each target")
    units: dict[str, str] = key({}, doc="units of targets that are not features, for display")
    decision: Decision | None = key(None, doc="of a classifier")
    alarm: Alarm | None = key(None, doc="of an anomaly detector")
    intervals: Intervals | None = key(None, doc="about each prediction of a forecast or an estimate")
    health: Health | None = key(None, doc="by what a device judges whether the model is still good")
    known_ahead: list[KnownAhead] = key([], doc="quantities whose later values are features")

    def faults(self) -> Iterator[tuple[str, str]]:
        names = {feature.name for feature in self.features}
        if not names:
            yield "features", "expected at least one"
        if len(names) < len(self.features):
            yield "features", f"expected different names, found {', '.join(one.name for one in self.features)}"
        if not self.targets:
            yield "targets", "expected at least one"
        for target in self.targets:
            if target not in names and self.task in ("forecast", "anomaly"):
                yield "targets", f'expected names of features, found "{target}"'
        for feature in self.features:
            if feature.mirrored_by is not None and feature.mirrored_by not in names:
                yield "features", f'expected the name of a feature in mirrored_by, found "{feature.mirrored_by}"'
        plain = [feature.name for feature in self.features if not feature.categories and feature.period is None]
        for feature in self.features:
            for other in filter(None, (derived_parts(text)[1] for text in feature.derived)):
                if other not in plain or other == feature.name:
                    yield "features", f'expected derived to name another feature of numbers, found "{other}"'
        if (self.decision is not None) != (self.task == "classify"):
            yield "decision", "expected in a classifier, and only there"
        if (self.alarm is not None) != (self.task == "anomaly"):
            yield "alarm", "expected if the task is anomaly, and only then"
        residuals = None if self.alarm is None else self.alarm.residuals
        if residuals is not None and len(residuals.spread) != len(self.targets):
            yield "alarm.residuals", f"expected one spread per target, found {len(residuals.spread)}"
        if self.task in ("classify", "anomaly") and len(self.horizons) != 1:
            yield "horizons", f"expected one, found {self.horizons}"
        if self.quantiles and self.task not in ("forecast", "estimate"):
            yield "quantiles", f"expected none for the task {self.task}"
        if self.quantiles and (circles := list(self.circles)):
            yield "quantiles", f"expected none for {', '.join(circles)}: a circle has no smaller and larger values"
        if self.intervals is not None:
            if self.task not in ("forecast", "estimate"):
                yield "intervals", f"expected none for the task {self.task}"
            elif (found := len(self.intervals.widths)) != (wanted := len(self.targets) * len(self.horizons)):
                yield "intervals.widths", f"expected {wanted} numbers, one for each target and horizon, found {found}"
        if self.health is not None:
            outputs = len(self.targets) * len(self.horizons)
            yield from (("health." + name, fault) for name, fault in self.health.mismatches(outputs, len(plain)))
        yield from self._known_ahead_faults(names)
        least = 1 if self.task == "forecast" else 0
        if not self.horizons or any(horizon < least for horizon in self.horizons):
            yield "horizons", f"expected steps of at least {least}, found {self.horizons}"
        if not self.states:
            yield "states", "expected at least one"
        if len({state.name for state in self.states}) < len(self.states):
            yield "states", "expected different names"
        if (outputs := len(self.network_outputs)) > _MAX_OUTPUTS:
            yield "targets", f"expected at most {_MAX_OUTPUTS} numbers per prediction, found {outputs}"
        for where, text in self._texts():
            if not is_printable(text):
                yield where, f'expected texts without control characters, found "{text}"'
            elif len(text) > _MAX_TEXT:
                yield where, f'expected texts of at most {_MAX_TEXT} characters, found "{text[:_MAX_TEXT]}"'

    def _known_ahead_faults(self, features: set[str]) -> Iterator[tuple[str, str]]:
        if self.known_ahead and self.sampling.interval_s is None:
            yield "sampling.interval_s", "missing (seconds of a step, where values are known ahead)"
        if self.features and not self.measured:
            yield "features", "expected at least one that a device measures, found values that are known ahead alone"
        known = [one.name for one in self.known_ahead]
        if len(set(known)) < len(known):
            yield "known_ahead", f"expected each quantity once, found {', '.join(known)}"
        for name in (name for one in self.known_ahead for name in one.features):
            if name not in features:
                yield "known_ahead", f'expected a feature "{name}", found none'
            elif name in self.targets:
                yield "known_ahead", f'expected no target among its features, found "{name}"'

    def _texts(self) -> Iterator[tuple[str, str]]:
        """Every text that is displayed, with its key."""
        yield "name", self.name
        for feature in self.features:
            yield from (("features", text) for text in (feature.name, feature.unit, *feature.categories))
        yield from (("targets", text) for text in self.targets)
        yield from (("states", state.name) for state in self.states)
        yield from (("units", text) for pair in self.units.items() for text in pair)
        yield from (("known_ahead", text) for one in self.known_ahead for text in (one.name, one.topic))
        if self.decision is not None:
            yield "decision", self.decision.label

    @property
    def measured(self) -> list[Feature]:
        """The features that a device measures: all but the values that are known ahead."""
        ahead = set(self.ahead_columns)
        return [feature for column, feature in enumerate(self.features) if column not in ahead]

    @property
    def ahead_columns(self) -> list[int]:
        """The indices of the features that are known ahead."""
        ahead = {name for one in self.known_ahead for name in one.features}
        return [column for column, feature in enumerate(self.features) if feature.name in ahead]

    @property
    def inputs(self) -> list[str]:
        """The names of the components of the feature vector, in order."""
        values = [_sine(feature.name) if feature.period else feature.name for feature in self.features]
        masks = [f"{feature.name} missing" for feature in self.features if feature.mask]
        cosines = [_cosine(feature.name) for feature in self.features if feature.period]
        derived = [
            name
            for feature in self.features
            for name in (
                *(f"{feature.name} {text}" for text in feature.derived),
                *(f"{feature.name} is {text}" for text in feature.categories),
            )
        ]
        waves = [f"{name} {wave}" for name in self.clock if name != "elapsed" for wave in ("sin", "cos")]
        elapsed = ["elapsed"] if "elapsed" in self.clock else []
        ages = [f"{feature.name} age" for feature in self.features if feature.age]
        return values + masks + cosines + derived + waves + elapsed + ages

    @property
    def output_names(self) -> list[str]:
        """The names of predictions: each target, followed by its quantiles."""
        return [
            name for target in self.targets for name in (target, *(_quantile_name(target, q) for q in self.quantiles))
        ]

    @property
    def outputs(self) -> list[tuple[str, int]]:
        """(name, horizon) of the components of the prediction vector, in order."""
        return [(name, horizon) for name in self.output_names for horizon in self.horizons]

    @property
    def circles(self) -> dict[str, float]:
        """The targets on a circle, each with its period."""
        if self.task not in ("forecast", "anomaly"):  # targets of another task are no features
            return {}
        periods = {feature.name: feature.period for feature in self.features}
        return {target: period for target in self.targets if (period := periods.get(target)) is not None}

    @property
    def network_outputs(self) -> list[tuple[str, int]]:
        """(name, horizon) of the components of the network's own prediction vector, in order.

        They are `outputs`, with a sine and a cosine in place of each position on a circle.
        """
        circles = self.circles
        names = [(_sine(name), _cosine(name)) if name in circles else (name,) for name in self.output_names]
        return [(name, horizon) for parts in names for name in parts for horizon in self.horizons]

    @property
    def intervals_adapt(self) -> bool:
        """Whether a device goes on calibrating the intervals: by the truth, which later samples of a target bring."""
        measured = {feature.name for feature in self.features} & {*self.targets}
        waiting = NUMBERS_WAITING * len(self.targets) * sum(self.horizons)
        return self.intervals is not None and bool(measured) and 0 < waiting <= MOST_WAITING

    @property
    def target_units(self) -> dict[str, str]:
        """The unit of each prediction, by name."""
        units = {**{feature.name: feature.unit for feature in self.features}, **self.units}
        named = [(name, target) for target in self.targets for name in self.output_names_of(target)]
        return {name: units.get(target, "") for name, target in named}

    def output_names_of(self, target: str) -> list[str]:
        """The target and its quantiles."""
        return [target, *(_quantile_name(target, quantile) for quantile in self.quantiles)]


def _sine(name: str) -> str:
    return f"{name} sin"


def _cosine(name: str) -> str:
    return f"{name} cos"


def _quantile_name(target: str, quantile: float) -> str:
    return f"{target} p{100 * quantile:g}"
