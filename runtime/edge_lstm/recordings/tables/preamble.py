"""Finds where the table of a text file begins: title lines, `sep=`, comments, and rows between header and readings.

It compares the first rows with the later ones: readings have numbers and times where a header has names.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_lstm.foundation.numbers import WORD_VALUES

SPACES = " "  # the separator that means any run of spaces or tabs
SAMPLE = 256  # lines that are examined
_FEWEST_READINGS = 4  # above a table, that are no titles
_SEPARATORS = ";\t|,"  # the comma comes last: it may be a decimal comma
_SEP = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # as spreadsheets write it
_COMMENTS = ("#", "//", "%", "!")
_VALUE = re.compile(
    r"[-+]?[.,]?\d|.*\d:\d\d|(?:mon|tue|wed|thu|fri|sat|sun|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)\S{0,8}\W+\d",
    re.I,
)
_BEGIN = re.compile(
    r"[-+]?\d|(?:mon|tue|wed|thu|fri|sat|sun|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)\S{0,8}\W+\d", re.I
)
_MOMENT = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d:\d\d|\d{8}T\d")
_UNIT_WORDS = """
% %rh rh% %age a ah amps bar bars c celsius cm count counts cts db dba deg degc degf degree degrees f ft g g/m3 gpm
h hh:mm:ss hours hpa hz in inhg j k kelvin kg kg/h km km/h kmh knots kpa kts kv kva kvar kvarh kw kwh l l/h l/min
l/s lpm lux lx m m/s m/s2 m2 m3 m3/h m3/s ma mah mbar mg mg/l mg/m3 mj/m2 min minutes ml mm mm/h mm/hr mm/s mpa mph
ms ms/cm mv mwh n n/a na nm no ntu ohm ohms pa percent ph ppb ppm psi pulses rad rad/s rev/min rn rpm s sec seconds
time ts uct utc local none text us/cm us v va var vdc volts vol% w w/m2 watts wh µg/m³ µg/m3 ug/m3 µs/cm µm µv ω kω
mω °c °f ° ºc m³ m³/h g/m³ w/m² m/s² m² - -- yyyy-mm-dd
"""
_UNITS = frozenset(_UNIT_WORDS.split())
_TYPE_WORDS = """
value date datetime timestamp string str float double real int integer bool boolean long dint word f4 f8 i1 i2 i4 i8 b
float4 float8 int2 int4 int8
"""
_TYPES = frozenset(_TYPE_WORDS.split())  # of columns, as Ignition and databases write them
_PROCESSING = frozenset(["avg", "smp", "max", "min", "std", "tot", "samp", "sum", "mean", "med", "wvc", "tmx", "tmn"])


@dataclass(frozen=True)
class Preamble:
    """What is before the first row of readings."""

    separator: str = ","
    skip_lines: int = 0  # lines before the header
    comment: str = ""  # a line that begins with it is no row
    header: Sequence[str] = ()
    units: Sequence[str] = ()  # of the columns, in a row below the header
    between: Sequence[Sequence[str]] = ()  # rows between the header and the readings
    has_header: bool = True  # False: the header is given, and the file has none
    title: str = ""  # the first skipped line
    values: Sequence[int] = ()  # columns of numbers and times
    moments: Sequence[int] = ()  # of these, columns of times that are no plain numbers
    sample: Sequence[Sequence[str]] = field(default=())  # the first rows of readings


def preamble(
    lines: Sequence[str],
    separator: str | None = None,
    header: Sequence[str] = (),
    skip_lines: int | None = None,
    comment: str | None = None,
    units_row: bool | None = None,
) -> Preamble:
    """What is before the readings in the first lines of a file; an argument that is given is not searched for."""
    begin = skip_lines or 0
    if found := _SEP.fullmatch(lines[0] if lines else ""):
        separator, begin = separator or found[1], max(begin, 1)
    sign = _found_comment(lines[begin:]) if comment is None else comment
    kept = [
        at for at, line in enumerate(lines) if at >= begin and line.strip() and not (sign and line.startswith(sign))
    ]
    texts = [lines[at] for at in kept]
    separator = separator or _found_separator(texts)
    rows = [_cells(text, separator) for text in texts]
    kept = [at for at, row in zip(kept, rows, strict=True) if any(map(str.strip, row))]
    rows = [row for row in rows if any(map(str.strip, row))]
    table = _Table(rows)
    common = {"separator": separator, "comment": sign, "values": table.values, "moments": table.moments}
    if header:
        return Preamble(skip_lines=begin, header=list(header), has_header=False, sample=rows, **common)  # type: ignore[arg-type]
    if not rows:
        return Preamble(skip_lines=begin, **common)  # type: ignore[arg-type]
    first = table.first_row()
    if not first:
        names = _commented_names(lines[begin : kept[0]], sign, separator, len(rows[0]))
        if names:
            return Preamble(skip_lines=kept[0], header=names, has_header=False, sample=rows, **common)  # type: ignore[arg-type]
        return Preamble(skip_lines=begin, header=rows[0], sample=rows[1:], **common)  # type: ignore[arg-type]
    if skip_lines is None:
        at, units = table.header_rows(first, units_row)
    else:
        at, units = 0, next((row for row in range(1, first) if units_row is None and _is_units(rows[row])), None)
    if units_row and units is None and len(rows) > at + 1:
        units, first = at + 1, max(first, at + 2)
    skipped = kept[at] if at else begin
    return Preamble(
        skip_lines=skipped,
        header=rows[at],
        units=() if units is None else [_bare_unit(cell) for cell in rows[units]],
        between=rows[at + 1 : first],
        title=next((line.strip() for line in lines[:skipped] if line.strip()), ""),
        sample=rows[first:],
        **common,  # type: ignore[arg-type]
    )


class _Table:
    """The first rows of a file, before it is known which of them are readings."""

    def __init__(self, rows: Sequence[Sequence[str]]) -> None:
        self._rows = rows
        later = rows[len(rows) // 2 :] if len(rows) > 3 else rows[1:]
        self._width = Counter(map(len, later)).most_common(1)[0][0] if later else 0
        whole = [row for row in later if len(row) == self._width]
        most = 0.55 * len(whole)  # a few rows may be a footer
        columns = list(zip(*whole, strict=True))
        self.values = [at for at, cells in enumerate(columns) if _count(cells) and sum(map(_fits, cells)) >= most]
        self.moments = [at for at in self.values if sum(bool(_MOMENT.search(cell)) for cell in columns[at]) >= most]

    def first_row(self) -> int:
        """The index of the first row of readings; 0 where that is the first row or cannot be found."""
        if not self.values:
            return 1 if len(self._rows) > 1 else 0
        good = [self._is_reading(row) for row in self._rows]
        found = next((at for at in range(len(good)) if all(good[at : at + 3])), 0)
        while found and (self._is_timed(self._rows[found - 1]) or self._is_usual(self._rows[found - 1])):
            found -= 1
        return found

    def _is_usual(self, row: Sequence[str]) -> bool:
        return is_reading(row, self.values, self.moments, self._width)

    def _is_timed(self, row: Sequence[str]) -> bool:
        """Whether a row has all its times; its other cells may be words, like No Data."""
        return len(row) == self._width and bool(self.moments) and all(_is_moment(row[at]) for at in self.moments)

    def header_rows(self, first: int, units_row: bool | None) -> tuple[int, int | None]:
        """The indices of the header and of the row of units below it."""
        at, units = first - 1, None
        if self._rows[0][0].strip() == "TOA5" and first > 2:  # of Campbell Scientific: names, units, processing
            return 1, 2
        while at and self._is_wide(at - 1):
            if units is None and units_row is not False and (units_row or _is_units(self._rows[at])):
                units = at
            elif not _is_processing(self._rows[at]):
                break
            at -= 1
        other = at == 1 and not _is_processing(self._rows[1])
        if units is None and units_row is not False and other and self._width > 2 and self._is_wide(0):
            names = self._rows[0]  # units in another language: the row above has all names
            if all(map(str.strip, names)) and len({*names}) == len(names) == len(self._rows[1]):
                return 0, 1
        return at, units

    def _is_reading(self, row: Sequence[str]) -> bool:
        return len(row) == self._width and all(_fits(row[at]) for at in self.values) and bool(_count(row))

    def _is_wide(self, at: int) -> bool:
        row = self._rows[at]
        return abs(len(row) - self._width) <= 1 and len(row) > 1 and 2 * sum(map(bool, map(str.strip, row))) > len(row)


def is_reading(row: Sequence[str], values: Sequence[int], moments: Sequence[int], width: int) -> bool:
    """Whether a row has times, and numbers in most of the columns of numbers."""
    if len(row) != width or not all(_VALUE.match(row[at].strip()) for at in moments):
        return False
    return 2 * sum(bool(_VALUE.match(row[at].strip())) for at in values) >= len(values)


def earlier_readings(lines: Sequence[str], separator: str) -> int:
    """How many of the lines above a table are readings of another one; 0 for titles, which may hold some times."""
    rows = [_cells(line, separator) for line in lines if line.strip()]
    timed = [len(row) for row in rows if is_timed(row) and _count(row) > 1]
    count = Counter(timed).most_common(1)[0][1] if timed else 0
    return count if count >= _FEWEST_READINGS and 2 * count > len(rows) else 0


def is_timed(row: Sequence[str]) -> bool:
    """Whether a cell is a time."""
    return any(map(_is_moment, row))


def _is_moment(cell: str) -> bool:
    """Whether a cell is a time, and no name with a zone, like "Date Time, GMT+01:00"."""
    text = cell.strip()
    return _MOMENT.search(text) is not None and _BEGIN.match(text) is not None


def _cells(line: str, separator: str) -> list[str]:
    return (
        line.split()
        if separator == SPACES
        else next(csv.reader(line.splitlines(keepends=True), delimiter=separator), [])
    )


def _fits(cell: str) -> bool:
    """Whether a cell may be in a column of numbers or times."""
    text = cell.strip()
    return bool(_VALUE.match(text)) or text.lower() in WORD_VALUES


def _count(cells: Sequence[str]) -> int:
    return sum(bool(_VALUE.match(cell.strip())) for cell in cells)


def _found_separator(lines: Sequence[str]) -> str:
    """The separator of the first row, where the rows after it have as many cells; else that of most rows."""
    usual = _first_separator(lines[:2])
    if _is_even(lines, usual):
        return usual
    half = len(lines) // 2
    for sign in f"{_SEPARATORS}{SPACES}":
        widths = [len(_cells(line, sign)) for line in lines[half:]]
        width, count = Counter(widths).most_common(1)[0]
        heads = [cells for line in lines[: half + 1] if len(cells := _cells(line, sign)) == width]
        if width > 1 and count >= 0.9 * len(widths) and (sign != SPACES or any(not _count(cells) for cells in heads)):
            return sign
    return usual


def _is_even(lines: Sequence[str], separator: str) -> bool:
    """Whether the first rows have as many cells as the header; one more may be a row name, or after a delimiter."""
    widths = [len(_cells(line, separator)) for line in lines[:3]]
    return len(widths) < 2 or all(abs(width - widths[0]) <= 1 and width > 1 for width in widths)


def _first_separator(lines: Sequence[str]) -> str:
    """The separator of the first row; runs of spaces where there is no other and both rows have equally many."""
    parts = [re.sub(r'"[^"]*"', "", line) for line in lines]
    if (found := next((sign for sign in _SEPARATORS if sign in "".join(parts[:1])), None)) is not None:
        return found
    return SPACES if len(parts) == 2 and len(parts[0].split()) == len(parts[1].split()) > 1 else ","


def _found_comment(lines: Sequence[str]) -> str:
    """The sign that begins the first lines, if later lines do not begin with it."""
    first = next((line for line in lines if line.strip()), "")
    sign = next((sign for sign in _COMMENTS if first.startswith(sign)), "")
    if any(first.startswith(sign + separator) for separator in _SEPARATORS):
        return ""  # the name of a column of row numbers
    return sign if sign and not all(line.startswith(sign) for line in lines if line.strip()) else ""


def _commented_names(lines: Sequence[str], sign: str, separator: str, width: int) -> list[str]:
    """The names in the last comment of `width` names before rows without a header; empty where there is none."""
    comments = [line for line in lines if sign and line.startswith(sign)]
    if not comments:
        return []
    fitting = [
        names
        for line in comments
        if len(names := _without_sign(line.strip(), sign, separator)) == width > 1 and not _count(names)
    ]
    if not fitting:
        return []
    below = len(fitting) > 1 and len({*fitting[-1]}) < width == len({*fitting[-2]})  # names, and below them their units
    return [name.strip() for name in fitting[-2 if below else -1]]


def _without_sign(line: str, sign: str, separator: str) -> list[str]:
    """The cells of a comment; a sign that is a cell of its own is a name."""
    cells = _cells(line, separator)
    return cells if cells[0] == sign else _cells(line.removeprefix(sign).strip(), separator)


def _is_units(row: Sequence[str]) -> bool:
    cells = [bare for cell in row if (bare := _bare_unit(cell).lower().replace("deg ", "deg"))]
    return bool(cells) and 2 * sum(cell in _UNITS for cell in cells) > len(cells)


def _is_processing(row: Sequence[str]) -> bool:
    cells = [cell.strip().lower() for cell in row if cell.strip()]
    return bool(cells) and (all(cell in _PROCESSING for cell in cells) or all(cell in _TYPES for cell in cells))


def _bare_unit(cell: str) -> str:
    """A unit without brackets around it."""
    text = cell.strip()
    return text[1:-1].strip() if text[:1] + text[-1:] in ("[]", "()", "{}") else text
