"""Inputs derived from a stream's earlier values: differences, slopes, running means, deviations and covariances.

Each is computed from exponential averages that every step updates. A stream carries a few numbers and no window.
"""

from __future__ import annotations

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.feature import derived_parts
from edge_lstm.foundation.arrays import Doubles, Floats, Records, Slots

_LEAST_SHARE = 0.1  # of the standard deviation in the training part: the least that a stream's own scale counts as


class Derived:
    """The derived inputs of a contract, in its order, for many streams at once.

    A run is the steps of a stream since its last restart. An average of span s moves by 2 / (s + 1) of the way to each
    new value. At the start of a run it is the arithmetic mean of the values so far, until 1 / count is smaller than
    2 / (s + 1). The variance follows Finch (2009), "Incremental calculation of weighted mean and variance".

    `from_start` takes the mean of a run's first values and keeps it: the level at which this device started.
    `standardized` also divides by their standard deviation, or by a tenth of that of the training part if that is
    larger: a device that stood still at first would turn digits into signals. It is instance normalization (Kim et al.
    2022) by the first values alone.

    A covariance is updated as the variances are. The input is its square root with its sign, as a deviation is the
    square root of a variance.

    The fields `average`, `variance` and `covariance` of the stream's record carry all of this.
    """

    def __init__(self, contract: Contract) -> None:
        self._averaged: list[tuple[int, int, bool]] = []  # of each average: feature, span, fixed after the span
        self._pairs: list[tuple[int, int]] = []  # of each covariance: its two averages
        self._columns: list[tuple[str, int, list[int]]] = []  # of each derived input: kind, feature, its averages
        names = [feature.name for feature in contract.features]
        self._categories = [
            (column, len(feature.categories)) for column, feature in enumerate(contract.features) if feature.categories
        ]
        for column, feature in enumerate(contract.features):
            for text in feature.derived:
                kind, other, spans = derived_parts(text)
                kept = kind in ("from_start", "standardized")
                parts = [self._average(column, int(span), kept) for span in spans]
                if other:
                    self._pairs.append((parts[0], self._average(names.index(other), int(spans[0]), kept)))
                    parts = [len(self._pairs) - 1]
                self._columns.append((kind, column, parts))
            if feature.categories:
                self._columns.append(("categories", column, [len(feature.categories)]))
        self._least_scale = [_LEAST_SHARE * feature.scale for feature in contract.features]
        self._sources = np.array([column for column, _, _ in self._averaged], np.int64)
        self._spans = np.array([span for _, span, _ in self._averaged], np.float64)
        self._kept = np.array([kept for _, _, kept in self._averaged], np.bool_)
        self._first, self._second = np.array(self._pairs, np.int64).reshape(-1, 2).T

    def _average(self, column: int, span: int, kept: bool) -> int:
        wanted = (column, span, kept)
        if wanted not in self._averaged:
            self._averaged.append(wanted)
        return self._averaged.index(wanted)

    def __bool__(self) -> bool:
        return bool(self._columns)

    @property
    def averages(self) -> int:
        """How many averages a stream carries, each with its variance."""
        return len(self._averaged)

    @property
    def pairs(self) -> int:
        """How many covariances of two averages a stream carries."""
        return len(self._pairs)

    def step(self, current: Records, slots: Slots, values: Floats, before: Floats) -> list[Floats]:
        """Columns (n, 1) or (n, categories) for the streams `slots` (n,) at a step with `values` (n, features).

        `before` (n, features): the values of the previous step. Updates the averages in `current`.
        """
        first = current["warm_steps"][slots] == 0
        averages, deviations, covariances = self._update(current, slots, values.astype(np.float64))
        columns: list[Floats] = []
        for kind, feature, parts in self._columns:
            value = values[:, feature]
            if kind == "categories":
                columns.append((value[:, None] == np.arange(parts[0])).astype(np.float32))
                continue
            if kind == "difference":
                column = np.where(first, np.float32(0.0), value - before[:, feature])
            elif kind == "mean":
                column = averages[:, parts[0]]
            elif kind == "deviation":
                column = deviations[:, parts[0]]
            elif kind == "covariance":
                column = covariances[:, parts[0]]
            elif kind in ("from_mean", "from_start"):
                column = value - averages[:, parts[0]]
            elif kind == "standardized":
                scale = np.maximum(deviations[:, parts[0]], self._least_scale[feature])
                column = (value - averages[:, parts[0]]) / scale
            else:
                column = averages[:, parts[0]] - averages[:, parts[1]]
            columns.append(column.astype(np.float32)[:, None])
        return columns

    def _update(self, current: Records, slots: Slots, values: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """Update the averages with `values` (n, features).

        Returns averages and standard deviations, (n, averages) each, and signed roots of covariances, (n, pairs).
        """
        if not self._averaged:
            return np.zeros((len(slots), 0)), np.zeros((len(slots), 0)), np.zeros((len(slots), 0))
        earlier = current["warm_steps"][slots].astype(np.float64)[:, None]  # steps of the run before this one
        rate = np.maximum(2.0 / (self._spans + 1.0), 1.0 / (earlier + 1.0))  # 1 at a run's first step
        rate = np.where(self._kept, np.where(earlier < self._spans, 1.0 / (earlier + 1.0), 0.0), rate)
        away = values[:, self._sources] - current["average"][slots]
        away = np.where(rate == 1.0, values[:, self._sources], away)  # a run's first step
        old = np.where(rate == 1.0, 0.0, current["average"][slots])
        variance = np.where(rate == 1.0, 0.0, (1.0 - rate) * (current["variance"][slots] + rate * away**2))
        average = old + rate * away
        current["average"][slots] = average
        current["variance"][slots] = variance
        if not self._pairs:
            return average, np.sqrt(variance), np.zeros((len(slots), 0))
        rate, product = rate[:, self._first], away[:, self._first] * away[:, self._second]
        covariance = np.where(rate == 1.0, 0.0, (1.0 - rate) * (current["covariance"][slots] + rate * product))
        current["covariance"][slots] = covariance
        return average, np.sqrt(variance), np.sign(covariance) * np.sqrt(np.abs(covariance))
