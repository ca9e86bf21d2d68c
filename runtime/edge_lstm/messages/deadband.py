"""Which predictions are worth saying, where not every step is: those that moved away from what was said last."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import ConfigError
from edge_lstm.streaming.step_results import Steps
from edge_lstm.streaming.stream_table import StreamTable


class Deadband:
    """Keeps back a prediction whose every value lies within its target's band around the one published last.

    The values published last are kept with the stream (`StreamTable.last_published`), so that a restart neither repeats
    nor omits a prediction.
    """

    def __init__(self, contract: Contract, bands: Mapping[str, float]) -> None:
        """Raises ConfigError where a band is for nothing that the contract says."""
        faults = [
            f"output.deadband.{name}: nothing of the bundle's; {suggestion(name, contract.output_names)}"
            for name in bands
            if name not in contract.output_names
        ]
        if faults:
            raise ConfigError(
                "the deadband does not fit the bundle:\n  " + "\n  ".join(faults), "mend the service config"
            )
        self._bands = np.array([bands.get(target, 0.0) for target, _ in contract.outputs], np.float32)

    def moved(self, steps: Steps, table: StreamTable) -> list[int]:
        """The places of those to publish, in their order; corrections always are."""
        worth = []
        for place, (stream, revision) in enumerate(zip(steps.streams, steps.revisions.tolist(), strict=True)):
            slot, values = table.slot(stream), steps.values[place]
            quiet = np.abs(values - table.last_published[slot]) <= self._bands  # never where nothing was said: NaN
            if revision or not quiet.all():
                table.last_published[slot] = values
                worth.append(place)
        return worth
