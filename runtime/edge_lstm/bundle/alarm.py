"""The alarm rule of an anomaly detector, and what its residuals are like in normal operation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_lstm.foundation.arrays import Doubles
from edge_lstm.foundation.config import key

MOST_RESIDUAL_TARGETS = 64  # a covariance of more targets would fill the manifest
_FEWEST_DEVICES = 3  # with fewer, nothing is known about how much devices differ
_NEWER = ("hold_steps", "ceiling", "trim", "residuals")  # keys that release 0.1.0 does not know
_MOST = 1e30  # its square is finite
_SLACK = 1e-6  # below 0, relative to the largest eigenvalue of a covariance: rounding


@dataclass(frozen=True)
class Residuals:
    """What the residuals of the training recordings are like: a prior for a stream that has few steps of its own.

    All are in standard deviations of each target's feature. Covariances are pooled over the streams, each around its
    own mean, and written row by row. The logarithm of a stream's standard deviations, and that of its usual distance,
    differ between streams by the spreads here (0 with one stream).
    """

    streams: int = key(doc="streams with a calibration of their own", least=1, most=10**9)
    steps: int = key(doc="their steps", least=1, most=10**12)
    raw: list[float] = key(doc="pooled covariance of the residuals (targets, targets)", least=-_MOST, most=_MOST)
    averaged: list[float] = key(
        doc="the same of the averaged residuals, which the score is computed from", least=-_MOST, most=_MOST
    )
    spread: list[float] = key(
        doc="standard deviation between streams of log(deviation), by target, averaged", least=0, most=1e6
    )
    shift: list[float] = key(
        doc="standard deviation between streams of their mean, by target, averaged", least=0, most=_MOST
    )
    usual: float = key(doc="median over the streams of the quantile of the distance", least=0, most=_MOST)
    usual_spread: float = key(doc="standard deviation between streams of its logarithm", least=0, most=1e6)

    def faults(self) -> Iterator[tuple[str, str]]:
        size = len(self.spread)
        if not 1 <= size <= MOST_RESIDUAL_TARGETS or len(self.shift) != size:
            yield "spread", f"expected 1 to {MOST_RESIDUAL_TARGETS} numbers, as many as in shift, found {size}"
            return
        for name in ("raw", "averaged"):
            numbers = getattr(self, name)
            if len(numbers) != size**2:
                yield name, f"expected {size**2} numbers, found {len(numbers)}"
                continue
            matrix = self.covariance(name)
            if not np.allclose(matrix, matrix.T):
                yield name, "expected a covariance, found a matrix that is not symmetric"
                continue
            least, most = np.linalg.eigvalsh(matrix)[[0, -1]]
            if least < -_SLACK * max(1e-300, most) or most <= 0:
                yield name, f"expected a covariance, found an eigenvalue of {least if least < 0 else most:g}"

    def covariance(self, name: str) -> Doubles:
        """`raw` or `averaged` as a matrix (targets, targets)."""
        size = math.isqrt(len(getattr(self, name)))
        return np.array(getattr(self, name), np.float64).reshape(size, size)


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
    hold_steps: int = key(
        0,
        least=0,
        most=1_000_000,
        doc="an alarm ends after more than so many steps in a row at or below `release`: shorter gaps are bridged",
    )
    ceiling: float | None = key(
        None,
        least=1.0,
        doc="after each step, the average is pulled back to this score at most, so that an alarm ends soon after its "
        "event; none: it is not pulled back",
    )
    trim: float | None = key(
        None,
        least=2.0,
        doc="steps of the calibration whose distance is more than this many times the median are left out of it; "
        "none: no step",
    )
    residuals: Residuals | None = key(None, doc="what residuals are like in normal operation, over all streams")

    @property
    def prior(self) -> Residuals | None:
        """What judges a new stream until its calibration ends; None where too few devices are known."""
        known = self.residuals
        return None if known is None or known.streams < _FEWEST_DEVICES else known

    @property
    def prior_steps(self) -> float:
        """How many steps of its own the prior of a stream weighs: the more alike devices are, the more.

        The logarithm of a deviation of n averages has the variance span / (4 n), since averages within a span are
        alike. That of the prior is the variance of this logarithm between devices: `spread`, without what their own few
        steps add to it. Equal variances have equal weights. It is at least a span, and at most `calibrate_steps`.
        """
        if self.prior is None:
            return 0.0
        noise = self.span_steps * self.prior.streams / (4 * self.prior.steps)
        variance = max(1e-9, float(np.mean(np.square(self.prior.spread))) - noise)
        least = float(self.span_steps)
        return min(max(least, float(self.calibrate_steps)), max(least, self.span_steps / (4 * variance)))

    @property
    def is_newer(self) -> bool:
        """Whether it has keys that release 0.1.0 does not know."""
        return bool(self.hold_steps or self.ceiling or self.trim or self.residuals)


def without_newer_keys(facts: dict[str, Any]) -> dict[str, Any]:
    """The keys of an alarm without those that are not set: bundles that do not use them stay what they were."""
    return {name: value for name, value in facts.items() if name not in _NEWER or value}
