"""What came of stepping many streams, as columns; as predictions, one a row, for whoever asks for those."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_lstm.decisions.decider import Decisions, together
from edge_lstm.foundation.arrays import Doubles, Floats, Integers
from edge_lstm.foundation.numbers import shortest_digits
from edge_lstm.streaming.reading import Prediction

Outputs = Sequence[tuple[str, Sequence[int]]]

_new = tuple.__new__  # half of what a named tuple's own takes


class Steps(NamedTuple):
    """Streams that stepped once each, or several such rounds; arrays over them."""

    outputs: Outputs  # (name, horizons) of what is published, in the order of the columns of `values`
    order: Sequence[int]  # which of the readings fed they answer
    streams: Sequence[str]
    times: Doubles  # (n,)
    steps: Integers  # (n,)
    warm_steps: Integers  # (n,)
    revisions: NDArray[np.uint16]  # (n,)
    decided: Decisions

    @property
    def values(self) -> Floats:
        """(n, outputs): what is published."""
        return self.decided.values

    def at(self, places: Sequence[int]) -> Steps:
        """Those at these places, in this order."""
        chosen = np.array(places, np.intp)
        return Steps(
            self.outputs,
            [self.order[place] for place in places],
            [self.streams[place] for place in places],
            self.times[chosen],
            self.steps[chosen],
            self.warm_steps[chosen],
            self.revisions[chosen],
            self.decided.at(places),
        )

    def predictions(self) -> list[Prediction]:
        """One a row."""
        begins, begin = [], 0
        for name, horizons in self.outputs:
            begins.append((name, horizons, slice(begin, begin + len(horizons))))
            begin += len(horizons)
        decided, count = self.decided, len(self.order)
        columns = (self.times, self.steps, self.warm_steps, self.revisions, decided.turned)
        scores = [None] * count if decided.scores is None else decided.scores.tolist()
        alarms = [None] * count if decided.alarms is None else decided.alarms.tolist()
        texts = (self.streams, decided.labels, scores, alarms)
        found = []
        rows = zip(*texts, *(column.tolist() for column in columns), shortest_digits(self.values), strict=True)
        for stream, label, score, alarm, time, step, warm_steps, revision, turned, row in rows:
            values = {name: dict(zip(horizons, row[at], strict=True)) for name, horizons, at in begins}
            facts = (stream, time, step, warm_steps, values, revision, label, score, turned, alarm)
            found.append(_new(Prediction, facts))
        return found


def in_order(rounds: Sequence[Steps]) -> Steps:
    """Rounds, at least one, as one, in the order of the readings that they answer; those of a reading in theirs."""
    steps = rounds[0] if len(rounds) == 1 else _joined(rounds)
    ascending = list(range(len(steps.order)))
    places = sorted(ascending, key=steps.order.__getitem__)  # stable
    return steps if places == ascending else steps.at(places)


def _joined(rounds: Sequence[Steps]) -> Steps:
    """Round after round as one; to look at many at once takes a fraction of the time."""
    outputs, order, streams, times, steps, warm_steps, revisions, decided = zip(*rounds, strict=True)
    return Steps(
        outputs[0],
        list(chain.from_iterable(order)),
        list(chain.from_iterable(streams)),
        np.concatenate(times),
        np.concatenate(steps),
        np.concatenate(warm_steps),
        np.concatenate(revisions),
        together(decided),
    )
