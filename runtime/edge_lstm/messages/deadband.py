"""The deadband: publishes only predictions that moved away from the last published one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.angles import PublishedOutputs, difference
from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import ConfigError
from edge_lstm.streaming.step_results import Steps
from edge_lstm.streaming.stream_table import StreamTable


class Deadband:
    """Drops a prediction if every value lies within its target's band around the last published value.

    The last published values are part of the stream's state (`StreamTable.last_published`), so a restart neither
    repeats nor omits a prediction.
    """

    def __init__(self, contract: Contract, bands: Mapping[str, float]) -> None:
        """Raises ConfigError if a band names no output of the contract."""
        faults = [
            f"output.deadband.{name}: not an output of the bundle; {suggestion(name, contract.output_names)}"
            for name in bands
            if name not in contract.output_names
        ]
        if faults:
            raise ConfigError(
                "the deadband does not fit the bundle:\n  " + "\n  ".join(faults), "correct the service config"
            )
        self._bands = np.array([bands.get(target, 0.0) for target, _ in contract.outputs], np.float32)
        published = PublishedOutputs(contract)
        self._periods = published.periods() if published else None

    def moved(self, steps: Steps, table: StreamTable) -> list[int]:
        """The indices of the steps to publish, in order; corrections always are."""
        moved = []
        watched = steps.decisions.degraded is not None
        turned = steps.decisions.turned if watched else np.zeros(len(steps.order), np.bool_)
        for place, (stream, revision) in enumerate(zip(steps.streams, steps.revisions.tolist(), strict=True)):
            slot, values = table.slot(stream), steps.values[place]
            quiet = self._change(values, table.last_published[slot]) <= self._bands  # NaN before the first: false
            if revision or not quiet.all() or turned[place]:
                table.last_published[slot] = values
                moved.append(place)
        return moved

    def _change(self, values: Floats, before: Floats) -> NDArray[Any]:
        """The size of the change of each value (outputs,), on a circle the shorter way."""
        change: NDArray[Any] = np.abs(values - before)
        if self._periods is not None:
            around = np.abs(difference(values, before, self._periods))
            change = np.where(np.isnan(self._periods), change, around)
        return change
