"""Dead sensors: blocks in which a feature is missing, so that a model learns to go on without it and is judged so."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Flags, Floats, Integers
from edge_lstm.streaming.features import cosine_columns
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.feature_vectors import Samples, feature_vectors

_SHORTEST, _LONGEST = 5, 500  # steps of a block; lengths are spread evenly over their logarithm
_JUDGED_SEED = 1  # one for all candidates and trainings, so that all are judged by the same failures
_MEAN_LENGTH = (_LONGEST - _SHORTEST) / math.log(_LONGEST / _SHORTEST)


def mortal(contract: Contract) -> dict[str, list[int]]:
    """What may fail, with its columns: a feature with a mask that is no target, or a forecast with all its steps."""
    forecast_of = {name: f"forecast of {one.name}" for one in contract.known_ahead for name in one.features}
    found: dict[str, list[int]] = {}
    for column, feature in enumerate(contract.features):
        if feature.mask and feature.name not in contract.targets:
            found.setdefault(forecast_of.get(feature.name, feature.name), []).append(column)
    return found


class SensorDropout:
    """Makes the sensors of a run dead for a share of its time, each independently of the others.

    A dead sensor gives what a device has then: the last value (the mean, where there is none), a mask of 1, and an age
    that grows. Derived inputs are not changed here.
    """

    def __init__(self, contract: Contract, share: float) -> None:
        """share: of the time, for each of `mortal`."""
        self._share = share
        self._interval_s = contract.sampling.interval_s or 1.0
        self._sensors = [[_inputs_of(contract, column) for column in columns] for columns in mortal(contract).values()]

    def __bool__(self) -> bool:
        return self._share > 0 and bool(self._sensors)

    def __call__(self, run: Floats, random: np.random.Generator) -> None:
        """Change the values, masks and ages of one run (steps, inputs) in place."""
        if not self:
            return
        for sensor in self._sensors:
            dead = dead_steps(len(run), self._share, random)
            begins = np.flatnonzero(np.diff(dead, prepend=False) & dead)
            ends = np.flatnonzero(np.diff(dead, append=False) & dead) + 1
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
                for one in sensor:
                    self._die(run, one, begin, end)

    def _die(self, run: Floats, one: _Inputs, begin: int, end: int) -> None:
        run[begin:end, one.columns] = run[begin - 1, one.columns] if begin else one.start
        run[begin:end, one.mask] = 1
        if one.age is not None:
            before_s = math.expm1(run[begin - 1, one.age]) if begin else -self._interval_s
            run[begin:end, one.age] = np.log1p(before_s + self._interval_s * np.arange(1, end - begin + 1))


class _Inputs(NamedTuple):
    """Where the feature vector has one feature, and its values before the first measurement."""

    columns: list[int]
    mask: int
    age: int | None
    start: list[float]


def _inputs_of(contract: Contract, column: int) -> _Inputs:
    feature, inputs = contract.features[column], contract.inputs
    mask = inputs.index(f"{feature.name} missing")
    age = inputs.index(f"{feature.name} age") if feature.age else None
    if feature.period is None:
        return _Inputs([column], mask, age, [feature.mean])
    angle = 2 * math.pi * feature.mean / feature.period
    return _Inputs([column, cosine_columns(contract)[column]], mask, age, [math.sin(angle), math.cos(angle)])


def dead_steps(steps: int, share: float, random: np.random.Generator) -> Flags:
    """(steps,): where a sensor is dead: `share` of the steps on average, in blocks."""
    dead = np.zeros(steps, np.bool_)
    alive_steps = _MEAN_LENGTH * (1 - share) / share  # mean length of the time between two blocks
    at = 0 if random.random() < share else int(random.exponential(alive_steps))
    while at < steps:
        length = round(_SHORTEST * (_LONGEST / _SHORTEST) ** random.random())
        dead[at : at + length] = True
        at += length + max(1, int(random.exponential(alive_steps)))
    return dead


def with_failures(dataset: Dataset, share: float) -> Dataset:
    """The dataset whose sensors fail in the validation part as they do in training; the same failures in each call.

    Without them, a model that is only good while all sensors live would win there. Inputs are what a device has then;
    targets stay. share: of the time, 0 changes nothing.
    """
    if not share:
        return dataset
    random, samples = np.random.default_rng(_JUDGED_SEED), dataset.samples
    for columns in mortal(dataset.contract).values():
        for own in dataset.by_stream(dataset.steps("validation")).values():
            samples = without_sensor(dataset, samples, columns, own[dead_steps(len(own), share, random)])
    values, features = feature_vectors(dataset.contract, samples)
    return dataclasses.replace(dataset, samples=samples, values=values, features=features)


def without_sensor(dataset: Dataset, samples: Samples, columns: Sequence[int], dead: Integers) -> Samples:
    """The samples with these features missing at the steps `dead`: their last value is held, or the mean."""
    values, missing = samples.values.copy(), samples.missing.copy()
    begins = np.diff(dataset.stream_of, prepend=-1) != 0
    for column in columns:
        missing[dead, column] = True
        values[begins & missing[:, column], column] = dataset.contract.features[column].mean
        before, now = (_last_measured(begins, found[:, column]) for found in (samples.missing, missing))
        later = np.flatnonzero(before != now)
        values[later, column] = values[now[later], column]
    return dataclasses.replace(samples, values=values, missing=missing)


def _last_measured(begins: Flags, missing: Flags) -> Integers:
    """(steps,): the newest step so far at which the value was measured, or the stream's first."""
    found: Integers = np.maximum.accumulate(np.where(~missing | begins, np.arange(len(missing)), 0))
    return found
