"""The sections of a recipe on how to learn: parts, network, updates, augmentation, report and search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timezone
from typing import Literal

from edge_lstm.bundle.network import Cell
from edge_lstm.foundation.config import key
from edge_lstm.foundation.times.text import parse_time
from edge_lstm_train.recipe.recording_sections import time_faults

CandidateName = Literal["linear", "network", "both"]


@dataclass(frozen=True)
class AugmentSection:
    """Random changes to the training data, so that the network learns to ignore such differences."""

    noise: float = key(0.0, doc="random noise on the inputs, in standard deviations of each input", least=0, most=10)
    crop: bool = key(False, doc="true: start each stream at a random step")
    scale: float = key(
        0.0, doc="multiply each run by a random factor between 1 - scale and 1 + scale", least=0, most=0.9
    )
    warp: float = key(
        0.0, doc="change the speed of each run by a random factor between 1 - warp and 1 + warp", least=0, most=0.9
    )
    rotate_degrees: float = key(
        0.0, doc="largest random rotation of each group of axes, new for each run", least=0, most=180
    )
    axes: list[list[str]] = key([], doc="groups of three features that are the axes of one sensor")
    sensor_dropout: float = key(
        0.0,
        doc="share of the time in which each feature with a mask is dead, in blocks; not the targets",
        least=0,
        most=0.8,
    )

    def faults(self) -> Iterator[tuple[str, str]]:
        for group in self.axes:
            if len(group) != 3:
                yield "axes", f"expected groups of three features, found {', '.join(group)}"
        if self.rotate_degrees and not self.axes:
            yield "axes", "missing (groups of three features, where rotate_degrees is above 0)"


@dataclass(frozen=True)
class SplitSection:
    """Shares for training and validation; the rest is the test part. By time, the oldest steps come first.

    By beginning, the shares are those of each stream's first `beginning_steps`, and all later steps are the test part.
    This suits machines that work normally when their recording starts, each at an operating point of its own.
    """

    train: float = key(0.6, doc="share of the training part, which gives weights and statistics", least=0.01, most=0.99)
    validation: float = key(
        0.2, doc="share of the validation part, which decides on the best weights and ridge", least=0.01, most=0.98
    )
    by: Literal["time", "stream", "group", "beginning"] = key(
        "time",
        doc=(
            "time: cut all streams at the same time; stream, group: put each into one part; beginning: "
            "cut each stream after its first steps"
        ),
    )
    beginning_steps: int | None = key(None, doc='by = "beginning": steps of each stream before its test part', least=2)
    validation_from: str | None = key(None, doc="time at which the validation part begins, instead of shares")
    test_from: str | None = key(None, doc="time at which the test part begins, instead of shares")
    leave_out: list[str] = key(
        [], doc="streams (or groups, if there are any) for testing only; patterns like valve2-* are allowed"
    )
    leave_out_time: Literal["test", "all"] = key(
        "test", doc='by = "time": test them on the time of the test part, or on all of their time'
    )
    validate_on: list[str] = key([], doc="streams or groups of the validation part; empty: drawn at random")
    seed: int = key(1, doc='by = "stream" or "group": random seed of the draw', least=0, most=2**31 - 1)

    def faults(self) -> Iterator[tuple[str, str]]:
        both = self.train + self.validation
        whole = bool(self.leave_out) or self.by == "beginning"  # the test part is not part of the shares
        if both > (1.0 + 1e-9 if whole else 0.99) and self.test_from is None:
            most, why = ("1", "more than there is") if whole else ("0.99", "nothing is left to test on")
            yield "validation", f"expected train + validation <= {most}, found {both:g}: {why}"
        if (self.validation_from is None) != (self.test_from is None):
            missing = "validation_from" if self.validation_from is None else "test_from"
            if not (missing == "test_from" and self.leave_out):
                yield missing, "expected both validation_from and test_from, found one"
        if self.by != "time":
            for name in ("validation_from", "test_from"):
                if getattr(self, name) is not None:
                    yield name, f'expected by = "time" beside it, found "{self.by}"'
        if self.by in ("time", "beginning") and self.validate_on:
            yield "validate_on", f'expected by = "stream" or "group" beside it, found "{self.by}"'
        if self.by == "beginning" and self.beginning_steps is None:
            yield "beginning_steps", 'missing (steps of each stream before its test part, where by = "beginning")'
        if self.by != "beginning" and self.beginning_steps is not None:
            yield "beginning_steps", f'expected by = "beginning" beside it, found "{self.by}"'
        moments = []
        for name in ("validation_from", "test_from"):
            text = getattr(self, name)
            if text is not None:
                faults = list(time_faults(name, text, timezone.utc))
                yield from faults
                moments += [] if faults else [parse_time(text)]
        if len(moments) == 2 and moments[0] >= moments[1]:
            yield "test_from", f'expected a time after validation_from, found "{self.test_from}"'


@dataclass(frozen=True)
class ModelSection:
    """The network."""

    cell: Cell = key("lstm", doc="recurrent cell; none: a linear path alone, without recurrent layers")
    hidden: int = key(32, doc="units per layer", least=1, most=1024)
    layers: int = key(1, doc="recurrent layers", least=1, most=3)
    dropout: float = key(0.0, doc="share of a layer's outputs that is dropped in training", least=0, most=0.95)
    recurrent_dropout: float = key(
        0.0, doc="share of the hidden-to-hidden weights that is dropped in training", least=0, most=0.95
    )
    candidates: list[CandidateName] = key(
        [],
        doc="networks that the validation part chooses from: linear (a linear path alone), network (the layers alone), "
        "both; empty: all that the other keys leave open",
    )
    highway: int | None = key(
        None,
        doc="earlier samples in a linear path beside the recurrent layers; 0: no such path; none: the validation part "
        "chooses",
        least=0,
        most=1024,
    )
    linear: bool = key(False, doc="true: a linear path, even if it sees the newest sample alone (highway = 0)")
    level_free: bool = key(True, doc="true: the linear path takes its samples relative to the newest sample")
    learned_start: bool = key(False, doc="true: the initial state is learned; false: it is zero")
    most_parameters: int = key(20_000, doc="largest number of parameters; a larger network is refused", least=1)

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.cell == "none" and set(self.candidates) - {"linear"}:
            yield "candidates", f'expected ["linear"] with the cell "none", found {self.candidates}'
        if len(set(self.candidates)) < len(self.candidates):
            yield "candidates", f"expected each once, found {self.candidates}"
        if self.has_highway and self.cell != "none" and "network" in self.candidates:
            yield "candidates", f'expected no "network" beside a highway, found {self.candidates}'
        if self.highway == 0 and not self.linear and self.cell != "none" and "both" in self.candidates:
            yield "candidates", f'expected no "both" with highway = 0, found {self.candidates}'

    @property
    def depth(self) -> int:
        """Recurrent layers: 0 where the cell is none."""
        return 0 if self.cell == "none" else self.layers

    @property
    def units(self) -> int:
        """Units per layer: 0 where the cell is none."""
        return 0 if self.cell == "none" else self.hidden

    @property
    def has_highway(self) -> bool:
        """Whether there is a linear path."""
        return self.linear or bool(self.highway) or self.cell == "none"

    @property
    def earlier(self) -> int:
        """Earlier samples in the linear path; a network without layers keeps one at least, to have a state."""
        return max(1, self.highway or 0) if self.cell == "none" else self.highway or 0

    @property
    def taps(self) -> int:
        """Samples that each input of the linear path has a weight for: without levels, the earlier ones alone."""
        if not self.has_highway:
            return 0
        return self.earlier if self.level_free and self.earlier else self.earlier + 1


@dataclass(frozen=True)
class FitSection:
    """The training of the weights."""

    updates: int = key(600, doc="gradient steps", least=1)
    learning_rate: float = key(3e-3, doc="highest learning rate", least=1e-7, most=1)
    schedule: Literal["one-cycle", "cosine"] = key(
        "one-cycle", doc="one-cycle: it rises over a tenth of the updates, then falls; cosine: it falls throughout"
    )
    weight_decay: float = key(1e-4, doc="weight decay of AdamW", least=0, most=10)
    method: Literal["carried", "windows"] = key(
        "carried", doc="carried: the state is carried from chunk to chunk; windows: it starts again in each window"
    )
    segments: int = key(16, doc="segments (or windows) in one update", least=1, most=4096)
    chunk: int = key(96, doc="steps of truncated backpropagation through time (carried)", least=1)
    window: int | None = key(None, doc="steps in a window (windows)", least=1)
    clip: float = key(1.0, doc="largest norm of the gradient", least=1e-6)
    loss: Literal["mse", "huber"] = key("mse", doc="loss of numeric outputs; huber gives outliers less weight")
    refit: bool = key(
        False, doc="true: after the best update is found, train again on the training and validation part together"
    )
    seed: int = key(1, doc="random seed; the same seed gives the same weights", least=0, most=2**31 - 1)

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.method == "windows" and self.window is None:
            yield "window", 'missing (steps in a window, where method = "windows")'
        if self.method == "carried" and self.window is not None:
            yield "window", 'expected none where method = "carried": a carried state has no window'


@dataclass(frozen=True)
class ReportSection:
    """What the report shows beside the model and its baselines."""

    opponents: bool = key(
        False,
        doc="true: gradient-boosted trees and exponential smoothing on the same recording, which no device runs; needs "
        "the extra opponents",
    )


@dataclass(frozen=True)
class Range:
    """The values that `edge-lstm tune` may give a key: those of a list, or numbers between two bounds."""

    choices: list[float] = key([], doc="numbers to choose from")
    texts: list[str] = key([], doc="texts to choose from")
    least: float | None = key(None, doc="smallest number")
    most: float | None = key(None, doc="largest number")
    log: bool = key(False, doc="true: search on a logarithmic scale")

    def faults(self) -> Iterator[tuple[str, str]]:
        between = self.least is not None or self.most is not None
        if bool(self.choices) + bool(self.texts) + between != 1:
            yield "choices", "expected one of choices, texts, and least with most"
        elif between and (self.least is None or self.most is None or self.least >= self.most):
            yield "least", f"expected least < most, found {self.least} and {self.most}"
        elif between and self.log and self.least is not None and self.least <= 0:
            yield "least", f"expected a number above 0 where log = true, found {self.least:g}"
