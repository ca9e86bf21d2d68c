"""Samples to feature vectors: values, masks of missing values, derived inputs, clock inputs. Training uses it too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_lstm.bundle.contract import ClockInput, Contract
from edge_lstm.decisions.angles import position, sine_and_cosine, wrapped
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Records, Slots
from edge_lstm.streaming.derived import Derived

DAY_S = 86_400.0
_FIRST_SUNDAY_S = 3 * DAY_S  # 1970-01-04, so that a week starts on Sunday
YEAR_S = 365.2425 * DAY_S

# Phase of each clock input, in turns.
_PHASES: dict[ClockInput, Callable[[Doubles], Doubles]] = {
    "time_of_day": lambda time: time / DAY_S,
    "day_of_week": lambda time: (time - _FIRST_SUNDAY_S) / (7 * DAY_S),
    "day_of_year": lambda time: time / YEAR_S,
}


class Features:
    """The feature vectors of a contract, for many streams at once."""

    def __init__(self, contract: Contract) -> None:
        features = contract.features
        names = [feature.name for feature in features]
        self._inputs = len(contract.inputs)
        self._masked = [index for index, feature in enumerate(features) if feature.mask]
        self._circles = [(index, one.period) for index, one in enumerate(features) if one.period is not None]
        self._clock = [name for name in contract.clock if name != "elapsed"]
        self._elapsed = "elapsed" in contract.clock
        self._aged = [index for index, feature in enumerate(features) if feature.age]
        self._derived = Derived(contract)
        self._mirrored = [
            (index, names.index(feature.mirrored_by)) for index, feature in enumerate(features) if feature.mirrored_by
        ]
        self._bounds: tuple[Floats, Floats] | None = None
        if contract.clip is not None:
            free = [feature.categories or feature.period is not None for feature in features]
            reach = [
                np.inf if one else contract.clip * feature.scale for one, feature in zip(free, features, strict=True)
            ]
            means = np.array([feature.mean for feature in features])
            self._bounds = (means - reach).astype(np.float32), (means + reach).astype(np.float32)

    def conditioned(self, values: Floats) -> Floats:
        """Values (n, features) for the network: mirrored, within their circle, and limited to the contract's `clip`."""
        if self._mirrored:
            values = values.copy()
            for feature, by in self._mirrored:
                values[:, feature] *= np.where(values[:, by] > 0, np.float32(-1), np.float32(1))
        if self._circles:
            values = values.copy()
            for feature, period in self._circles:
                values[:, feature] = wrapped(values[:, feature], period)
        if self._bounds is not None:
            values = np.clip(values, *self._bounds)
        return values

    def vectors(
        self,
        current: Records,
        slots: Slots,
        times: Doubles,
        since: Doubles,
        values: Floats,
        missing: Flags,
    ) -> Floats:
        """The network's input for one sample of each of the streams `slots` (n,). Updates the averages in `current`.

        times (n,): seconds since 1970; since (n,): seconds since the previous step, NaN at the first one; values
        (n, features): conditioned, missing ones held; missing (n, features). Returns (n, inputs) float32 in raw units,
        in the order of `contract.inputs`.
        """
        vectors = np.empty((len(values), self._inputs), np.float32)
        at = values.shape[1]
        vectors[:, :at] = values
        for column in self._masked:
            vectors[:, at] = missing[:, column]
            at += 1
        for feature, period in self._circles:
            vectors[:, feature], vectors[:, at] = sine_and_cosine(values[:, feature], period)
            at += 1
        if self._derived:
            before = current["before"][slots]
            for columns in self._derived.step(current, slots, values, before):
                vectors[:, at : at + columns.shape[1]] = columns
                at += columns.shape[1]
            current["before"][slots] = values
        for name in self._clock:
            turns = _PHASES[name](times)
            angle = 2 * np.pi * (turns - np.floor(turns))  # below one turn, where every libm gives the same bits
            vectors[:, at], vectors[:, at + 1] = np.sin(angle), np.cos(angle)
            at += 2
        if self._elapsed:
            fresh = current["warm_steps"][slots] == 0
            vectors[:, at] = np.log1p(np.where(fresh, 0.0, np.maximum(since, 0.0)))
            at += 1
        if self._aged:
            vectors[:, at:] = np.log1p(self._ages(current, slots, times, missing))
        return vectors

    def _ages(self, current: Records, slots: Slots, times: Doubles, missing: Flags) -> Doubles:
        """(n, features with an age): seconds since each value was measured, or since the restart. Updates `current`."""
        old = missing[:, self._aged] & (current["warm_steps"][slots] > 0)[:, None]
        measured_at: Doubles = np.where(old, current["measured_at"][slots], times[:, None])
        current["measured_at"][slots] = measured_at
        return times[:, None] - measured_at


def values_in(contract: Contract, vectors: Floats) -> Floats:
    """The conditioned values (n, features) in feature vectors (n, inputs): on a circle, the position."""
    values = vectors[:, : len(contract.features)].copy()
    for column, cosine in cosine_columns(contract).items():
        period = contract.features[column].period
        assert period is not None  # cosine_columns has the features on a circle
        values[:, column] = wrapped(position(vectors[:, column], vectors[:, cosine], period), period)
    return values


def cosine_columns(contract: Contract) -> dict[int, int]:
    """Of each feature on a circle, the column of its sine and that of its cosine in the feature vector."""
    first = len(contract.features) + sum(feature.mask for feature in contract.features)
    circles = [index for index, feature in enumerate(contract.features) if feature.period is not None]
    return {column: first + place for place, column in enumerate(circles)}


def record_fields(contract: Contract) -> list[tuple[str, str, tuple[int, ...]]]:
    """The fields (name, type, shape) of a stream's record for its derived inputs."""
    derived = Derived(contract)
    aged = sum(feature.age for feature in contract.features)
    ages: list[tuple[str, str, tuple[int, ...]]] = [("measured_at", "f8", (aged,))] if aged else []
    if not derived:
        return ages
    averages = (derived.averages,)
    pairs = [("covariance", "f8", (derived.pairs,))] if derived.pairs else []
    return [
        ("before", "f4", (len(contract.features),)),
        ("average", "f8", averages),
        ("variance", "f8", averages),
        *pairs,
        *ages,
    ]
