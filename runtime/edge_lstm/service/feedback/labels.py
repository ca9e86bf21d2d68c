"""What operators said as labels: a CSV with a row for each window of time, which a recipe takes (`windows_file`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edge_lstm.foundation.csv_text import csv_text
from edge_lstm.foundation.times.text import format_time
from edge_lstm.service.database.answered_commands import read_commands
from edge_lstm.service.database.stored_streams import opened
from edge_lstm.streaming.reading import Command

LABELS = ("false_alarm", "missed", "maintenance")


def export_labels(path: Path) -> str:
    """The labels in the state database of a stopped service, as CSV. Raises EdgeLstmError as `list_streams` does."""
    with opened(path) as database:
        return labels_csv(read_commands(database))


def labels_csv(commands: Iterable[Command]) -> str:
    """The windows of commands that were not reverted: from, to, stream, kind, id."""
    rows = [
        [format_time(one.facts["from"]), format_time(one.facts["to"]), one.stream, one.kind, one.id]
        for one in said_and_kept(commands)
    ]
    return csv_text([["from", "to", "stream", "kind", "id"], *rows])


def said_and_kept(commands: Iterable[Command]) -> list[Command]:
    """The commands that label a window of time, and were not reverted."""
    taken = list(commands)
    reverted = {one.facts["of"] for one in taken if one.kind == "revert"}
    return [one for one in taken if one.kind in LABELS and one.id not in reverted]
