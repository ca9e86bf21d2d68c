"""A step of many streams, as the decisions see it."""

from __future__ import annotations

from typing import NamedTuple

from edge_lstm.decisions.sensors.sensed import Sensed
from edge_lstm.foundation.arrays import Flags, Floats, Records, Slots


class Step(NamedTuple):
    """The step of n streams that was just made."""

    current: Records  # the streams' records, (slots,); they include this step, and the decisions write to them
    calibration: Floats  # (slots, calibrate_steps, targets): the table's column
    slots: Slots  # (n,): the streams
    values: Floats  # (n, features): the sample
    missing: Flags  # (n, features)
    outputs: Floats  # (n, outputs): of the network, with one position for the sine and cosine of a circle
    learns: Flags  # (n,): whether this step may change what the device has learned of the stream
    sensed: Sensed | None = None  # None: no sensor is watched

    @property
    def dead(self) -> Flags | None:
        """(n, features): the sensors that are dead; None: none is watched."""
        return None if self.sensed is None else self.sensed.faults > 0

    def of(self, places: Slots) -> Step:
        """The step of the streams at these places."""
        return self._replace(
            slots=self.slots[places],
            values=self.values[places],
            missing=self.missing[places],
            outputs=self.outputs[places],
            learns=self.learns[places],
            sensed=None if self.sensed is None else self.sensed.of(places),
        )
