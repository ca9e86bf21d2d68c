"""Faults of one sensor, injected into the samples of a recording: it sticks, goes missing, or leaves its range."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction, Reading
from edge_lstm_train.data.dataset import Dataset

Kind = Literal["stuck", "jitter", "zero", "gone"]
JITTER = 0.02  # of the deviation of the stream's own training part
_READINGS_A_BATCH = 64


@dataclass(frozen=True)
class Injection:
    """A sensor of a stream that is dead from a step on. `column`: -1 where nothing is injected."""

    stream: str
    begin: int  # the first step that is streamed
    at: int  # the first step with the fault; an index into the dataset as the others
    end: int
    column: int
    kind: Kind = "stuck"

    @property
    def healthy(self) -> Injection:
        """The same steps without a fault."""
        return dataclasses.replace(self, column=-1)


def values_of(dataset: Dataset, one: Injection, random: np.random.Generator) -> Doubles:
    """(steps, features): what the stream's device sends from `begin` to before `end`, NaN where a value is missing."""
    steps = slice(one.begin, one.end)
    values = np.where(dataset.samples.missing[steps], np.nan, dataset.samples.values[steps].astype(np.float64))
    if one.column < 0:
        return values
    dead, count = slice(one.at - one.begin, None), one.end - one.at
    last = float(dataset.samples.values[one.at - 1, one.column])
    jitter = JITTER * own_deviation(dataset, one) * random.standard_normal(count)
    faulty = {"stuck": last, "jitter": last + jitter, "zero": 0.0, "gone": np.nan}[one.kind]
    values[dead, one.column] = np.where(np.isnan(values[dead, one.column]), np.nan, faulty)
    return values


def own_deviation(dataset: Dataset, one: Injection) -> float:
    """The standard deviation of the sensor in its stream's training part, or in that of all streams."""
    trained = dataset.steps("train")
    own = trained[dataset.stream_of[trained] == dataset.stream_of[one.at]]
    values = dataset.samples.values[own if len(own) else trained, one.column]
    return float(values.std()) or dataset.contract.features[one.column].scale


def readings_of(dataset: Dataset, one: Injection, name: str, random: np.random.Generator) -> Iterator[Reading]:
    """The readings of the steps, of a stream of that name."""
    names = [feature.name for feature in dataset.contract.features]
    times = dataset.times[one.begin : one.end].tolist()
    for time, row in zip(times, values_of(dataset, one, random).tolist(), strict=True):
        yield Reading(name, time, dict(zip(names, row, strict=True)))


def streamed(
    make: Callable[[], Predictor], dataset: Dataset, injections: list[Injection], seed: int = 0
) -> list[list[Prediction]]:
    """The predictions of each injection, in the order of its steps: all are streams of one new predictor."""
    random = np.random.default_rng(seed)
    predictor = make()
    waiting = [list(readings_of(dataset, one, str(place), random)) for place, one in enumerate(injections)]
    found: list[list[Prediction]] = [[] for _ in injections]
    for begin in range(0, max(map(len, waiting), default=0), _READINGS_A_BATCH):
        batch = [reading for own in waiting for reading in own[begin : begin + _READINGS_A_BATCH]]
        for prediction in predictor.feed(batch):
            found[int(prediction.stream)].append(prediction)
    return found


def random_injections(
    dataset: Dataset,
    columns: list[int],
    kind: Kind,
    count: int,
    random: np.random.Generator,
    *,
    before: int,
    after: int,
    normal: Integers | None = None,
) -> list[Injection]:
    """Injections at random steps of the test part, each sensor as often as the others.

    `before`: steps that are streamed before the fault, or all from the stream's first one where there are fewer;
    `after`: with it; `normal` (steps,): 1 where a fault may begin and last for `after` steps, None: anywhere.
    """
    tested = dataset.by_stream(dataset.steps("test"))
    allowed = np.ones(len(dataset), np.int64) if normal is None else normal
    total = np.concatenate([[0], np.cumsum(allowed)])
    places = []
    for name, own in tested.items():
        ends = np.minimum(own + after, own[-1] + 1)
        usable = own[(total[ends] - total[own] == ends - own) & (ends - own >= min(after, 60)) & (own > own[0])]
        places += [(name, step, int(own[-1]) + 1) for step in usable.tolist()]
    found = []
    for place in range(count):
        name, at, last = places[int(random.integers(len(places)))]
        first = int(np.flatnonzero(dataset.stream_of == dataset.stream_of[at])[0])
        begin = max(first, at - before)
        found.append(Injection(name, begin, at, min(at + after, last), columns[place % len(columns)], kind))
    return found
