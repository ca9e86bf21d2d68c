"""By what a device judges whether its model is still good, as training measured it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge_lstm.foundation.config import key
from edge_lstm.foundation.numbers import FLOAT32_MAX

BINS = 10  # of each input's values; at their deciles in the training part
_MOST_LAGS = 16
_MOST_WEIGHTS = 1024


@dataclass(frozen=True)
class Reference:
    """A ridge regression of each prediction on the last samples, to compare the model with on the device.

    It predicts the change from the newest value: weights (targets * horizons, lags * plain features + 1), row by row,
    of the features in standard deviations from their mean, the newest sample first, and a constant.
    """

    lags: int = key(doc="samples that it sees", least=1, most=_MOST_LAGS)
    weights: list[float] = key(doc="row by row", least=-FLOAT32_MAX, most=FLOAT32_MAX)


@dataclass(frozen=True)
class ErrorLimits:
    """What the errors of predictions are like, and from where on they are no longer normal.

    Errors are in units of `scales`, and averaged over the last steps exponentially. The limits come from simulated
    months, made of days of the validation part: in `false_alarms_per_month` of them one of the limits is exceeded.
    """

    span_steps: int = key(doc="span of the averages", least=10, most=1_000_000)
    scales: list[float] = key(doc="RMS error on the validation part, for each target and horizon", least=1e-30)
    worse: float = key(doc="limit of the averaged RMS error", least=1.0)
    against_persistence: float = key(doc="limit of the RMS error over that of persistence", least=0.0)
    rise: float = key(doc="limit of the Page-Hinkley sum of the error", least=0.0)
    tolerance: float = key(doc="a rise of the error that this sum leaves out", least=0.0)
    coverage: list[float] = key([], doc="least and most share of intervals that hold; empty: there are none", least=0.0)
    reference: Reference | None = key(None, doc="a ridge regression to compare with")

    def faults(self) -> Iterator[tuple[str, str]]:
        if len(self.coverage) not in (0, 2):
            yield "coverage", f"expected two numbers or none, found {len(self.coverage)}"


@dataclass(frozen=True)
class InputLimits:
    """What the values of the inputs are like, and from where on they are no longer those of the training part.

    Each plain feature has bins at the deciles of its training values. The population stability index compares the
    shares of the bins, averaged exponentially over the last steps, with those of the training part.
    """

    span_steps: int = key(doc="span of the averaged shares, in samples that are looked at", least=10, most=1_000_000)
    edges: list[float] = key(doc=f"the {BINS - 1} inner edges of the bins, feature by feature")
    shares: list[float] = key(doc="of the bins in the training part, feature by feature", least=0.0, most=1.0)
    limits: list[float] = key(doc="of the index, for each feature", least=0.0)


@dataclass(frozen=True)
class Health:
    """How a device judges its model: by the errors of its past predictions, and by its inputs."""

    false_alarms_per_month: float = key(doc="of each stream, by the simulation", least=0.0)
    months: float = key(doc="length of the data that the limits come from, over all streams", least=0.0)
    errors: ErrorLimits | None = key(None, doc="none: the truth never arrives on the device")
    inputs: InputLimits | None = key(None, doc="none: there is no plain feature")

    def mismatches(self, outputs: int, features: int) -> Iterator[tuple[str, str]]:
        """Where it does not go with a contract of so many targets * horizons and plain features."""
        if self.errors is not None:
            yield from _wrong("errors.scales", self.errors.scales, outputs)
            if (reference := self.errors.reference) is not None:
                wanted = outputs * (reference.lags * features + 1)
                yield from _wrong("errors.reference.weights", reference.weights, min(wanted, _MOST_WEIGHTS))
        if self.inputs is not None:
            yield from _wrong("inputs.edges", self.inputs.edges, features * (BINS - 1))
            yield from _wrong("inputs.shares", self.inputs.shares, features * BINS)
            yield from _wrong("inputs.limits", self.inputs.limits, features)


def reference_fits(outputs: int, features: int, lags: int) -> bool:
    """Whether the weights of a reference with so many lags may be in a bundle."""
    return outputs * (lags * features + 1) <= _MOST_WEIGHTS


def _wrong(name: str, found: list[float], wanted: int) -> Iterator[tuple[str, str]]:
    if len(found) != wanted:
        yield name, f"expected {wanted} numbers, found {len(found)}"
