"""The contract of a model: what goes in, what comes out, what is carried; training writes it, every device keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from edge_lstm.config import key

ClockInput = Literal["time_of_day", "day_of_week", "day_of_year"]


@dataclass(frozen=True)
class Feature:
    """One measured input, with the statistics of the training part of the recording (in `unit`)."""

    name: str = key(doc="the feature's name in readings")
    unit: str = key("", doc="physical unit, for people")
    mean: float = key(0.0, doc="mean over the training part; stands in for a value that was never seen")
    scale: float = key(1.0, least=1e-30, doc="standard deviation over the training part")
    mask: bool = key(False, doc="whether a second input says 1 where the value is missing")


@dataclass(frozen=True)
class Sampling:
    """How readings become steps. Every reading is a step."""

    interval_s: float | None = key(None, least=1e-6, doc="the usual time between readings; horizons are counted in it")
    max_gap_s: float | None = key(None, least=1e-6, doc="a longer silence restarts the stream's state")


@dataclass(frozen=True)
class StateTensor:
    """One array that is carried from step to step, for each stream; it starts as zeros."""

    name: str = key(doc="e.g. hidden_state_0")
    shape: list[int] = key(doc="for one stream, so without the batch axis")

    def faults(self) -> Iterator[tuple[str, str]]:
        if not self.shape or any(size < 1 for size in self.shape):
            yield "shape", f"expected sizes of at least 1, found {self.shape}"


@dataclass(frozen=True)
class Contract:
    """What a predictor needs to know of a model besides its arithmetic.

    The feature vector (float32, raw units) is: every feature's value in order, then the masks of the features that
    have one, then a sine and a cosine for each clock input. The prediction vector is target-major: every horizon of
    the first target, then of the second.
    """

    name: str = key(doc="the model's name")
    task: Literal["forecast", "estimate"] = key(doc="what the numbers mean: what comes, or what is")
    features: list[Feature] = key(doc="measured inputs, in order")
    targets: list[str] = key(doc="what is predicted: features, or in an estimate anything")
    horizons: list[int] = key(doc="steps ahead of each prediction")
    states: list[StateTensor] = key(doc="what is carried")
    clock: list[ClockInput] = key([], doc="inputs computed from the reading's time (UTC)")
    sampling: Sampling = key(Sampling(), doc="readings to steps")

    def faults(self) -> Iterator[tuple[str, str]]:
        names = [feature.name for feature in self.features]
        if not names:
            yield "features", "expected at least one"
        if len(set(names)) < len(names):
            yield "features", f"expected different names, found {', '.join(names)}"
        if not self.targets:
            yield "targets", "expected at least one"
        for target in self.targets:
            if target not in names and self.task == "forecast":
                yield "targets", f'expected names of features, found "{target}"'
        least = 1 if self.task == "forecast" else 0
        if not self.horizons or any(horizon < least for horizon in self.horizons):
            yield "horizons", f"expected steps of at least {least}, found {self.horizons}"
        if not self.states:
            yield "states", "expected at least one"
        if len({state.name for state in self.states}) < len(self.states):
            yield "states", "expected different names"

    @property
    def inputs(self) -> list[str]:
        """The names of the feature vector's components, in order."""
        masks = [f"{feature.name} missing" for feature in self.features if feature.mask]
        clock = [f"{name} {wave}" for name in self.clock for wave in ("sin", "cos")]
        return [feature.name for feature in self.features] + masks + clock

    @property
    def outputs(self) -> list[tuple[str, int]]:
        """(target, horizon) of the prediction vector's components, in order."""
        return [(target, horizon) for target in self.targets for horizon in self.horizons]
