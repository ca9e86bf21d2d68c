"""The contract of a model: inputs, outputs, states and sampling, as training writes it and every device keeps it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.config import key
from edge_lstm.foundation.text import is_printable

ClockInput = Literal["time_of_day", "day_of_week", "day_of_year", "elapsed"]
Aggregate = Literal["mean", "last", "sum", "least", "most"]
Task = Literal["forecast", "estimate", "classify", "anomaly"]

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_MAX_OUTPUTS = 2**16
_MAX_AXES = 8
_MAX_TEXT = 1000  # characters of a name or unit

# Derived inputs by name, with their number of spans (in steps); `derived.py` computes them.
DERIVED: dict[str, int] = {
    "difference": 0,
    "mean": 1,
    "deviation": 1,
    "from_mean": 1,
    "from_start": 1,
    "slope": 2,
    "covariance": 1,
}
PAIRED = ("covariance",)  # these name another feature before their span


@dataclass(frozen=True)
class Feature:
    """One measured input, with statistics of the training part of the recording, in `unit`."""

    name: str = key(doc="the feature's name in readings")
    unit: str = key("", doc="physical unit, for display")
    mean: float = key(
        0.0,
        least=-_FLOAT32_MAX,
        most=_FLOAT32_MAX,
        doc="mean over the training part; replaces a value before its first measurement",
    )
    scale: float = key(1.0, least=1e-30, most=_FLOAT32_MAX, doc="standard deviation over the training part")
    mask: bool = key(False, doc="whether a second input is 1 where the value is missing")
    derived: list[str] = key([], doc='inputs computed from it, e.g. "difference", "mean 10", "slope 10 40"')
    categories: list[str] = key([], doc="the texts of its values, if it has no numbers; a value is an index")
    mirrored_by: str | None = key(None, doc="a feature; where that is above 0, the sign of this one is inverted")
    aggregate: Aggregate = key("mean", doc="how the readings of an interval become its value, on a grid")
    sentinels: list[float] = key([], least=-_FLOAT32_MAX, most=_FLOAT32_MAX, doc="numbers that mean a missing value")
    least: float | None = key(None, doc="a smaller value is missing")
    most: float | None = key(None, doc="a larger value is missing")

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.least is not None and self.most is not None and self.least > self.most:
            yield "least", f"expected at most `most` ({self.most:g}), found {self.least:g}"
        for text in self.derived:
            if (fault := derived_fault(text)) is not None:
                yield "derived", fault
        if self.categories and (self.derived or self.mirrored_by):
            yield "categories", "expected none together with derived or mirrored_by, which are for numbers"
        if len(set(self.categories)) < len(self.categories):
            yield "categories", f"expected each once, found {', '.join(self.categories)}"


def derived_parts(text: str) -> tuple[str, str, list[str]]:
    """A derived input's kind, the other feature that it names (empty: none), and its spans."""
    kind, _, rest = text.strip().partition(" ")
    if kind not in PAIRED:
        return kind, "", rest.split()
    other, _, span = rest.strip().rpartition(" ")
    return kind, other.strip(), [span]


def derived_fault(text: str) -> str | None:
    """The fault in the text of a derived input, or None."""
    name, other, spans = derived_parts(text)
    if name not in DERIVED or len(spans) != DERIVED[name] or (name in PAIRED and not other):
        named = {known: " FEATURE" if known in PAIRED else "" for known in DERIVED}
        forms = ", ".join(f'"{known}{named[known]}{" STEPS" * count}"' for known, count in DERIVED.items())
        return f'expected one of {forms}, found "{text}"'
    if not all(span.isdecimal() and 2 <= int(span) <= 1_000_000 for span in spans):
        return f'expected spans of 2 to 1,000,000 steps, found "{text}"'
    return None


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
class Alarm:
    """How the residuals of a forecast become an alarm, calibrated on each stream's own first steps.

    The residual vector of all targets is averaged exponentially. The Mahalanobis distance of the average from its
    values during calibration is compared with `factor` times the `quantile` of this distance during calibration.
    """

    span_steps: int = key(40, least=1, most=1_000_000, doc="span of the exponential average of the residuals")
    settle_steps: int = key(20, least=0, most=1_000_000, doc="steps after a start or restart that get no score")
    calibrate_steps: int = key(
        400,
        least=20,
        most=10_000,
        doc="steps after settle_steps in which a stream is calibrated; the equipment must work normally",
    )
    quantile: float = key(0.99, least=0.5, most=1.0, doc="quantile of the distances during calibration")
    factor: float = key(3.0, least=0.01, doc="the alarm threshold is this factor times that quantile")
    release: float = key(
        1.0,
        least=0.01,
        most=1.0,
        doc="an alarm ends below this score; a value below 1 joins several short alarms into one",
    )
    shrinkage: float = key(0.1, least=0.0, most=1.0, doc="shrinkage of the covariance towards its diagonal")


@dataclass(frozen=True)
class StateTensor:
    """One array that each stream carries from step to step."""

    name: str = key(doc="e.g. hidden_state_0")
    shape: list[int] = key(doc="of one stream, without the batch axis")
    start: list[float] = key([], least=-_FLOAT32_MAX, most=_FLOAT32_MAX, doc="start values, row by row; empty: zeros")

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

    The feature vector (float32, raw units) has, in this order: the value of every feature (a category: its index), the
    masks of the features that have one, the derived inputs of each feature (categories: one-hot), a sine and a cosine
    for each clock input, and for `elapsed` log(1 + seconds since the last step).

    The prediction vector is target-major: every horizon of the first target, then of the second. Quantiles follow
    their target as targets of their own ("power p10"). The targets of a classifier are its classes, and its prediction
    vector has their logits.
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
        numbers = {feature.name for feature in self.features if not feature.categories}
        for feature in self.features:
            for other in filter(None, (derived_parts(text)[1] for text in feature.derived)):
                if other not in numbers or other == feature.name:
                    yield "features", f'expected derived to name another feature of numbers, found "{other}"'
        if (self.decision is not None) != (self.task == "classify"):
            yield "decision", "expected in a classifier, and only there"
        if (self.alarm is not None) != (self.task == "anomaly"):
            yield "alarm", "expected if the task is anomaly, and only then"
        if self.task in ("classify", "anomaly") and len(self.horizons) != 1:
            yield "horizons", f"expected one, found {self.horizons}"
        if self.quantiles and self.task not in ("forecast", "estimate"):
            yield "quantiles", f"expected none for the task {self.task}"
        least = 1 if self.task == "forecast" else 0
        if not self.horizons or any(horizon < least for horizon in self.horizons):
            yield "horizons", f"expected steps of at least {least}, found {self.horizons}"
        if not self.states:
            yield "states", "expected at least one"
        if len({state.name for state in self.states}) < len(self.states):
            yield "states", "expected different names"
        if (outputs := len(self.targets) * (1 + len(self.quantiles)) * len(self.horizons)) > _MAX_OUTPUTS:
            yield "targets", f"expected at most {_MAX_OUTPUTS} numbers per prediction, found {outputs}"
        for where, text in self._texts():
            if not is_printable(text):
                yield where, f'expected texts without control characters, found "{text}"'
            elif len(text) > _MAX_TEXT:
                yield where, f'expected texts of at most {_MAX_TEXT} characters, found "{text[:_MAX_TEXT]}"'

    def _texts(self) -> Iterator[tuple[str, str]]:
        """Every text that is displayed, with its key."""
        yield "name", self.name
        for feature in self.features:
            yield from (("features", text) for text in (feature.name, feature.unit, *feature.categories))
        yield from (("targets", text) for text in self.targets)
        yield from (("states", state.name) for state in self.states)
        yield from (("units", text) for pair in self.units.items() for text in pair)
        if self.decision is not None:
            yield "decision", self.decision.label

    @property
    def inputs(self) -> list[str]:
        """The names of the components of the feature vector, in order."""
        masks = [f"{feature.name} missing" for feature in self.features if feature.mask]
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
        return [feature.name for feature in self.features] + masks + derived + waves + elapsed

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
    def target_units(self) -> dict[str, str]:
        """The unit of each prediction, by name."""
        units = {**{feature.name: feature.unit for feature in self.features}, **self.units}
        named = [(name, target) for target in self.targets for name in self.output_names_of(target)]
        return {name: units.get(target, "") for name, target in named}

    def output_names_of(self, target: str) -> list[str]:
        """The target and its quantiles."""
        return [target, *(_quantile_name(target, quantile) for quantile in self.quantiles)]


def _quantile_name(target: str, quantile: float) -> str:
    return f"{target} p{100 * quantile:g}"
