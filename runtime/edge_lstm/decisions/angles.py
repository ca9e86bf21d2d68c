"""Positions on a circle, such as angles: their sine and cosine, the way back, and the distance between two."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Doubles, Floats


def wrapped(values: NDArray[Any], period: float) -> Floats:
    """The positions as 0 <= position < period. NaN stays NaN."""
    found = np.mod(values, period, dtype=np.float64).astype(np.float32)
    return np.where(found >= np.float32(period), np.float32(0), found)  # what float32 rounds up to a whole turn


def sine_and_cosine(values: NDArray[Any], period: float) -> tuple[Doubles, Doubles]:
    """Of positions from 0 to `period`."""
    angle = 2 * np.pi * (np.asarray(values, np.float64) / period)  # one turn at most, as for the clock inputs
    return np.sin(angle), np.cos(angle)


def position(sine: NDArray[Any], cosine: NDArray[Any], period: float) -> Doubles:
    """The position, 0 <= position < period, of a direction of any length. Only that of (0, 0) has no meaning: 0."""
    turns = np.arctan2(np.asarray(sine, np.float64), np.asarray(cosine, np.float64)) / (2 * np.pi)
    found: Doubles = np.where(turns < 0, turns + 1, turns) * period
    return np.where(found >= period, 0.0, found)


def difference(values: NDArray[Any], origin: NDArray[Any] | float, period: NDArray[Any] | float) -> Doubles:
    """values - origin the shorter way around the circle, from -period / 2 to period / 2."""
    half = period / 2
    found: Doubles = np.mod(np.asarray(values, np.float64) - origin + half, period) - half
    return found


class PublishedOutputs:
    """Turns the network's outputs into those that are published: sine and cosine of a circle into one position."""

    def __init__(self, contract: Contract) -> None:
        circles, count = contract.circles, len(contract.horizons)
        self._periods: list[tuple[int, float]] = []  # published outputs on a circle
        self._first: list[int] = []  # by published output: its component, or its sine; the cosines follow the sines
        self._count = count
        at = 0
        for name in contract.output_names:
            period = circles.get(name)
            for _ in contract.horizons:
                if period is not None:
                    self._periods.append((len(self._first), period))
                self._first.append(at)
                at += 1
            at += count if period is not None else 0

    def __bool__(self) -> bool:
        return bool(self._periods)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Of each published output on a circle, the components with its sine and its cosine."""
        return [(self._first[output], self._first[output] + self._count) for output, _ in self._periods]

    def periods(self) -> Doubles:
        """(outputs,): the period of each published output, NaN where it is on no circle."""
        found = np.full(len(self._first), np.nan)
        for output, period in self._periods:
            found[output] = period
        return found

    def __call__(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """(n, network outputs) -> (n, outputs), of the same type."""
        if not self._periods:
            return outputs
        published = outputs[:, self._first]
        for (output, period), (sine, cosine) in zip(self._periods, self.pairs, strict=True):
            found = position(outputs[:, sine], outputs[:, cosine], period)
            found[~np.isfinite(outputs[:, sine] + outputs[:, cosine])] = np.nan
            published[:, output] = wrapped(found, period) if outputs.dtype == np.float32 else found
        return published
