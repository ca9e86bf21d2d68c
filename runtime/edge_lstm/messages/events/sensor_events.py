"""Messages about sensors that died, or came back."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from edge_lstm.decisions.sensors.sensor_watch import FAULTS
from edge_lstm.foundation.times.text import format_time
from edge_lstm.streaming.step_results import Steps
from edge_lstm.streaming.stream_table import StreamTable


class SensorEvents:
    """The messages about sensors that steps cause.

    What was reported is in the stream's row (`StreamTable.reported_faults`), and is not rewound with it. Steps that are
    made again for a reading that came late are the past, so only the last of them reports anything.
    """

    def __init__(self, names: Sequence[str], table: StreamTable) -> None:
        """`names`: of the features."""
        self._names, self._table = names, table

    def messages(self, steps: Steps) -> list[str]:
        """The messages as JSON, in the order of the steps."""
        faults, known = steps.decisions.faults, self._table.reported_faults
        if faults is None:
            return []
        slots = np.array(self._table.slots(steps.streams), np.intp)
        if not faults.any() and not known[slots].any():
            return []
        newest = {slot: place for place, slot in enumerate(slots.tolist())}
        found = []
        for place, slot in enumerate(slots.tolist()):
            if steps.revisions[place] and newest[slot] != place:
                continue
            for at in np.flatnonzero(faults[place] != known[slot]).tolist():
                found.append(self._message(steps, place, at, FAULTS[faults[place, at]]))
            known[slot] = faults[place]
        return found

    def _message(self, steps: Steps, place: int, feature: int, fault: str) -> str:
        sensor = self._names[feature]
        said = f'sensor "{sensor}" works again' if fault == FAULTS[0] else f'sensor "{sensor}" is {fault}'
        facts = {"stream": steps.streams[place], "time": format_time(steps.times[place].item()), "sensor": sensor}
        return json.dumps({**facts, "fault": fault, "error": said})
