"""A feature: one measured input of a model, what its numbers mean, and the inputs derived from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from edge_lstm.bundle.sensor import Sensor
from edge_lstm.foundation.config import key
from edge_lstm.foundation.numbers import FLOAT32_MAX

Aggregate = Literal["mean", "last", "sum", "least", "most"]

# Derived inputs by name, with their number of spans (in steps); `derived.py` computes them.
DERIVED: dict[str, int] = {
    "difference": 0,
    "mean": 1,
    "deviation": 1,
    "from_mean": 1,
    "from_start": 1,
    "standardized": 1,
    "slope": 2,
    "covariance": 1,
}
PAIRED = ("covariance",)  # these name another feature before their span

# The length of a circle by the unit of a position on it, in lower case.
PERIODS: dict[str, float] = {
    **dict.fromkeys(("degree", "degrees", "deg", "°"), 360.0),
    **dict.fromkeys(("radian", "radians", "rad"), 2 * math.pi),
    **dict.fromkeys(("gon", "grad"), 400.0),
}


@dataclass(frozen=True)
class Feature:
    """One measured input, with statistics of the training part of the recording, in `unit`."""

    name: str = key(doc="the feature's name in readings")
    unit: str = key("", doc="physical unit, for display")
    mean: float = key(
        0.0,
        least=-FLOAT32_MAX,
        most=FLOAT32_MAX,
        doc="mean over the training part; replaces a value before its first measurement",
    )
    scale: float = key(1.0, least=1e-30, most=FLOAT32_MAX, doc="standard deviation over the training part")
    mask: bool = key(False, doc="whether a second input is 1 where the value is missing")
    derived: list[str] = key([], doc='inputs computed from it, e.g. "difference", "mean 10", "slope 10 40"')
    categories: list[str] = key([], doc="the texts of its values, if it has no numbers; a value is an index")
    mirrored_by: str | None = key(None, doc="a feature; where that is above 0, the sign of this one is inverted")
    aggregate: Aggregate = key("mean", doc="how the readings of an interval become its value, on a grid")
    sentinels: list[float] = key([], least=-FLOAT32_MAX, most=FLOAT32_MAX, doc="numbers that mean a missing value")
    least: float | None = key(None, doc="a smaller value is missing")
    most: float | None = key(None, doc="a larger value is missing")
    period: float | None = key(
        None, least=1e-6, most=1e9, doc="the value is a position on a circle of this length, such as 360 degrees"
    )
    counter: bool = key(
        False, doc="whether readings are those of a counter; the value is then the increase since the last reading"
    )
    modulus: float | None = key(None, least=1e-6, most=1e18, doc="the counter goes back to 0 instead of reaching this")
    age: bool = key(False, doc="whether an input says how long ago the value was measured: log(1 + seconds)")
    sensor: Sensor | None = key(None, doc="what its sensor is like while it works")

    @property
    def circle(self) -> float | None:
        """The length of the circle that the values are on; None: they are on none."""
        return self.period

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from kind_faults(self)
        if self.least is not None and self.most is not None and self.least > self.most:
            yield "least", f"expected at most `most` ({self.most:g}), found {self.least:g}"
        for text in self.derived:
            if (fault := derived_fault(text)) is not None:
                yield "derived", fault
        if self.categories and (self.derived or self.mirrored_by):
            yield "categories", "expected none together with derived or mirrored_by, which are for numbers"
        if len(set(self.categories)) < len(self.categories):
            yield "categories", f"expected each once, found {', '.join(self.categories)}"


class _Kind(Protocol):
    """The keys of a feature that say what its numbers mean; a recipe has the same ones."""

    @property
    def circle(self) -> float | None: ...
    @property
    def counter(self) -> bool: ...
    @property
    def modulus(self) -> float | None: ...
    @property
    def derived(self) -> list[str]: ...
    @property
    def categories(self) -> list[str]: ...
    @property
    def mirrored_by(self) -> str | None: ...
    @property
    def aggregate(self) -> Aggregate: ...


def kind_faults(feature: _Kind) -> Iterator[tuple[str, str]]:
    """The keys that contradict a circle or a counter."""
    if feature.circle is not None:
        if feature.counter:
            yield "counter", "expected a circle or a counter, found both"
        if feature.categories or feature.derived or feature.mirrored_by:
            yield "derived", "expected no categories, derived or mirrored_by on a circle, which has sine and cosine"
        if feature.aggregate not in ("mean", "last"):
            yield "aggregate", f'expected "mean" or "last" on a circle, found "{feature.aggregate}"'
    if feature.counter:
        if feature.categories or feature.mirrored_by:
            yield "counter", "expected no categories or mirrored_by beside it"
        if feature.aggregate != "mean":
            yield "aggregate", f'expected none for a counter, whose increases are added up, found "{feature.aggregate}"'
    elif feature.modulus is not None:
        yield "modulus", "expected counter = true beside it"


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
