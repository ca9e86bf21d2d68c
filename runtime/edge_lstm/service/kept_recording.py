"""What a stopped service kept, as a recording for the next training: readings, and what operators said as labels."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from edge_lstm.bundle.contract import Contract, Feature
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.times.text import format_time
from edge_lstm.service.database.answered_commands import read_commands
from edge_lstm.service.database.history_reader import read_parts
from edge_lstm.service.database.stored_streams import opened
from edge_lstm.service.feedback.labels import LABELS, said_and_kept
from edge_lstm.streaming.reading import Command, Reading


def export_history(path: Path, bundle_id: str, contract: Contract, stream: str | None = None) -> str:
    """The readings that this bundle stepped last, as CSV text; `stream`: only its readings.

    Values are in the bundle's units, and a category is a text again. So a reading that another bundle stepped is left
    out: its values may mean something else. Raises EdgeLstmError if no reading is left, a feature has the name of a
    label, it is no state database, or a running service owns it.
    """
    taken = [one.name for one in contract.features if one.name in (*LABELS, "time", "stream")]
    if taken:
        raise EdgeLstmError(
            f"expected features with names that no column of time, stream or label has, found {', '.join(taken)}",
            "rename the feature in the recipe",
        )
    with opened(path) as database:
        commands = said_and_kept(read_commands(database))
    parts = read_parts(path, bundle_id, stream)
    readings = [reading for part in parts if part.rules is not None for reading in part.readings]
    if not readings:
        raise EdgeLstmError(
            f"expected readings in {path} that bundle {bundle_id} stepped, found none",
            "name the bundle that ran (--bundle), and see that history is not 0 in the config",
        )
    return recording_csv(readings, contract.features, commands)


def recording_csv(readings: Iterable[Reading], features: Sequence[Feature], commands: Iterable[Command]) -> str:
    """A row for each reading, by stream and time: time, stream, the features, and 1 or 0 for each kind of label."""
    windows: defaultdict[str, list[tuple[str, float, float]]] = defaultdict(list)  # by stream: kind, begin, end
    for one in commands:
        windows[one.stream].append((one.kind, one.facts["from"], one.facts["to"]))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["time", "stream", *(one.name for one in features), *LABELS])
    for reading in sorted(readings, key=lambda one: (one.stream, one.time)):
        kinds = {kind for kind, begin, end in windows[reading.stream] if begin <= reading.time <= end}
        said = [int(kind in kinds) for kind in LABELS]
        writer.writerow([format_time(reading.time), reading.stream, *_cells(reading, features), *said])
    return file.getvalue()


def _cells(reading: Reading, features: Sequence[Feature]) -> Iterator[str]:
    """The values as texts that read back the same; empty: missing."""
    for feature in features:
        value = reading.values.get(feature.name)
        if value is None or math.isnan(value):
            yield ""
        else:
            yield feature.categories[int(value)] if feature.categories else repr(float(value))
