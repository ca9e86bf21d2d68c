"""What a stopped service kept, as a recording for the next training: readings, and what operators said as labels."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from edge_lstm.bundle.contract import Contract, Feature
from edge_lstm.foundation.csv_text import csv_text
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.times.text import format_time
from edge_lstm.service.database.answered_commands import read_commands
from edge_lstm.service.database.history_reader import Part, read_parts
from edge_lstm.service.database.stored_streams import opened
from edge_lstm.service.feedback.labels import LABELS, said_and_kept
from edge_lstm.streaming.reading import Command, Forgotten, Reading
from edge_lstm.streaming.sampling.joining import part_spans

log = logging.getLogger(__name__)


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
    parts = [part for part in read_parts(path, bundle_id, stream) if part.rules is not None]
    readings = readings_by_stream(parts)
    if not readings:
        raise EdgeLstmError(
            f"expected readings in {path} that bundle {bundle_id} stepped, found none",
            "name the bundle that ran (--bundle), and see that history is not 0 in the config",
        )
    if not contract.sampling.grid:  # there each value goes into the interval of its own time
        rules = parts[-1].rules
        spans = part_spans(contract, None if rules is None else rules.join_within_s)
        names = {feature.name for feature in contract.features}
        readings = [list(joined(one, names, *spans)) for one in readings]
    return history_csv([reading for one in readings for reading in one], contract.features, commands)


def readings_by_stream(parts: Iterable[Part]) -> list[list[Reading]]:
    """The readings of each stream by time, since it was last forgotten; streams by name.

    Where the times of a stream began again, earlier readings with times from there on had a wrong clock. They are left
    out, with a warning.
    """
    found: defaultdict[str, list[Reading]] = defaultdict(list)
    for part in parts:
        for one in part.before:
            if isinstance(one, Forgotten):
                found.pop(one.stream, None)
        for reading in part.readings:
            kept = found[reading.stream]
            if reading.restart and (wrong := sum(one.time >= reading.time for one in kept)):
                kept[:] = [one for one in kept if one.time < reading.time]
                facts = reading.stream, wrong, format_time(reading.time)
                log.warning("wrong clock, readings left out stream=%s readings=%d from=%s", *facts)
            kept.append(reading)
    return [sorted(found[name], key=lambda reading: reading.time) for name in sorted(found)]


def joined(readings: Iterable[Reading], names: set[str], own_s: float, arrival_s: float) -> Iterator[Reading]:
    """The samples of one stream's readings, which are by time: parts of a sample (`names`) become one reading.

    It has the time of the last part. `own_s`, `arrival_s`: of `part_spans`. A part that came again is left out.
    """
    waiting: Reading | None = None
    first = newest = -math.inf
    for reading in readings:
        if waiting is not None and reading.time > first + (arrival_s if reading.arrived else own_s):
            yield waiting
            newest, waiting = waiting.time, None
        if not reading.partial:  # it has every value of a sample that waits
            yield reading
            newest, waiting = reading.time, None
        elif reading.time > newest:
            first = first if waiting is not None else reading.time
            before = {} if waiting is None else waiting.values
            waiting = reading._replace(values={**before, **reading.values})
            if names <= waiting.values.keys():
                yield waiting
                newest, waiting = reading.time, None
    if waiting is not None:
        yield waiting


def history_csv(readings: Iterable[Reading], features: Sequence[Feature], commands: Iterable[Command]) -> str:
    """A row for each reading: time, stream, the features, and 1 or 0 for each kind of label."""
    windows: defaultdict[str, list[tuple[str, float, float]]] = defaultdict(list)  # by stream: kind, begin, end
    for one in commands:
        windows[one.stream].append((one.kind, one.facts["from"], one.facts["to"]))

    def row(reading: Reading) -> list[object]:
        kinds = {kind for kind, begin, end in windows[reading.stream] if begin <= reading.time <= end}
        said = [int(kind in kinds) for kind in LABELS]
        return [format_time(reading.time), reading.stream, *_cells(reading, features), *said]

    return csv_text([["time", "stream", *(one.name for one in features), *LABELS], *map(row, readings)])


def _cells(reading: Reading, features: Sequence[Feature]) -> Iterator[str]:
    """The values as texts that read back the same; empty: missing."""
    for feature in features:
        value = reading.values.get(feature.name)
        if value is None or math.isnan(value):
            yield ""
        else:
            yield feature.categories[int(value)] if feature.categories else repr(float(value))
