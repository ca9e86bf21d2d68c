"""A CSV file as a table; what stands around the readings is left out and counted: titles, units, footers, torn rows."""

from __future__ import annotations

import codecs
import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, islice, pairwise
from pathlib import Path
from typing import Any

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import printable
from edge_lstm.recordings.tables import plain_rows
from edge_lstm.recordings.tables.plain_rows import Form, PlainRows, is_worth_it
from edge_lstm.recordings.tables.preamble import SAMPLE, SPACES, earlier_readings, is_reading, is_timed, preamble
from edge_lstm.recordings.tables.table import Block, Layout, distinct_names
from edge_lstm.recordings.tables.text_file import DAMAGE, TextFile
from edge_lstm.recordings.tables.text_lines import opened_text, whole_lines

_MOST_FOOTER = 20  # rows
_FEWEST_ROW_NAMES = 8  # numbers that count from anywhere
_LINES_HINT = (
    'fix or remove that row; for lines above the header: skip_lines = N, for comments: comment = "#", under '
    "[recording] (init, replay and simulate: --skip-lines N, --comment '#')"
)
_COUNTERS = ("", "#", "no", "no.", "nr", "nr.", "n", "id", "row", "rn", "record", "index", "count", "sample", "seq")
_RowReader = Any  # the module csv does not name the type of its readers
Row = tuple[int, list[str]]  # line in the file, cells
Part = tuple[Sequence[int], list[tuple[str, ...]]]  # lines, and cells by column


class CsvTable:
    """A CSV file; its rows are read when they are requested."""

    def __init__(self, path: Path, layout: Layout, quick: bool = False) -> None:
        """Raises EdgeLstmError where the file cannot be read, or holds no header and rows.

        `quick`: pyarrow reads the plain rows of a large file, if it is installed.
        """
        self.source = str(path)
        self._quick = quick
        self.notes: list[str] = []
        self.left_out: Counter[str] = Counter()
        self._path, self._layout = path, layout
        lines = self._first_lines()
        self.preamble = preamble(
            lines, layout.separator, layout.header, layout.skip_lines, layout.comment, layout.units_row
        )
        found = self.preamble
        sample = found.sample
        head = [" ".join(cell.split("\n")).strip() if "\n" in cell else cell.strip() for cell in found.header]
        if not sample or not head:
            what = "only a header" if head else "nothing"
            raise EdgeLstmError(
                f"{path}: expected a header row and rows of readings, found {what}", "record some readings first"
            )
        self._refuse_earlier_readings(lines, head)
        self.trailing = False  # each row ends with a separator
        names = self._named(head, sample)
        self._header_rows = [list(row) for row in (found.header, *found.between)] if found.has_header else []
        self.header = distinct_names(names)
        shift = len(names) - len(head) if names[0] == "" and head[0] != "" else 0
        units = dict(zip(self.header[shift:], found.units, strict=False))
        self.units = {name: unit for name, unit in units.items() if name and unit}

    def blocks(self, columns: Sequence[int], size: int = 0) -> Iterator[Block]:
        """The rows of these columns in order; raises EdgeLstmError that names the row. `size` 0: the usual one."""
        self.notes, self.left_out = [], Counter()
        held: Part | None = None  # the last rows may be a footer
        plain = self._plain_rows() if self._quick and not size else None
        size = size or plain_rows.BLOCK_ROWS
        if plain is not None:
            yield from (Block(rows, cells) for rows, cells in plain.parts(columns))
        with opened_text(self._path, self._layout.encoding, 0 if plain is None else plain.offset) as file:
            for part in self._parts(file, size, None if plain is None else plain.line):
                if held is None:
                    held = part
                elif len(part[0]) >= min(size, _MOST_FOOTER):
                    yield self._block(held, columns)
                    held = part
                else:
                    cells = [before + after for before, after in zip(held[1], part[1], strict=True)]
                    held = [*held[0], *part[0]], cells
            if held is not None:
                yield self._block(self._without_end(file, held), columns)

    def _plain_rows(self) -> PlainRows | None:
        """What pyarrow can read of the file; None where that is nothing."""
        found, path = self.preamble, self._path
        with opened_text(path, self._layout.encoding) as file:
            if not is_worth_it(path, found.separator, file.encoding, len(self.header)):
                return None
            lines = _CountedLines(file.lines)
            _, place = self._below_header(lines)
            mark = len(codecs.BOM_UTF8) if file.encoding == "utf-8-sig" else 0
            if file.damaged:
                return None
        begins = [row[0] for row in self._header_rows]
        form = Form(len(self.header), found.separator, found.comment, begins, self.trailing)
        return PlainRows(path, form, mark + lines.size, place)

    def _parts(self, file: TextFile, size: int, line: int | None = None) -> Iterator[Part]:
        """Rows of the right width as columns, at most `size` at a time.

        `line`: of the first row in the file, if the text begins there, with rows before it; None: it begins with the
        file.
        """
        width = len(self.header)
        wrong: list[Row] = []  # rows of another width: a footer, if no other row follows
        some = line is not None
        for begin, rows, even in self._batches(file, size, line):
            if set(map(len, rows)) == {width} and not file.damaged:  # as usual: nothing to do row by row
                part: Part = range(begin, begin + len(rows)), list(zip(*rows, strict=True))
                if not even or not all(map(str.strip, part[1][0])):
                    part = self._part(begin, rows, wrong)
                elif wrong:
                    self._drop_comments(wrong)
            else:
                part = self._part(begin, rows, wrong)
            rows.clear()  # else the garbage collector would look at these lists again and again
            if part[0]:
                some = True
                yield part
        if wrong and not some:
            self._drop_comments(wrong)
        self._note_end(file, wrong)

    def _part(self, begin: int, rows: list[list[str]], wrong: list[Row]) -> Part:
        """The rows as columns, without empty and damaged ones. Rows of another width are added to `wrong`."""
        width = len(self.header)
        place, places, whole = begin, [], []
        for row in rows:
            if any(map(str.strip, row)):
                fitted = row if len(row) == width and not any(DAMAGE in cell for cell in row) else self._fitted(row)
                if fitted is not None:
                    if wrong:
                        self._drop_comments(wrong)
                    places.append(place)
                    whole.append(fitted)
                elif not self._is_damaged(place, row):
                    wrong.append((place, row))
                    if len(wrong) > _MOST_FOOTER:
                        self._drop_comments(wrong)
            place += 1 + sum(cell.count("\n") for cell in row)  # with quotes, a row can span many lines
        return places, list(zip(*whole, strict=True)) or [()] * width

    def _is_damaged(self, place: int, row: Sequence[str]) -> bool:
        """Whether NUL bytes hit the row; then it is counted."""
        if not any(DAMAGE in cell for cell in row):
            return False
        self.left_out["damaged"] += 1
        if self.left_out["damaged"] == 1:
            self.notes.append(f"row {place} holds NUL bytes and was left out, and so is each row like it")
        return True

    def _fitted(self, row: list[str]) -> list[str] | None:
        """The row with as many cells as the header, if only empty cells are too many; else None."""
        width = len(self.header)
        row = [row[0].lstrip(DAMAGE), *row[1:]]
        if any(DAMAGE in cell for cell in row) or not any(row):
            return None
        if len(row) > width and not any(map(str.strip, row[width:])):
            return row[:width]
        if len(row) == width - 1 and not self.header[-1]:  # not every row ends with a delimiter
            return [*row, ""]
        return row if len(row) == width else None

    def _block(self, part: Part, columns: Sequence[int]) -> Block:
        places, cells = part
        if any(header[0] in cells[0] for header in self._header_rows):
            places, cells = self._without_headers(places, cells)
        if self.trailing and (at := next((at for at, cell in enumerate(cells[-1]) if cell.strip()), -1)) >= 0:
            raise self._doubt(places[at], self.header[:-1], [column[at] for column in cells])
        return Block(places, {at: cells[at] for at in columns})

    def _without_headers(self, places: Sequence[int], cells: list[tuple[str, ...]]) -> Part:
        """The rows that do not repeat the header, as of a logger that writes it at each start."""
        rows = [*map(list, zip(*cells, strict=True))]
        again = [row in self._header_rows for row in rows]
        for place, row, same in zip(places, rows, again, strict=True):
            if not same and row[0] == self._header_rows[0][0]:
                self._refuse_other_header(place, row)
        if not any(again):
            return places, cells
        self.left_out["repeated headers"] += sum(again)
        self.notes.append(f"row {places[again.index(True)]} repeats the header and was left out")
        kept = [not one for one in again]
        return list(compress(places, kept)), [tuple(compress(column, kept)) for column in cells]

    def _named(self, head: list[str], sample: Sequence[Sequence[str]]) -> list[str]:
        """The names of all columns; a row with one cell more than the header ends with a delimiter, or begins with a
        row name. Raises EdgeLstmError where that is not certain: names never shift."""
        width = Counter(map(len, sample)).most_common(1)[0][0]
        while len(head) > width and not head[-1]:
            head = head[:-1]
        rows = [row for row in sample if len(row) == width]
        if width != len(head) + 1 or not self.preamble.has_header:
            return head
        last_empty = not any(row[-1].strip() for row in rows)
        row_names = self._have_row_names(head, rows)
        if last_empty and row_names is not True:
            self.trailing = True
            return [*head, ""]
        if not last_empty and row_names:
            return ["", *head]
        if row_names is False:
            return [*head, ""]
        raise self._doubt(self.preamble.skip_lines + len(self.preamble.between) + 2, head, rows[0])

    def _have_row_names(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> bool | None:
        """Whether the first cells are names of the rows, as R writes them: by the place of the times, or by counting
        numbers. None: unknown."""
        moments = self.preamble.moments
        timed = next((at for at, name in enumerate(head) if _is_name_of_time(name)), None)
        if timed is not None and moments:
            if timed + 1 in moments and timed not in moments:
                return True
            if timed in moments and timed + 1 not in moments:
                return False
        firsts = [row[0].strip() for row in rows]
        if all(map(str.isdigit, firsts)):
            numbers = list(map(int, firsts))
            counting = all(after - before == 1 for before, after in pairwise(numbers))
            counting = counting and (numbers[0] in (0, 1) or len(numbers) >= _FEWEST_ROW_NAMES)
            return True if counting and head[0].lower() not in _COUNTERS else None
        if 0 not in self.preamble.values and len({*firsts}) == len(firsts) > 1:
            return True  # texts, each once
        return None

    def _doubt(self, place: int, head: Sequence[str], row: Sequence[str]) -> EdgeLstmError:
        first, second, last = (repr(row[at].strip()) for at in (0, 1, -1))
        listed = ", ".join(f'"{name}"' for name in head[:3])
        return EdgeLstmError(
            f"{self.source}, row {place}: expected {len(head)} columns, found {len(row)}: either "
            f'"{head[0]}" is {first} and the last column ({last}) has no name, '
            f'or "{head[0]}" is {second} and the first column ({first}) has no name',
            f"name all columns under [recording], with skip_lines = {self.preamble.skip_lines + 1}: "
            f'header = [{listed}, ..., ""] or header = ["", {listed}, ...]',
        )

    def _drop_comments(self, wrong: list[Row]) -> None:
        """Clear the rows of another width, which are comments before one of the right width, or raise EdgeLstmError."""
        for place, row in wrong:
            if not row[0].lstrip().startswith(("#", "//")):
                self._refuse_other_header(place, row)
                raise EdgeLstmError(
                    f"{self.source}, row {place}: expected {len(self.header)} columns, found {len(row)}", _LINES_HINT
                )
        self.left_out["comments"] += len(wrong)
        self.notes.append(f"row {wrong[0][0]} is a comment and was left out")
        wrong.clear()

    def _refuse_other_header(self, place: int, row: Sequence[str]) -> None:
        """Raises EdgeLstmError if the row holds most of the names of the header, so that a table of its own begins."""
        names = {name for name in self.header if name}
        if len(names) > 1 and 2 * len(names & set(map(str.strip, row))) > len(names):
            raise EdgeLstmError(
                f"{self.source}, row {place}: expected rows of {', '.join(self.header)}, found another header: "
                f"{printable(', '.join(row))}",
                "the columns change there: split the file before that row, and name both files in a list",
            )

    def _refuse_earlier_readings(self, lines: Sequence[str], head: Sequence[str]) -> None:
        """Raises EdgeLstmError if the lines above the table, where they were found, are another table."""
        above = self.preamble.skip_lines
        names = self._layout.skip_lines is None and not is_timed(head)
        if names and (count := earlier_readings(lines[:above], self.preamble.separator)):
            raise EdgeLstmError(
                f"{self.source}: expected one table, found {count} readings above line {above + 1}, "
                f"where a header of other columns begins: {', '.join(head)}",
                "split the file there, and name both files in a list; or leave them out: "
                f"skip_lines = {above} under [recording] (--skip-lines {above})",
            )

    def _note_end(self, file: TextFile, wrong: list[Row]) -> None:
        """Count an incomplete last row, or the rows below the table."""
        if not wrong:
            return
        if len(wrong) == 1 and not file.ended and len(wrong[0][1]) < len(self.header):
            self._note_incomplete(wrong[0][0])
        else:
            self._note_footer(len(wrong), *wrong[0])

    def _note_incomplete(self, place: int) -> None:
        self.left_out["incomplete"] += 1
        self.notes.append(f"row {place}, the last one, is incomplete and was left out")

    def _note_footer(self, count: int, place: int, row: Sequence[str]) -> None:
        self.left_out["below the table"] += count
        self.notes.append(
            f'row {place} and what follows are no readings and were left out: "{printable(", ".join(row))[:60]}"'
        )

    def _without_end(self, file: TextFile, part: Part) -> Part:
        """The last rows without a footer, and without a last row whose last cell was cut off."""
        places, cells = part
        found = self.preamble
        end = len(places)
        if not file.ended and end > 3 and _is_cut(cells[-2 if self.trailing else -1]):
            self._note_incomplete(places[-1])
            end -= 1
        begin = end
        while begin and end - begin <= _MOST_FOOTER and found.moments:
            if is_reading([column[begin - 1] for column in cells], found.values, found.moments, len(self.header)):
                break
            begin -= 1
        if begin and 0 < end - begin <= _MOST_FOOTER:
            self._note_footer(end - begin, places[begin], [column[begin] for column in cells])
            end = begin
        return places[:end], [column[:end] for column in cells]

    def _first_lines(self) -> list[str]:
        with opened_text(self._path, self._layout.encoding) as file:
            return list(islice(whole_lines(file.lines), SAMPLE))

    def _batches(self, file: TextFile, size: int, line: int | None) -> Iterator[tuple[int, list[list[str]], bool]]:
        """(line of the first row, rows, whether each row is one line) below the header, with empty rows."""
        first = 1 + self.preamble.skip_lines if line is None else line
        place = first
        try:
            reader, place = self._below_header(file.lines) if line is None else (self._reader(file.lines), line)
            while rows := list(islice(reader, size)):
                begin = place
                place = place + len(rows) if isinstance(reader, map) else first + reader.line_num
                yield begin, rows, place - begin == len(rows)
        except csv.Error as error:
            raise EdgeLstmError(
                f"{self._path}, after row {place - 1}: expected CSV, found: {error}", "fix or remove that row"
            ) from None

    def _below_header(self, lines: Iterable[str]) -> tuple[_RowReader, int]:
        """A reader of the rows below the header, and the line of the first of them."""
        found = self.preamble
        remaining = iter(lines)
        for _ in range(found.skip_lines):
            next(remaining, "")
        reader = self._reader(remaining)
        place = 1 + found.skip_lines
        above = found.has_header + len(found.between)
        while above and (row := next(reader, None)) is not None:
            above -= any(map(str.strip, row))
            place += 1 + sum(cell.count("\n") for cell in row)
        return reader, place

    def _reader(self, lines: Iterable[str]) -> _RowReader:
        found = self.preamble
        if found.comment:
            lines = ("\n" if line.startswith(found.comment) else line for line in lines)
        return map(str.split, lines) if found.separator == SPACES else csv.reader(lines, delimiter=found.separator)


class _CountedLines:
    """Lines, and how many bytes they had in the file."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.size = 0
        self._lines = lines

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.size += len(line.encode())
            yield line


def _is_cut(cells: Sequence[str]) -> bool:
    """Whether the last cell is shorter than all others, so that its end may be missing."""
    return len(cells[-1].strip()) < min(len(cell.strip()) for cell in cells[:-1])


def _is_name_of_time(name: str) -> bool:
    return any(word in name.lower() for word in ("time", "date", "stamp", "zeit", "datum", "fecha", "heure", "hora"))
