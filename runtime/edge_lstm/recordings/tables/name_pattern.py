"""Names that say stream and feature, like `P01.PT101.PV`: a pattern takes them apart, in a column or in the header."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.tables.table import Block, Cells, Table

STREAM = "{stream}"  # also the column that holds the streams of a pattern
FEATURE = "{feature}"
_PART = re.compile(r"(\{stream\}|\{feature\}|\*)")


def pattern_fault(pattern: str) -> str | None:
    """What is wrong with a pattern; None if nothing is."""
    if pattern.count(FEATURE) != 1 or pattern.count(STREAM) > 1:
        return f'expected {FEATURE} once and {STREAM} at most once, found "{pattern}"'
    if re.search(r"[}*][{*]", pattern):
        return f'expected a sign between two parts, found "{pattern}"'
    return None


class NamePattern:
    """Takes names apart. {feature} is as short as possible, {stream} as long; `*` stands for any text."""

    def __init__(self, pattern: str) -> None:
        forms = {STREAM: "(?P<stream>.+)", FEATURE: "(?P<feature>.+?)", "*": ".*"}
        self.text = pattern
        self.has_stream = STREAM in pattern
        self._form = re.compile("".join(forms.get(part) or re.escape(part) for part in _PART.split(pattern)))

    def parts(self, name: str) -> tuple[str, str] | None:
        """(stream, feature) of a name; the stream is empty without {stream}. None: the name does not fit."""
        found = self._form.fullmatch(name)
        return None if found is None else (found["stream"] if self.has_stream else "", found["feature"])


def likely_pattern(names: Sequence[str]) -> str | None:
    """A pattern for names like P1.PT.PV, P1.FT.PV, P2.PT.PV, P2.FT.PV; None unless all streams have all features."""
    for sign in "./:|":
        parts = [name.split(sign) for name in names]
        if len(parts) < 4 or len({len(found) for found in parts}) != 1:
            continue
        end = parts[0][-1] if len(parts[0]) > 2 and len({found[-1] for found in parts}) == 1 else None
        kept = parts if end is None else [found[:-1] for found in parts]
        streams = {sign.join(found[:-1]) for found in kept}
        features = {found[-1] for found in kept}
        if len(streams) > 1 and len(features) > 1 and len(streams) * len(features) == len(names):
            return f"{STREAM}{sign}{FEATURE}" + ("" if end is None else f"{sign}{end}")
    return None


class WideTable:
    """A table whose column names say the stream: each row becomes one row for each stream."""

    def __init__(self, table: Table, pattern: NamePattern) -> None:
        """Raises EdgeLstmError where no column fits the pattern."""
        self.table = table
        self.source = table.source
        self._places: dict[str, dict[str, int]] = {}  # stream -> feature -> column of the file
        kept: list[str] = []
        for at, name in enumerate(table.header):
            found = pattern.parts(name)
            if found is None:
                kept.append(name)
            elif self._places.setdefault(found[0], {}).setdefault(found[1], at) != at:
                other = table.header[self._places[found[0]][found[1]]]
                raise EdgeLstmError(
                    f'{self.source}: expected one column for the feature "{found[1]}" of the stream "{found[0]}", '
                    f'found "{other}" and "{name}"',
                    f"correct name_pattern ({pattern.text})",
                )
        if not self._places:
            raise EdgeLstmError(
                f"{self.source}: expected columns like {pattern.text}, found {', '.join(filter(None, table.header))}",
                "correct name_pattern",
            )
        features = dict.fromkeys(feature for places in self._places.values() for feature in places)
        self._kept = [table.header.index(name) for name in kept]
        self.header = [*kept, *([STREAM] if pattern.has_stream else []), *features]
        self.units = {
            feature: table.units[table.header[at]]
            for places in self._places.values()
            for feature, at in places.items()
            if table.header[at] in table.units
        }

    @property
    def notes(self) -> list[str]:
        return self.table.notes

    @property
    def left_out(self) -> Counter[str]:
        return self.table.left_out

    def blocks(self, columns: Sequence[int], size: int = 0) -> Iterator[Block]:
        """The rows of these columns, stream by stream within each block of the file."""
        kept = {at: self._kept[at] for at in columns if at < len(self._kept)}
        others = {at: self.header[at] for at in columns if at not in kept}
        asked = {*kept.values()}
        for places in self._places.values():
            asked |= {places[name] for name in others.values() if name in places}
        for block in self.table.blocks(sorted(asked or {0}), size):
            missing: Cells = [""] * len(block.rows)
            for stream, places in self._places.items():
                cells: dict[int, Cells] = {at: block.cells[place] for at, place in kept.items()}
                for at, name in others.items():
                    if name == STREAM:
                        cells[at] = [stream] * len(block.rows)
                    else:
                        cells[at] = block.cells[places[name]] if name in places else missing
                yield Block(block.rows, cells)
