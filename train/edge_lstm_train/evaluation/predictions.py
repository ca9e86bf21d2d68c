"""Predictions from the runtime's own predictor, and how they match the steps of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.network import Network
from edge_lstm.foundation.arrays import Doubles
from edge_lstm.recordings.recording import Recording
from edge_lstm.recordings.replay import replay
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction
from edge_lstm_train.data.dataset import Dataset


def predict(contract: Contract, network: Network, recording: Recording) -> list[Prediction]:
    """The predictions that a device would publish for the recording, reading by reading, with carried state."""
    predictor = Predictor(contract, ReferenceBackend(network))
    return list(replay(predictor, recording.side_by_side().readings()))


def aligned(dataset: Dataset, predictions: Iterable[Prediction]) -> Doubles:
    """(steps, outputs): the predictions at the dataset's steps, NaN where there is none."""
    table = np.full((len(dataset), len(dataset.contract.outputs)), np.nan)
    for step, prediction in predictions_by_step(dataset, predictions):
        table[step] = [prediction.values[target][horizon] for target, horizon in dataset.contract.outputs]
    return table


def predictions_by_step(dataset: Dataset, predictions: Iterable[Prediction]) -> Iterator[tuple[int, Prediction]]:
    """Each prediction with the index of its step in the dataset, matched by stream and time.

    Times match exactly, or else to the millisecond: MQTT messages carry no finer times, and steps may lie closer.
    """
    names = [dataset.recording.streams[stream] for stream in dataset.stream_of.tolist()]
    step_at = {at: step for step, at in enumerate(zip(names, dataset.times.tolist(), strict=True))}
    step_at_ms = {(name, round(time * 1000)): step for (name, time), step in step_at.items()}
    for prediction in predictions:
        step = step_at.get((prediction.stream, prediction.time))
        step = step_at_ms.get((prediction.stream, round(prediction.time * 1000))) if step is None else step
        if step is not None:
            yield step, prediction
