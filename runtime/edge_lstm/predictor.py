"""Readings in, predictions out, each stream's state carried between them; it does no input or output of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_lstm.backends import Backend, preferred
from edge_lstm.bundle import Bundle
from edge_lstm.contract import Contract
from edge_lstm.features import feature_vectors
from edge_lstm.reading import Prediction, Reading
from edge_lstm.sampling import Sample, Sampler
from edge_lstm.selftest import accepted
from edge_lstm.streams import StreamTable

Floats = NDArray[np.float32]

_LARGEST_BATCH = 1024  # rows a backend's step; a larger round goes in parts


class Predictor:
    """Steps each reading's stream exactly once, many streams together in one batch.

    A round holds at most one sample a stream; samples of the same stream go into rounds that follow one another. A
    stream gets the same bits alone and in any batch.
    """

    def __init__(self, contract: Contract, backend: Backend, smallest_batch: int = 1) -> None:
        """`smallest_batch`: the backend's rows agree bit for bit from this batch size on (the self-test finds it)."""
        self.contract = contract
        self.backend = backend
        self.table = StreamTable(contract)
        self._sampler = Sampler(contract, self.table)
        self._smallest_batch = smallest_batch

    @staticmethod
    def of(bundle: Bundle, backend: str | None = None, scheme: str | None = None) -> Predictor:
        """A predictor for the bundle, after its self-test on the backend.

        Without `backend`: the first installed of litert, onnx, tflite-runtime, numpy; without `scheme`: int8 where the
        bundle has it. Raises EdgeLstmError where the backend is not here or fails the self-test.
        """
        loaded, smallest_batch = accepted(bundle, *preferred(bundle, backend, scheme))
        return Predictor(bundle.contract, loaded, smallest_batch)

    @property
    def counts(self) -> dict[str, int]:
        """What became of the readings: samples, duplicate, late, gaps, missing."""
        return dict(self._sampler.counts)

    def feed(self, readings: Iterable[Reading]) -> list[Prediction]:
        """Step the readings' streams; predictions in the order of the readings that caused them."""
        samples = [sample for reading in readings if (sample := self._sampler.sample(reading)) is not None]
        rounds: list[list[int]] = []
        met: dict[int, int] = {}
        for index, sample in enumerate(samples):
            number = met[sample.slot] = met.get(sample.slot, -1) + 1
            if number == len(rounds):
                rounds.append([])
            rounds[number].append(index)
        predictions: list[Prediction | None] = [None] * len(samples)
        for indices in rounds:
            for start in range(0, len(indices), _LARGEST_BATCH):
                part = indices[start : start + _LARGEST_BATCH]
                for index, prediction in zip(part, self._step([samples[index] for index in part]), strict=True):
                    predictions[index] = prediction
        return [prediction for prediction in predictions if prediction is not None]

    def _step(self, samples: Sequence[Sample]) -> list[Prediction]:
        """One step of as many streams, no stream twice."""
        table = self.table
        for sample in samples:
            if sample.restart:
                table.restart(sample.slot)
        slots = np.array([sample.slot for sample in samples])
        features = feature_vectors(
            self.contract,
            np.array([sample.time for sample in samples]),
            np.stack([sample.values for sample in samples]),
            np.stack([sample.missing for sample in samples]),
        )
        raw = self.step_rows(slots, features)  # (batch, outputs)
        table.step[slots] += 1
        table.warm_steps[slots] += 1
        return [self._prediction(sample, row) for sample, row in zip(samples, raw.tolist(), strict=True)]

    def step_rows(self, slots: NDArray[np.int64], features: Floats) -> Floats:
        """The core: gather the states of `slots` (batch,), step `features` (batch, inputs), scatter; the outputs."""
        count = len(slots)
        states = [state[slots] for state in self.table.states]  # (batch, *shape) each, copies
        idle = self._smallest_batch - count
        if idle > 0:
            features = np.concatenate([features, np.zeros((idle, features.shape[1]), np.float32)])
            states = [np.concatenate([state, np.zeros((idle, *state.shape[1:]), np.float32)]) for state in states]
        prediction, following = self.backend.step(features, states)
        for column, state in zip(self.table.states, following, strict=True):
            column[slots] = state[:count]
        return prediction[:count]

    def _prediction(self, sample: Sample, row: Sequence[float]) -> Prediction:
        values: dict[str, dict[int, float]] = {target: {} for target in self.contract.targets}
        for (target, horizon), value in zip(self.contract.outputs, row, strict=True):
            values[target][horizon] = shortest(value)
        table, slot = self.table, sample.slot
        return Prediction(sample.stream, sample.time, int(table.step[slot]), int(table.warm_steps[slot]), values)


def shortest(value: float) -> float:
    """A float32 that was widened, with the fewest digits that still name it: 812.4 and not 812.4000244140625."""
    return float(str(np.float32(value)))
