"""Columns of archived forecasts as messages, which a simulation publishes before the readings of their rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.times.text import format_time
from edge_lstm.recordings.ahead_columns import forecasts_among
from edge_lstm.recordings.pace import median_interval_s
from edge_lstm.recordings.recording import Recording
from edge_lstm.streaming.reading import Reading


class ArchivedForecasts(NamedTuple):
    """Columns of one quantity that hold forecasts."""

    topic: str
    ahead_s: Mapping[str, float]  # by column: how many seconds after its row the forecast is for

    def payload(self, reading: Reading) -> str:
        """The times and values of the forecast in a row; empty: it has none."""
        known = sorted((ahead_s, name) for name, ahead_s in self.ahead_s.items() if name in reading.values)
        times = [format_time(reading.time + ahead_s) for ahead_s, _ in known]
        return json.dumps({"time": times, "value": [reading.values[name] for _, name in known]}) if known else ""

    def without(self, reading: Reading) -> Reading:
        """The reading without these columns."""
        return reading._replace(values={n: value for n, value in reading.values.items() if n not in self.ahead_s})


def archived_forecasts(recording: Recording, asked: Sequence[str]) -> tuple[list[ArchivedForecasts], list[str]]:
    """The forecasts that were asked for, each as COLUMN=TOPIC; and notes on columns that may hold others.

    Raises EdgeLstmError if the recording has no forecasts of such a column.
    """
    interval_s = median_interval_s(recording) or 1.0
    found = forecasts_among(recording.features, interval_s)
    chosen = []
    for text in asked:
        column, equals, topic = text.partition("=")
        if not equals or column not in found:
            known = ", ".join(found) or "none"
            raise EdgeLstmError(
                f"--forecast: expected COLUMN=TOPIC with a column of which {recording.source} has forecasts ({known}), "
                f"found {text!r}",
                'forecasts of temp are in columns like "temp+6h"',
            )
        ahead_s = {name: steps * interval_s for name, steps in found.pop(column).items()}
        chosen.append(ArchivedForecasts(topic, ahead_s))
    return chosen, [
        f"{', '.join(names)} are published as values of the readings; "
        f"--forecast '{column}=weather/{{stream}}/forecast' publishes them as forecasts"
        for column, names in found.items()
    ]
