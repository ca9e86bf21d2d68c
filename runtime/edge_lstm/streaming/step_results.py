"""The results of steps of many streams, as columns or as one `Prediction` a step."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_lstm.decisions.decisions import Decisions, concatenated
from edge_lstm.foundation.arrays import Doubles, Floats, Integers
from edge_lstm.foundation.numbers import shortest_digits
from edge_lstm.foundation.times.text import format_time
from edge_lstm.streaming.reading import Driver, Event, Prediction

Outputs = Sequence[tuple[str, Sequence[int]]]

_new = tuple.__new__  # half of what a named tuple's own takes


class Steps(NamedTuple):
    """The results of one or more rounds, as arrays over the steps. (n: number of steps)"""

    outputs: Outputs  # (name, horizons) in the order of the columns of `values`
    order: Sequence[int]  # index of the reading that caused the step
    streams: Sequence[str]
    times: Doubles  # (n,)
    steps: Integers  # (n,)
    warm_steps: Integers  # (n,)
    revisions: NDArray[np.uint64]  # (n,)
    decisions: Decisions

    @property
    def values(self) -> Floats:
        """(n, outputs): the published values."""
        return self.decisions.values

    def at(self, places: Sequence[int]) -> Steps:
        """The steps at these indexes, in this order."""
        chosen = np.array(places, np.intp)
        return Steps(
            self.outputs,
            [self.order[place] for place in places],
            [self.streams[place] for place in places],
            self.times[chosen],
            self.steps[chosen],
            self.warm_steps[chosen],
            self.revisions[chosen],
            self.decisions.at(places),
        )

    def predictions(self) -> list[Prediction]:
        """One prediction a step."""
        begins, begin = [], 0
        for name, horizons in self.outputs:
            begins.append((name, horizons, slice(begin, begin + len(horizons))))
            begin += len(horizons)
        decisions, count = self.decisions, len(self.order)
        columns = (self.times, self.steps, self.warm_steps, self.revisions, decisions.turned)
        scores = [None] * count if decisions.scores is None else decisions.scores.tolist()
        alarms = [None] * count if decisions.alarms is None else decisions.alarms.tolist()
        texts = (self.streams, decisions.labels, scores, alarms)
        found = []
        rows = zip(*texts, *(column.tolist() for column in columns), shortest_digits(self.values), strict=True)
        bands = [None] * count if decisions.bands is None else self._bands(decisions.bands)
        degraded: Sequence[tuple[str, ...]] = [()] * count if decisions.degraded is None else decisions.degraded
        told = (bands, self.drivers(), self.events(), degraded)
        for of_step, *last in zip(rows, *told, strict=True):
            stream, label, score, alarm, time, step, warm_steps, revision, turned, row = of_step
            values = {name: dict(zip(horizons, row[at], strict=True)) for name, horizons, at in begins}
            facts = (stream, time, step, warm_steps, values, revision, label, score, turned, alarm, *last)
            found.append(_new(Prediction, facts))
        return found

    def drivers(self) -> list[list[Driver] | None]:
        """Of each step: the sensors that drove its score; None where none are named."""
        named: list[list[Driver] | None] = [None] * len(self.order)
        found = self.decisions.drivers
        if found is None or not (places := np.flatnonzero(~np.isnan(found.share[:, 0]))).size:
            return named
        names = [name for name, _ in self.outputs]
        sensors = found.sensors[places].tolist()
        numbers = (shortest_digits(part[places]) for part in (found.share, found.measured, found.expected))
        for place, *row in zip(places.tolist(), sensors, *numbers, strict=True):
            named[place] = [Driver(names[sensor], *facts) for sensor, *facts in zip(*row, strict=True)]
        return named

    def events(self) -> list[Event | None]:
        """Of each step: the alarm event that lasts, or has just ended."""
        found: list[Event | None] = [None] * len(self.order)
        events = self.decisions.events
        if events is None:
            return found
        places = np.flatnonzero(~np.isnan(events.since))
        columns = (events.since, events.peak, events.ended, self.times)
        for place, since, peak, ended, time in zip(
            places.tolist(), *(one[places].tolist() for one in columns), strict=True
        ):
            found[place] = Event(event_id(self.streams[place], since), since, peak, time if ended else None)
        return found

    def _bands(self, bands: Floats) -> Iterator[dict[str, dict[int, tuple[float, float]]]]:
        """Of each step: the bounds by target and horizon."""
        targets = self.banded
        for row in shortest_digits(bands.reshape(len(bands), -1)):
            pairs = iter(zip(row[::2], row[1::2], strict=True))
            yield {name: {horizon: next(pairs) for horizon in horizons} for name, horizons in targets}

    @property
    def banded(self) -> list[tuple[str, Sequence[int]]]:
        """The outputs that have bands, with their horizons: the targets without their quantiles."""
        if self.decisions.bands is None:
            return []
        bands = self.decisions.bands.shape[1]
        names = len(self.outputs) * len(self.outputs[0][1]) // bands  # of a target: itself and its quantiles
        return list(self.outputs[::names])


@functools.lru_cache(4096)  # for every step of an event again
def event_id(stream: str, since: float) -> str:
    """The id of the alarm event of a stream that began at this time, in seconds since 1970."""
    return f"{stream}@{format_time(since)}"


def in_reading_order(rounds: Sequence[Steps]) -> Steps:
    """One or more rounds as one, in the order of their readings. Steps of the same reading keep their order."""
    steps = rounds[0] if len(rounds) == 1 else _concatenated(rounds)
    ascending = list(range(len(steps.order)))
    places = sorted(ascending, key=steps.order.__getitem__)  # stable
    return steps if places == ascending else steps.at(places)


def _concatenated(rounds: Sequence[Steps]) -> Steps:
    """The rounds one after another."""
    outputs, order, streams, times, steps, warm_steps, revisions, decisions = zip(*rounds, strict=True)
    return Steps(
        outputs[0],
        list(chain.from_iterable(order)),
        list(chain.from_iterable(streams)),
        np.concatenate(times),
        np.concatenate(steps),
        np.concatenate(warm_steps),
        np.concatenate(revisions),
        concatenated(decisions),
    )
