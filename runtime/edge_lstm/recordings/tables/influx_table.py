"""InfluxDB's annotated CSV as a table: sections with their own columns, below lines like #group and #default."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.tables.csv_table import opened_text
from edge_lstm.recordings.tables.table import Block

_ANNOTATIONS = ("#group", "#datatype", "#default", "#constant")
_OWN = ("", "result", "table", "_start", "_stop")  # columns that say nothing about a reading
_BLOCK = 512  # rows


def is_annotated(line: str) -> bool:
    """Whether the first line of a file is an annotation of InfluxDB."""
    return line.lstrip("\ufeff").startswith(_ANNOTATIONS)


class InfluxTable:
    """The rows of all sections; the columns are those of all sections together."""

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        """Raises EdgeLstmError where the file cannot be read, or holds no rows."""
        self.source = str(path)
        self._path, self._encoding = path, encoding
        self.units: dict[str, str] = {}
        self.notes: list[str] = []
        self.left_out: Counter[str] = Counter()
        names: dict[str, None] = {}
        rows = 0
        for _, row, header, _ in self._rows():
            if header is row:
                names.update(dict.fromkeys(name for name in header if name not in _OWN))
            rows += header is not row
        self.header = list(names)
        if not rows:
            raise EdgeLstmError(f"{path}: expected rows of readings, found none", "record some readings first")

    def blocks(self, columns: Sequence[int], size: int = _BLOCK) -> Iterator[Block]:
        """The rows of these columns in order; a column that a section does not have is empty there."""
        self.notes, self.left_out = [], Counter()
        asked = [self.header[at] for at in columns]
        places: list[int] = []
        cells: list[list[str]] = []
        at: list[int | None] = []
        for place, row, header, defaults in self._rows():
            if header is row:
                at = [header.index(name) if name in header else None for name in asked]
                continue
            if len(row) != len(header):
                self.left_out["incomplete"] += 1
                self.notes.append(f"row {place} has {len(row)} cells of {len(header)} and was left out")
                continue
            places.append(place)
            cells.append(["" if one is None else row[one] or defaults[one] for one in at])
            if len(places) == size:
                yield _block(places, cells, columns)
                places, cells = [], []
        if places:
            yield _block(places, cells, columns)

    def _rows(self) -> Iterator[tuple[int, list[str], list[str], list[str]]]:
        """(line, row, header of its section, defaults); the header itself comes once as a row."""
        with opened_text(self._path, self._encoding) as file:
            reader = csv.reader(file.lines)
            header: list[str] = []
            defaults: list[str] = []
            for row in reader:
                if not any(row):
                    header = []  # a section may begin without annotations
                elif row[0].startswith(_ANNOTATIONS):
                    header = []
                    defaults = ["", *row[1:]] if row[0] == "#default" else defaults
                elif not header:
                    header = row
                    defaults = [*defaults, *[""] * len(header)][: len(header)]
                    yield reader.line_num, row, header, defaults
                else:
                    yield reader.line_num, row, header, defaults


def _block(places: list[int], rows: list[list[str]], columns: Sequence[int]) -> Block:
    return Block(places, dict(zip(columns, zip(*rows, strict=True), strict=True)))
