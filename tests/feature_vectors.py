"""The feature vectors that a predictor makes of readings, for tests of inputs."""

from __future__ import annotations

import numpy as np

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Contract, Feature
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from tests.networks import contract_of, random_network


class Seen(ReferenceBackend):
    """The reference, keeping the feature vectors that it is given, without padding rows."""

    def __init__(self, contract: Contract) -> None:
        super().__init__(random_network(inputs=len(contract.inputs), outputs=len(contract.network_outputs)))
        self.rows: list[np.ndarray] = []

    def step(self, features: np.ndarray, states: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        self.rows += [row.copy() for row in features]
        return super().step(features, states)


def fed(
    contract: Contract, rows: list[tuple[float, dict[str, float]]], batch: int = 1000
) -> tuple[np.ndarray, Predictor]:
    """The feature vectors (steps, inputs) of readings (minute, values) of one stream."""
    backend = Seen(contract)
    predictor = Predictor(contract, backend, max_rewind=8)
    readings = [Reading("s", 60.0 * minute, values) for minute, values in rows]
    for start in range(0, len(readings), batch):
        predictor.feed(readings[start : start + batch])
    return np.array(backend.rows), predictor


def contract(*features: Feature, **changes: object) -> Contract:
    facts = {"features": list(features), "targets": [features[0].name], "clock": [], **changes}
    return contract_of(random_network(), **facts)
