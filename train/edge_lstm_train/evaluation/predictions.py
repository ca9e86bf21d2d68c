"""Predictions from the runtime's own predictor, as columns, and how they match the steps of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.network import Network
from edge_lstm.decisions.decisions import Decisions
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Integers, narrow
from edge_lstm.foundation.growing_column import GrowingColumn
from edge_lstm.foundation.progress import work
from edge_lstm.recordings.recording import Recording
from edge_lstm.recordings.replay import replayed_steps
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction
from edge_lstm.streaming.step_results import Outputs, Steps
from edge_lstm_train.data.dataset import Dataset

_ROWS_AT_ONCE = 65_536  # as Python objects


@dataclass(frozen=True, eq=False)
class Predictions(Sequence[Prediction]):
    """Predictions as columns, which take a fiftieth of the memory; each one is made when it is asked for."""

    outputs: Outputs
    streams: Sequence[str]
    label_names: Sequence[str | None]
    stream_of: Integers  # (n,): index into `streams`
    times: Doubles  # (n,)
    steps: Integers  # (n,): from 1 in each stream
    warm_steps: Integers  # (n,)
    values: Floats  # (n, outputs)
    labels: Integers  # (n,): index into `label_names`
    turned: Flags  # (n,)
    scores: Doubles | None  # (n,): None where the task has none
    alarms: Flags | None  # (n,)
    bands: Floats | None = None  # (n, targets * horizons, 2)

    def __len__(self) -> int:
        return len(self.times)

    @overload
    def __getitem__(self, at: int) -> Prediction: ...
    @overload
    def __getitem__(self, at: slice) -> list[Prediction]: ...
    def __getitem__(self, at: int | slice) -> Prediction | list[Prediction]:
        if isinstance(at, slice):
            return self._part(at).predictions()
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return self._part(slice(at, at + 1 or None)).predictions()[0]

    def __iter__(self) -> Iterator[Prediction]:
        for begin in range(0, len(self), _ROWS_AT_ONCE):
            yield from self[begin : begin + _ROWS_AT_ONCE]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_equal, self, other))

    __hash__ = None  # type: ignore[assignment]

    def _part(self, at: slice) -> Steps:
        count = len(self.times[at])
        decisions = Decisions(
            self.values[at],
            [self.label_names[index] for index in self.labels[at].tolist()],
            None if self.scores is None else self.scores[at],
            None if self.alarms is None else self.alarms[at],
            self.turned[at],
            None if self.bands is None else self.bands[at],
        )
        streams = [self.streams[index] for index in self.stream_of[at].tolist()]
        revisions = np.zeros(count, np.uint64)
        columns = self.times[at], self.steps[at], self.warm_steps[at], revisions
        return Steps(self.outputs, range(count), streams, *columns, decisions)


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other)


def predict(contract: Contract, network: Network, recording: Recording) -> Predictions:
    """The predictions that a device would publish for the recording, reading by reading, with carried state."""
    return predictions_of(Predictor(contract, ReferenceBackend(network)), recording)


def predictions_of(predictor: Predictor, recording: Recording) -> Predictions:
    """The predictions of a new predictor for the recording."""
    stream_index = {name: index for index, name in enumerate(recording.streams)}
    label_index: dict[str | None, int] = {}
    width = len(predictor.contract.outputs)
    columns = [GrowingColumn(kind) for kind in (np.int32, np.float64, np.int32, np.int32)]
    values, labels, turned = GrowingColumn(np.float32, (width,)), GrowingColumn(np.int16), GrowingColumn(np.bool_)
    scores, alarms = GrowingColumn(np.float64), GrowingColumn(np.bool_)
    banded = len(predictor.contract.targets) * len(predictor.contract.horizons)
    bands = GrowingColumn(np.float32, (banded, 2))
    outputs: Outputs = []
    with work("streaming the recording through the model", len(recording), "readings") as advance:
        for count, found in replayed_steps(predictor, recording.readings_side_by_side()):
            advance(count)
            if found is None:
                continue
            outputs, decided = found.outputs, found.decisions
            streams = np.fromiter(map(stream_index.__getitem__, found.streams), np.int32, len(found.streams))
            parts: list[NDArray[Any]] = [streams, found.times, found.steps, found.warm_steps]
            for column, part in zip(columns, parts, strict=True):
                column.add(part)
            codes = [label_index.setdefault(label, len(label_index)) for label in decided.labels]
            for column, part in ((values, decided.values), (labels, np.array(codes)), (turned, decided.turned)):
                column.add(part)
            if decided.scores is not None:
                scores.add(decided.scores)
            if decided.alarms is not None:
                alarms.add(decided.alarms)
            if decided.bands is not None:
                bands.add(decided.bands)
    return Predictions(
        outputs,
        recording.streams,
        list(label_index),
        columns[0].whole(),
        columns[1].whole(),
        columns[2].whole(),
        columns[3].whole(),
        values.whole(),
        labels.whole(),
        turned.whole(),
        scores.whole() if len(scores) else None,
        alarms.whole() if len(alarms) else None,
        bands.whole() if len(bands) else None,
    )


def aligned(dataset: Dataset, predictions: Iterable[Prediction]) -> Doubles:
    """(steps, outputs): the predictions at the dataset's steps, NaN where there is none."""
    table = np.full((len(dataset), len(dataset.contract.outputs)), np.nan)
    if isinstance(predictions, Predictions):
        steps = steps_of(dataset, predictions)
        for begin in range(0, len(steps), _ROWS_AT_ONCE):
            at = slice(begin, begin + _ROWS_AT_ONCE)
            known = steps[at] >= 0
            table[steps[at][known]] = predictions.values[at][known]
        return table
    for step, prediction in predictions_by_step(dataset, predictions):
        table[step] = [prediction.values[target][horizon] for target, horizon in dataset.contract.outputs]
    return table


def predictions_by_step(dataset: Dataset, predictions: Iterable[Prediction]) -> Iterator[tuple[int, Prediction]]:
    """Each prediction with the index of its step in the dataset, matched by stream and time.

    Times match exactly, or else to the millisecond: MQTT messages carry no finer times, and steps may lie closer.
    """
    if isinstance(predictions, Predictions):
        found = zip(steps_of(dataset, predictions).tolist(), predictions, strict=True)
        yield from ((step, prediction) for step, prediction in found if step >= 0)
        return
    step_of = _step_finder(dataset)
    for prediction in predictions:
        step = step_of(prediction.stream, prediction.time)
        if step is not None:
            yield step, prediction


def _step_finder(dataset: Dataset) -> Callable[[str, float], int | None]:
    """A function from stream and time to the index of that step."""
    names = [dataset.recording.streams[stream] for stream in dataset.stream_of.tolist()]
    step_at = {at: step for step, at in enumerate(zip(names, dataset.times.tolist(), strict=True))}
    step_at_ms = {(name, round(time * 1000)): step for (name, time), step in step_at.items()}

    def step_of(stream: str, time: float) -> int | None:
        step = step_at.get((stream, time))
        return step_at_ms.get((stream, round(time * 1000))) if step is None else step

    return step_of


def steps_of(dataset: Dataset, predictions: Predictions) -> Integers:
    """(predictions,): the index of the step of each in the dataset, -1 where there is none.

    The predictor counts the steps of a stream as the dataset does. Where the time of that step is another one, the
    prediction is looked up by its time.
    """
    streams = {name: index for index, name in enumerate(dataset.recording.streams)}
    index_of = np.array([streams.get(name, -1) for name in predictions.streams])[predictions.stream_of]
    begins = np.searchsorted(dataset.stream_of, np.arange(len(streams) + 1)).astype(np.int32)
    found = narrow(begins[index_of] + predictions.steps - 1, np.int32)
    inside = (index_of >= 0) & (found < begins[index_of + 1])
    found[~inside] = -1
    unlike = np.flatnonzero(~inside | (dataset.times[found] != predictions.times))
    if unlike.size:
        step_of = _step_finder(dataset)
        names = [predictions.streams[index] for index in predictions.stream_of[unlike].tolist()]
        steps = map(step_of, names, predictions.times[unlike].tolist())
        found[unlike] = [-1 if step is None else step for step in steps]
    return found
