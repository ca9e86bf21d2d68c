"""The decisions of steps as arrays: what is published beside, or instead of, the network's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_lstm.decisions.alarms.drivers import Drivers
from edge_lstm.decisions.alarms.events import Events
from edge_lstm.decisions.health import Verdicts
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Slots


class Decisions(NamedTuple):
    """The decisions of n steps. Every field is an array or a list of n, a named tuple of these, or None."""

    values: Floats  # (n, outputs): the published values; of a classifier, probabilities
    labels: list[str | None]  # None: the task has no labels
    scores: Doubles | None  # (n,): an alarm begins above 1; NaN: not scored yet
    alarms: Flags | None  # (n,)
    turned: Flags  # (n,): whether label, alarm or dead sensors differ from the previous step
    bands: Floats | None = None  # (n, targets * horizons, 2): lower and upper bound of each prediction
    drivers: Drivers | None = None  # which sensors drove the score
    events: Events | None = None  # the alarm that lasts, or has just ended
    health: Verdicts | None = None  # on the model of each stream
    degraded: list[tuple[str, ...]] | None = None  # of each step, what it went without; None: nothing is ever named
    confidence: Doubles | None = None  # (n,): weight of the stream's own steps in its score; NaN: all, or no score
    faults: NDArray[np.uint8] | None = None  # (n, features): of the sensors, as `sensors.FAULTS`

    def at(self, places: Sequence[int]) -> Decisions:
        """The decisions at these indexes, in this order."""
        return Decisions(*_taken(tuple(self), places, np.array(places, np.intp)))


def concatenated(rounds: Sequence[Decisions]) -> Decisions:
    """The decisions of several rounds, one round after another."""
    return Decisions(*_joined([tuple(one) for one in rounds]))


def _taken(part: Any, places: Sequence[int], chosen: Slots) -> Any:
    if isinstance(part, tuple):
        return _like(part, [_taken(one, places, chosen) for one in part])
    if isinstance(part, list):
        return [part[place] for place in places]
    return None if part is None else part[chosen]


def _joined(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if isinstance(first, tuple):
        return _like(first, [_joined(column) for column in zip(*parts, strict=True)])
    if isinstance(first, list):
        return list(chain.from_iterable(parts))
    return None if first is None else np.concatenate(parts)


def _like(former: tuple[Any, ...], values: Sequence[Any]) -> tuple[Any, ...]:
    """A tuple of the same type."""
    return former._make(values) if hasattr(former, "_make") else tuple(values)
