"""A CSV file as a table; what stands around the readings is left out and counted: titles, units, footers, torn rows."""

from __future__ import annotations

import contextlib
import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import compress, islice, pairwise
from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import printable
from edge_lstm.recordings.tables.preamble import SAMPLE, SPACES, is_reading, preamble
from edge_lstm.recordings.tables.table import Block, Layout, distinct_names
from edge_lstm.recordings.tables.text_file import DAMAGE, TextFile

_BLOCK = 512  # rows; with larger blocks, garbage collection costs more than they save
_MOST_FOOTER = 20  # rows
_FEWEST_ROW_NAMES = 8  # numbers that count from anywhere
_LINES_HINT = (
    'fix or remove that row; for lines above the header: skip_lines = N, for comments: comment = "#", under '
    "[recording] (init, replay and simulate: --skip-lines N, --comment '#')"
)
_COUNTERS = ("", "#", "no", "no.", "nr", "nr.", "n", "id", "row", "rn", "record", "index", "count", "sample", "seq")
Row = tuple[int, list[str]]  # line in the file, cells
Part = tuple[Sequence[int], list[tuple[str, ...]]]  # lines, and cells by column


class CsvTable:
    """A CSV file; its rows are read when they are requested."""

    def __init__(self, path: Path, layout: Layout) -> None:
        """Raises EdgeLstmError where the file cannot be read, or holds no header and rows."""
        self.source = str(path)
        self.notes: list[str] = []
        self.left_out: Counter[str] = Counter()
        self._path, self._layout = path, layout
        lines = self._first_lines()
        self.preamble = preamble(
            lines, layout.separator, layout.header, layout.skip_lines, layout.comment, layout.units_row
        )
        found = self.preamble
        sample = found.sample
        head = [cell.strip() for cell in found.header]
        if not sample or not head:
            what = "only a header" if head else "nothing"
            raise EdgeLstmError(
                f"{path}: expected a header row and rows of readings, found {what}", "record some readings first"
            )
        self.trailing = False  # each row ends with a separator
        names = self._named(head, sample)
        self._header_rows = [list(row) for row in (found.header, *found.between)] if found.has_header else []
        self.header = distinct_names(names)
        shift = len(names) - len(head) if names[0] == "" and head[0] != "" else 0
        units = dict(zip(self.header[shift:], found.units, strict=False))
        self.units = {name: unit for name, unit in units.items() if name and unit}

    def blocks(self, columns: Sequence[int], size: int = _BLOCK) -> Iterator[Block]:
        """The rows of these columns in order; raises EdgeLstmError that names the row."""
        self.notes, self.left_out = [], Counter()
        held: Part | None = None  # the last rows may be a footer
        with opened_text(self._path, self._layout.encoding) as file:
            for part in self._parts(file, size):
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

    def _parts(self, file: TextFile, size: int) -> Iterator[Part]:
        """Rows of the right width as columns, at most `size` at a time."""
        width = len(self.header)
        wrong: list[Row] = []  # rows of another width: a footer, if no other row follows
        some = False
        for begin, rows, even in self._batches(file, size):
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
        again = [row in self._header_rows for row in map(list, zip(*cells, strict=True))]
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
                raise EdgeLstmError(
                    f"{self.source}, row {place}: expected {len(self.header)} columns, found {len(row)}", _LINES_HINT
                )
        self.left_out["comments"] += len(wrong)
        self.notes.append(f"row {wrong[0][0]} is a comment and was left out")
        wrong.clear()

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
            return list(islice(file.lines, SAMPLE))

    def _batches(self, file: TextFile, size: int) -> Iterator[tuple[int, list[list[str]], bool]]:
        """(line of the first row, rows, whether each row is one line) below the header, with empty rows."""
        found = self.preamble
        lines: Iterator[str] = file.lines
        for _ in range(found.skip_lines):
            next(lines, "")
        if found.comment:
            lines = ("\n" if line.startswith(found.comment) else line for line in lines)
        place = 1 + found.skip_lines
        reader = map(str.split, lines) if found.separator == SPACES else csv.reader(lines, delimiter=found.separator)
        above = found.has_header + len(found.between)
        try:
            while above and (row := next(reader, None)) is not None:
                above -= any(map(str.strip, row))
                place += 1 + sum(cell.count("\n") for cell in row)
            while rows := list(islice(reader, size)):
                begin = place
                place = place + len(rows) if isinstance(reader, map) else 1 + found.skip_lines + reader.line_num
                yield begin, rows, place - begin == len(rows)
        except csv.Error as error:
            raise EdgeLstmError(
                f"{self._path}, after row {place - 1}: expected CSV, found: {error}", "fix or remove that row"
            ) from None


@contextlib.contextmanager
def opened_text(path: Path, encoding: str | None) -> Iterator[TextFile]:
    """The text file, open. Raises EdgeLstmError if it cannot be read, or is in another encoding."""
    try:
        with TextFile(path, encoding) as file:
            yield file
    except UnicodeError as error:
        raise _encoding_error(path, encoding, error) from None
    except LookupError as error:
        raise EdgeLstmError(f"expected a known encoding, found: {error}", 'write it like "cp1252"') from None
    except (OSError, EOFError, zlib.error) as error:
        raise EdgeLstmError(f"expected a CSV file at {path}, found: {error}", "name a CSV text file") from None


def _encoding_error(path: Path, named: str | None, error: UnicodeError) -> EdgeLstmError:
    """The error with the row of the first wrong byte; `error` itself does not give the row."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for place, line in enumerate(file, 1):
            try:
                line.decode(named or "utf-8")
            except UnicodeDecodeError as found:
                text = line[max(0, found.start - 20) : found.start + 20].decode("cp1252", "replace").strip()
                meaning = "" if named else f'; in cp1252 it would be "{printable(text)}"'
                return EdgeLstmError(
                    f"expected a CSV file at {path}, in {named or 'UTF-8'}, found "
                    f"the byte 0x{line[found.start]:02x} in row {place}{meaning}",
                    'name its encoding: encoding = "cp1252" under [recording] (init, replay and simulate: '
                    "--encoding cp1252), or save it as UTF-8",
                )
    return EdgeLstmError(f"expected a CSV file at {path}, found: {error}", "name another encoding")


def _is_cut(cells: Sequence[str]) -> bool:
    """Whether the last cell is shorter than all others, so that its end may be missing."""
    return len(cells[-1].strip()) < min(len(cell.strip()) for cell in cells[:-1])


def _is_name_of_time(name: str) -> bool:
    return any(word in name.lower() for word in ("time", "date", "stamp", "zeit", "datum", "fecha", "heure", "hora"))
