"""Samples in the order of their steps, and the feature vectors that a device derives from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Integers
from edge_lstm.streaming.features import Features, record_fields

_STEPS_AT_ONCE = 65_536  # so that memory does not grow with the recording


@dataclass(frozen=True, eq=False)
class Samples:
    """What a device has of each step before it derives inputs: of one stream after another, each in order of time."""

    times: Doubles  # (steps,): seconds since 1970
    since: Doubles  # (steps,): seconds since the step before, NaN at a stream's first one
    values: Floats  # (steps, features): missing ones held, or the mean; of a counter its increase
    missing: Flags  # (steps, features)
    restart: Flags  # (steps,): the state is reset before this step; True at the first one

    def __len__(self) -> int:
        return len(self.times)

    def at(self, steps: Integers) -> Samples:
        """These steps. Where one does not follow the one before it, the state is reset."""
        restart = self.restart[steps] | (np.diff(steps, prepend=-2) != 1)
        return Samples(self.times[steps], self.since[steps], self.values[steps], self.missing[steps], restart)


def feature_vectors(
    contract: Contract, samples: Samples, advance: Callable[[int], object] = lambda steps: None
) -> tuple[Floats, Floats]:
    """Conditioned values (steps, features) and feature vectors (steps, inputs), as a device makes them.

    `advance` is called with numbers of steps that are done.
    """
    made = Features(contract)
    values = made.conditioned(samples.values)
    fields = [("warm_steps", "i8"), *record_fields(contract)]
    vectors = np.zeros((len(values), len(contract.inputs)), np.float32)
    if not any(feature.derived for feature in contract.features):  # no averages: many steps at once
        aged = [column for column, feature in enumerate(contract.features) if feature.age]
        measured_at = _measured_before(samples, aged) if aged else None
        for begin in range(0, len(values), _STEPS_AT_ONCE):
            at = slice(begin, begin + _STEPS_AT_ONCE)
            found = (samples.times[at], samples.since[at], values[at], samples.missing[at])
            current = np.zeros(len(found[0]), fields)
            current["warm_steps"] = ~samples.restart[at]
            if measured_at is not None:
                current["measured_at"] = measured_at[at]
            vectors[at] = made.vectors(current, np.arange(len(current)), *found)
            advance(len(current))
        return values, vectors
    runs = np.flatnonzero(samples.restart)  # the first step of each run between restarts; they are computed together
    lengths = np.diff(runs, append=len(values))
    runs, lengths = runs[np.argsort(-lengths)], np.sort(lengths)[::-1]
    current = np.zeros(len(runs), fields)
    for step in range(int(lengths[0])):
        slots = np.arange(int(np.searchsorted(-lengths, -step)))
        at = runs[slots] + step
        found = (samples.times[at], samples.since[at], values[at], samples.missing[at])
        vectors[at] = made.vectors(current, slots, *found)
        current["warm_steps"][slots] += 1
        advance(len(slots))
    return values, vectors


def _measured_before(samples: Samples, columns: list[int]) -> Doubles:
    """(steps, columns): when each of these features was last measured before the step, or its run began."""
    steps = np.arange(len(samples))
    found = np.empty((len(steps), len(columns)))
    for place, column in enumerate(columns):
        last = np.maximum.accumulate(np.where(samples.missing[:, column] & ~samples.restart, 0, steps))
        found[1:, place], found[:1, place] = samples.times[last[:-1]], 0.0  # nothing reads it at a run's first step
    return found
