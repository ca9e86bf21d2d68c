"""Which predictions are worth saying, where not every step is: those that moved away from what was said last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge_lstm.contract import Contract
from edge_lstm.reading import Prediction
from edge_lstm.streams import StreamTable


class Deadband:
    """Keeps back a prediction whose every value lies within its target's band around the one published last.

    What was said last is kept with the stream (`StreamTable.said`), so a restart repeats and omits nothing.
    """

    def __init__(self, contract: Contract, bands: Mapping[str, float]) -> None:
        self._outputs = contract.outputs
        self._bands = np.array([bands.get(target, 0.0) for target, _ in contract.outputs], np.float32)

    def moved(self, predictions: Sequence[Prediction], table: StreamTable) -> list[Prediction]:
        """The predictions to publish, in their order; corrections always are."""
        worth = []
        for prediction in predictions:
            slot = table.slot(prediction.stream)
            values = np.array([prediction.values[target][ahead] for target, ahead in self._outputs], np.float32)
            quiet = np.abs(values - table.said[slot]) <= self._bands  # never where nothing was said: NaN
            if prediction.revision or not quiet.all():
                table.said[slot] = values
                worth.append(prediction)
        return worth
