"""The numbers that a forecast or an estimate publishes: quantiles in order, and an interval about each prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.intervals import HOURS
from edge_lstm.decisions.angles import wrapped
from edge_lstm.foundation.arrays import Doubles, Flags, Floats

_HOUR_S = 3600.0


def in_order(contract: Contract, outputs: NDArray[Any]) -> NDArray[Any]:
    """The published outputs (n, outputs) with the quantiles of each target ascending, of the same type.

    Sorted quantiles are never further from the truth than unsorted ones (Chernozhukov et al. 2010).
    """
    if len(contract.quantiles) < 2:
        return outputs
    ordered = outputs.reshape(len(outputs), len(contract.targets), -1, len(contract.horizons)).copy()
    places = 1 + np.argsort(contract.quantiles, kind="stable")  # of the levels, ascending; 0 is the expected value
    ordered[:, :, places] = np.sort(ordered[:, :, 1:], axis=2)
    return ordered.reshape(outputs.shape)


class Bands:
    """The intervals of a contract: lower and upper bound for each target and horizon."""

    def __init__(self, contract: Contract) -> None:
        intervals = contract.intervals
        assert intervals is not None  # the caller checks it
        self._targets, self._horizons = len(contract.targets), len(contract.horizons)
        self._widths = np.array(intervals.widths)
        self._by_hour = np.array(intervals.by_hour).reshape(-1, HOURS).T  # (hours, targets * horizons), or (hours, 0)
        self._has_quantiles = bool(contract.quantiles)
        features = [feature.name for feature in contract.features]
        measured = [(place, name) for place, name in enumerate(contract.targets) if name in features]
        self._measured = [(place, features.index(name)) for place, name in measured]
        periods = [contract.circles.get(name) for name in contract.targets for _ in contract.horizons]
        self._circles = [(output, period) for output, period in enumerate(periods) if period is not None]

    def __call__(self, outputs: Floats, times: Doubles, dead: Flags | None = None) -> Floats:
        """(n, targets * horizons, 2): the bounds for published outputs (n, outputs), their quantiles in order.

        times (n,): of the steps, in seconds since 1970. dead (n, features): sensors; a dead target has the bounds NaN.
        """
        widths = self.without_dead(self._widths * self.factors(times), dead)
        return self.widened(*self.inner(outputs), widths)

    def inner(self, outputs: Floats) -> tuple[Doubles, Doubles]:
        """What a width is added to, (n, targets * horizons) each: the outer quantiles, or twice the prediction."""
        by_name = outputs.astype(np.float64).reshape(len(outputs), self._targets, -1, self._horizons)
        low, high = (by_name[:, :, 0], by_name[:, :, 0])
        if self._has_quantiles:
            low, high = by_name[:, :, 1:].min(axis=2), by_name[:, :, 1:].max(axis=2)
        return low.reshape(len(outputs), -1), high.reshape(len(outputs), -1)

    def factors(self, times: Doubles) -> Doubles:
        """(n, targets * horizons): of the widths at the hours of these times (n,)."""
        if not self._by_hour.size:
            return np.ones((len(times), len(self._widths)))
        factors: Doubles = self._by_hour[hours(times)]
        return factors

    def without_dead(self, widths: Doubles, dead: Flags | None) -> Doubles:
        """The widths (n, targets * horizons), NaN for targets whose sensor is dead. dead: (n, features)."""
        if dead is not None:
            by_target = widths.reshape(len(widths), self._targets, self._horizons)
            for place, column in self._measured:
                by_target[dead[:, column], place] = np.nan
        return widths

    def widened(self, low: Doubles, high: Doubles, widths: Doubles) -> Floats:
        """(n, targets * horizons, 2): the bounds by `inner` and the widths, (n, targets * horizons) each."""
        low, high = low - widths, high + widths
        crossed = low > high  # quantiles that were too far apart, and now are less than nothing
        if crossed.any():
            middle = (low + high) / 2
            low, high = np.where(crossed, middle, low), np.where(crossed, middle, high)
        bounds = np.empty((*low.shape, 2), np.float32)
        bounds[:, :, 0], bounds[:, :, 1] = low, high
        for output, period in self._circles:
            bounds[:, output] = wrapped(bounds[:, output], period)
            bounds[widths[:, output] >= period / 2, output] = (0.0, period)  # the whole circle
        return bounds


def hours(times: Doubles) -> NDArray[np.intp]:
    """(n,): the hour of the day (UTC) of times in seconds since 1970."""
    found: NDArray[np.intp] = (np.floor(np.nan_to_num(times) / _HOUR_S) % HOURS).astype(np.intp)
    return found
