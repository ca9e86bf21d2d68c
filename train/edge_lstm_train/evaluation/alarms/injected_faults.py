"""Faults put on healthy readings of the validation part: how much of them do the alarms of a model miss?

The error of a forecast does not show this: a model that follows a faulty sensor closely has small errors and raises no
alarm. A fault is an offset, a drift that grows to its size, or noise, of several sizes, or a sensor that is stuck; on
one sensor, or on several at once. Sizes are in standard deviations of the sensor about the mean of its stream. A fault
begins at a random step and lasts until the end of the part, but at most six spans.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import product

import numpy as np

from edge_lstm.bundle.contract import Alarm
from edge_lstm.decisions.alarms.anomaly import distance, fit_distance
from edge_lstm.decisions.angles import PublishedOutputs
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Integers
from edge_lstm_train.data.dataset import Dataset, target_columns
from edge_lstm_train.data.feature_vectors import feature_vectors
from edge_lstm_train.data.split import PARTS
from edge_lstm_train.evaluation.alarms.alarm_rule import averaged, find_rule, normal_steps, residuals_of, truth_of
from edge_lstm_train.model.carried_state import predict_streamed
from edge_lstm_train.model.forecaster import Forecaster
from edge_lstm_train.recipe.recipe import Recipe

_SIZES = (0.5, 1.0, 2.0, 4.0, 8.0)
_KINDS = [*product(("offset", "drift", "noise"), _SIZES), ("stuck", 0.0)]
_FAULTS = 160  # at least, over all streams
_MOST_STREAMS = 40
_MOST_STEPS = 400_000  # of all copies of all streams
_LONGEST_SPANS = 6
_FEWEST_STEPS = 60  # of a stream's calibration
_ENOUGH_STREAMS = 8  # to be the blocks that are resampled


@dataclass(frozen=True)
class Fault:
    """A fault on the values of a stream."""

    kind: str  # offset, drift, noise or stuck
    size: float  # in deviations of each sensor
    sensors: tuple[int, ...]  # columns
    begin: int  # steps
    end: int


def put_on(values: Floats, fault: Fault, deviation: Doubles, random: np.random.Generator) -> None:
    """Change the values (steps, features) in place; deviation (features,)."""
    at, steps = slice(fault.begin, fault.end), fault.end - fault.begin
    for column in fault.sensors:
        size = fault.size * deviation[column] * random.choice((-1.0, 1.0))
        if fault.kind == "stuck":
            values[at, column] = values[max(0, fault.begin - 1), column]
        elif fault.kind == "noise":
            values[at, column] += random.normal(0.0, abs(size), steps).astype(np.float32)
        else:
            shape = np.ones(steps) if fault.kind == "offset" else np.linspace(0.0, 1.0, steps)
            values[at, column] += (size * shape).astype(np.float32)


@dataclass(frozen=True, eq=False)
class HealthyStream:
    """The steps of a stream that one of its copies has, and what of them is healthy for sure."""

    steps: Integers
    calibration: Integers
    window: Integers  # where a fault may be


class FaultJudge:
    """Judges models of an anomaly task by the faults that their alarms miss: the same faults for all of them."""

    measure = "share of injected faults that its alarms miss"

    def __init__(self, recipe: Recipe, dataset: Dataset, streams: list[HealthyStream]) -> None:
        assert recipe.anomaly is not None  # the caller checks it
        self._recipe, self._dataset = recipe, dataset
        self._healthy = dataset.with_validation_in_training()
        self._longest = _LONGEST_SPANS * recipe.anomaly.alarm(recipe.interval_s).span_steps
        several = [False, True] if len(dataset.contract.targets) > 2 else [False]
        self._scenarios = list(product(_KINDS, several))
        most = max(1, _MOST_STEPS // (3 * self._longest * len(streams) * len(self._scenarios)))
        begins = min(-(-_FAULTS // (len(streams) * len(self._scenarios))), most)  # of each scenario in each stream
        copies = begins * len(self._scenarios)
        length = max(3 * self._longest, _MOST_STEPS // (copies * len(streams)))
        self.streams = [dataclasses.replace(one, steps=one.steps[-length:]) for one in streams]
        self._stream_of = np.repeat(np.arange(len(streams)), copies)  # (faults,)
        places = np.arange(len(self._stream_of))
        block_of = self._stream_of if len(streams) >= _ENOUGH_STREAMS else places // len(self._scenarios)
        self.blocks = [np.flatnonzero(block_of == block) for block in range(int(block_of[-1]) + 1)]
        self.blocks_are = "streams" if len(streams) >= _ENOUGH_STREAMS else "stretches with faults"
        self.faults, self._faulty = self._injected(begins)

    def _injected(self, begins: int) -> tuple[list[Fault], Dataset]:
        """The faults, each on a copy of its stream, and the dataset of the copies."""
        dataset, random = self._healthy, np.random.default_rng(1)
        columns, deviation = _targets_and_deviations(dataset)
        steps = np.concatenate([self.streams[stream].steps for stream in self._stream_of])
        samples = dataset.samples.at(steps)
        copy_of = np.repeat(np.arange(len(self._stream_of)), [len(self.streams[one].steps) for one in self._stream_of])
        restart = samples.restart | (np.diff(copy_of, prepend=-1) != 0)
        samples = dataclasses.replace(samples, restart=restart)
        faults, first = [], 0
        for stream in self.streams:
            for _ in range(begins):
                begin = int(random.integers(max(1, len(stream.window) // 2)))
                last = min(len(stream.window), begin + self._longest)
                at = np.searchsorted(stream.steps, stream.window[[begin, last - 1]])
                for (kind, size), several in self._scenarios:
                    count = max(2, len(columns) // 2) if several else 1
                    sensors = tuple(random.choice(columns, count, replace=False).tolist())
                    faults.append(Fault(kind, size, sensors, first + int(at[0]), first + int(at[1]) + 1))
                    put_on(samples.values, faults[-1], deviation, random)
                    first += len(stream.steps)
        values, features = feature_vectors(dataset.contract, samples)
        horizon, known = dataset.contract.horizons[0], np.isfinite(dataset.targets[steps])
        targets = np.full(known.shape, np.nan)
        targets[: len(steps) - horizon] = features[horizon:, target_columns(dataset.contract)]
        targets[~known] = np.nan
        names = [str(copy) for copy in range(len(faults))]
        faulty = dataclasses.replace(
            dataset,
            recording=dataclasses.replace(dataset.recording, streams=names),
            stream_of=copy_of,
            times=dataset.times[steps],
            values=values,
            restart=restart,
            features=features,
            targets=targets,
            labels={},
            part_of=dataset.part_of[steps],
            samples=samples,
            left_out=None,
        )
        return faults, faulty

    def __call__(self, model: Forecaster) -> Doubles:
        """(faults,): the share of each fault's steps without an alarm, by the alarm rule that the model's data give."""
        healthy, publish = self._healthy, PublishedOutputs(self._healthy.contract)
        outputs = publish(predict_streamed(model, healthy, "train"))
        alarm = find_rule(self._recipe, self._dataset, outputs).alarm
        residuals = residuals_of(healthy, outputs)
        smoothed, known = averaged(healthy, residuals, alarm)
        normal = normal_steps(self._recipe, healthy, residuals, known, alarm)
        fits = [fit_distance(smoothed[_calibration(one, normal, alarm)], alarm) for one in self.streams]
        residuals = residuals_of(self._faulty, publish(predict_streamed(model, self._faulty, "train")))
        smoothed, _ = averaged(self._faulty, residuals, alarm)
        found = np.empty(len(self.faults))
        for place, (fault, stream) in enumerate(zip(self.faults, self._stream_of.tolist(), strict=True)):
            rows, (center, whitening, threshold) = smoothed[fault.begin : fault.end], fits[stream]
            repeated = np.broadcast_to(center, rows.shape), np.broadcast_to(whitening, (len(rows), *whitening.shape))
            found[place] = (distance(rows, *repeated) <= threshold).mean()
        return found


def fault_judge(recipe: Recipe, dataset: Dataset) -> FaultJudge | None:
    """The judge of the candidates of an anomaly task; None where the validation part is too short for faults."""
    assert recipe.anomaly is not None  # the caller checks it
    alarm = recipe.anomaly.alarm(recipe.interval_s)
    truth = truth_of(recipe, dataset)
    usual = np.ones(len(dataset), bool) if truth is None else ~(truth > 0)
    found = []
    for own in dataset.by_stream(np.flatnonzero(dataset.needed_for("validation"))).values():
        validated = dataset.part_of[own] == PARTS.index("validation")
        early = np.flatnonzero((dataset.part_of[own] == PARTS.index("train")) & usual[own])[alarm.settle_steps :]
        window = _longest_run(validated & usual[own])
        if len(early) < _FEWEST_STEPS:  # the stream validates only: its beginning calibrates it
            early = window[alarm.settle_steps : len(window) // 2]
            window = window[len(window) // 2 :]
        if len(early) >= _FEWEST_STEPS and len(window) >= alarm.span_steps:
            found.append(HealthyStream(own[: window[-1] + 1], own[early], own[window]))
    if not found:
        return None
    chosen = np.linspace(0, len(found) - 1, min(_MOST_STREAMS, len(found))).astype(int)
    return FaultJudge(recipe, dataset, [found[place] for place in chosen.tolist()])


def _longest_run(flags: Flags) -> Integers:
    """The indexes of the longest run of true flags."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    if not edges.size:
        return np.zeros(0, np.int64)
    longest = int(np.argmax(edges[1::2] - edges[::2]))
    return np.arange(edges[2 * longest], edges[2 * longest + 1])


def _calibration(stream: HealthyStream, normal: Flags, alarm: Alarm) -> Integers:
    """The steps that calibrate the stream, as many as on a device."""
    kept = stream.calibration[normal[stream.calibration]]
    return (kept if len(kept) >= _FEWEST_STEPS else stream.calibration)[: alarm.calibrate_steps]


def _targets_and_deviations(dataset: Dataset) -> tuple[Integers, Doubles]:
    """Columns of the targets, and of each feature (features,) its standard deviation about the mean of its stream."""
    names = [feature.name for feature in dataset.contract.features]
    columns = np.array([names.index(target) for target in dataset.contract.targets])
    steps = dataset.steps("train")
    squares = np.zeros(len(names))
    for own in dataset.by_stream(steps).values():
        values = dataset.samples.values[own].astype(np.float64)
        squares += ((values - values.mean(axis=0)) ** 2).sum(axis=0)
    return columns, np.sqrt(squares / max(1, len(steps)))
