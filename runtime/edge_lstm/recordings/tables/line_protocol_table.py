"""A file of InfluxDB's line protocol as a table of one row a value: time, measurement, tags, field and value.

The columns are called as in annotated CSV: `_time`, `_measurement`, `_field`, `_value`. A field that several
measurements have is called `measurement.field`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.messages.formats.line_protocol import Line, read_line
from edge_lstm.messages.formats.payloads import PayloadError
from edge_lstm.recordings.tables.table import Block
from edge_lstm.recordings.tables.text_file import DAMAGE
from edge_lstm.recordings.tables.text_lines import opened_text

_TIME, _MEASUREMENT, _FIELD, _VALUE = "_time", "_measurement", "_field", "_value"
_BLOCK = 512  # rows
_LONGEST_LINE = 1_000_000  # characters
_COMMENTS = ("#", "CREATE DATABASE ")  # the second: an export of InfluxDB 1
_LEAST_DIGITS = 9  # of a time in seconds; a title may end with a smaller number


def is_line_protocol(lines: Sequence[str]) -> bool:
    """Whether the first lines of a file are of line protocol: the first two, with their times."""
    found = [line.lstrip("\ufeff") for line in lines if line.strip() and not line.startswith(_COMMENTS)]
    try:
        read = [read_line(line)[0] for line in found[:2]]
    except PayloadError:
        return False
    return bool(read) and all(line.time is not None and len(str(line.time)) >= _LEAST_DIGITS for line in read)


class LineProtocolTable:
    """The values of all lines, one row each; the number of a row is that of its line."""

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        """Raises EdgeLstmError where the file cannot be read, or holds no values with a time."""
        self.source = str(path)
        self._path, self._encoding = path, encoding
        self.units: dict[str, str] = {}
        self.notes: list[str] = []
        self.left_out: Counter[str] = Counter()
        tags: dict[str, None] = {}
        measurements: dict[str, set[str]] = {}  # by field
        for _, line in self._lines():
            tags.update(dict.fromkeys(line.tags))
            for name in line.fields:
                measurements.setdefault(name, set()).add(line.measurement)
        if not measurements:
            raise EdgeLstmError(f"{path}: expected lines with a time, found none", "record some readings first")
        self._shared = {name for name, found in measurements.items() if len(found) > 1}
        own = (_TIME, _MEASUREMENT, _FIELD, _VALUE)
        self._tags = [name for name in tags if name not in own]
        self.header = [_TIME, _MEASUREMENT, *self._tags, _FIELD, _VALUE]

    def blocks(self, columns: Sequence[int], size: int = _BLOCK) -> Iterator[Block]:
        """The rows of these columns in order; a tag that a line does not have is empty there."""
        self.notes, self.left_out = [], Counter()
        places: list[int] = []
        rows: list[list[str]] = []
        for place, line in self._lines():
            for row in self._rows(line):
                places.append(place)
                rows.append([row[at] for at in columns])
            if len(places) >= size:
                yield _block(places, rows, columns)
                places, rows = [], []
        if places:
            yield _block(places, rows, columns)

    def _rows(self, line: Line) -> Iterator[list[str]]:
        tags = [line.tags.get(name, "") for name in self._tags]
        for name, value in line.fields.items():
            field = f"{line.measurement}.{name}" if name in self._shared else name
            yield [str(line.time), line.measurement, *tags, field, _text(value)]

    def _lines(self) -> Iterator[tuple[int, Line]]:
        """(number of the line, line); what is no line with a time is counted, and noted once."""
        with opened_text(self._path, self._encoding) as file:
            place, text = 0, ""
            while part := file.lines.readline(_LONGEST_LINE):
                place += 1
                text += part.lstrip("\ufeff") if place == 1 else part
                if _is_open(text) and len(text) < _LONGEST_LINE:
                    continue
                yield from self._line(place, text)
                text = ""
            yield from self._line(place, text)

    def _line(self, place: int, text: str) -> Iterator[tuple[int, Line]]:
        if not text.strip() or text.startswith(_COMMENTS):
            return
        try:
            if DAMAGE in text:
                self._leave_out(
                    "damaged", f"line {place} holds NUL bytes and was left out, and so is each line like it"
                )
                return
            line, _ = read_line(text)
        except PayloadError as error:
            if text.endswith("\n"):
                raise EdgeLstmError(f"{self.source}, line {place}: {error}", "fix or remove that line") from None
            self._leave_out("incomplete", f"line {place}, the last one, is incomplete and was left out")
            return
        if line.time is None:
            self._leave_out("without a time", f"line {place} has no time and was left out, and so is each line like it")
        elif text.endswith("\n"):
            yield place, line
        else:  # its time may be cut off
            self._leave_out("incomplete", f"line {place}, the last one, is incomplete and was left out")

    def _leave_out(self, reason: str, note: str) -> None:
        self.left_out[reason] += 1
        if self.left_out[reason] == 1:
            self.notes.append(note)


def _is_open(text: str) -> bool:
    """Whether a text in quotes goes on in the next line."""
    return (text.count('"') - text.count('\\"')) % 2 == 1


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _block(places: list[int], rows: list[list[str]], columns: Sequence[int]) -> Block:
    return Block(places, dict(zip(columns, zip(*rows, strict=True), strict=True)))
