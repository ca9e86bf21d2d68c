"""The sections of a recipe on what was recorded: the file, its features and its labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timezone, tzinfo
from pathlib import Path
from typing import Literal

from edge_lstm.bundle.feature import PERIODS, Aggregate, derived_fault, kind_faults
from edge_lstm.bundle.known_ahead import MOST_STEPS, Between
from edge_lstm.foundation.config import key
from edge_lstm.foundation.times.formats import format_fault
from edge_lstm.foundation.times.text import parse_time
from edge_lstm.foundation.times.units import TimeUnit
from edge_lstm.foundation.times.zones import zone_named
from edge_lstm.messages.forecasts.forecast_mapping import forecast_topic_faults
from edge_lstm.recordings.columns import TimeColumns
from edge_lstm.recordings.tables.name_pattern import STREAM, pattern_fault
from edge_lstm.recordings.tables.table import Layout
from edge_lstm.recordings.tables.text_file import is_text_encoding


@dataclass(frozen=True)
class RecordingSection:
    """Where the readings are, and how to read them."""

    path: str | list[str] | dict[str, str | list[str]] = key(
        doc=(
            "CSV or Parquet: a file, a pattern like logs/*.csv, or a list; relative to the recipe or to --data; data "
            "sets that are given apart: {train = ..., test = ...}, perhaps with validation"
        )
    )
    time: str | list[str] | None = key(
        None, doc="column of times, or columns of date and hour; none: the first column that holds times"
    )
    time_format: str | None = key(None, doc="format of the times, like %d.%m.%Y %H:%M; none: ISO 8601 or a number")
    time_unit: TimeUnit | None = key(
        None, doc="unit of times that are numbers; days are those of a spreadsheet; none: from their size"
    )
    timezone: str = key("UTC", doc="time zone of times without one, like Europe/Berlin or +01:00")
    interval_s: float | None = key(None, doc="time between two rows of a stream, for files without times", least=1e-6)
    start: str | None = key(
        None, doc="time of the first row, for files without times, or of the number 0, with time_unit; none: 1970"
    )
    stream: str | None = key(None, doc="name of the only stream; none: each file is a stream, named after the file")
    stream_column: str | None = key(None, doc="column of stream names, for files that hold several streams")
    group_column: str | None = key(None, doc="column of group names, for [split]")
    groups: dict[str, list[str]] = key({}, doc="group = its streams, if no column has the group names")
    separator: str | None = key(
        None, doc="column separator; a space: any run of spaces; none: detected from the first rows"
    )
    header: list[str] = key([], doc="column names, for files without a header row")
    encoding: str | None = key(
        None, doc="encoding of text files, like cp1252; none: from their byte order mark, else UTF-8"
    )
    skip_lines: int | None = key(None, doc="lines before the header, like titles; none: detected", least=0)
    comment: str | None = key(
        None, doc="a line that begins with this text is skipped; none: detected in the first lines"
    )
    units_row: bool | None = key(None, doc="true: the row below the header holds units; none: detected")
    name_column: str | None = key(
        None,
        doc="for files of one row a value: column that says what the value is; its texts are the columns of features",
    )
    value_column: str | None = key(None, doc="beside name_column: column of the values")
    name_pattern: str | None = key(
        None,
        doc=(
            "takes names of columns, or those of name_column, apart into stream and feature: {stream}.{feature}.PV; "
            "`*` is any text"
        ),
    )
    join_within_s: float = key(
        0.0, doc="for files of one row a value: the values of a row come within this time; 0: at the same time", least=0
    )
    decimal: Literal["point", "comma"] = key("point", doc="decimal separator")
    thousands: str = key("", doc="sign between groups of three digits, like 1,234.5")
    sentinels: list[float] = key([], doc="numbers that mean a missing value, in any feature")
    missing: list[str] = key([], doc="texts that mean a missing value, besides NA, null, unavailable and similar ones")

    def faults(self) -> Iterator[tuple[str, str]]:
        if isinstance(self.path, dict):
            for name in self.path:
                if name not in ("train", "validation", "test"):
                    yield "path", f'expected data sets named train, validation and test, found "{name}"'
            if missing := [name for name in ("train", "test") if name not in self.path]:
                yield "path", f"expected the data sets train and test, found no {' and no '.join(missing)}"
        if self.stream is not None and self.stream_column is not None:
            yield "stream_column", "expected either stream or stream_column, found both"
        if self.group_column is not None and self.groups:
            yield "groups", "expected either group_column or groups, found both"
        if self.separator is not None and (len(self.separator) != 1 or self.separator in '"\r\n\0'):
            yield "separator", f'expected one sign, found "{self.separator}"'
        named = [name for name in self.header if name]
        if len(set(named)) < len(named):
            yield "header", f"expected different names, found {', '.join(self.header)}"
        yield from self._layout_faults()
        members = [stream for streams in self.groups.values() for stream in streams]
        for stream in sorted({stream for stream in members if members.count(stream) > 1}):
            yield "groups", f'expected each stream in one group, found "{stream}" in several'
        yield from self.time_faults()

    def _layout_faults(self) -> Iterator[tuple[str, str]]:
        """Keys of the layout of files that are unknown or contradict each other."""
        if self.encoding is not None and not is_text_encoding(self.encoding):
            yield "encoding", f'expected a known encoding, like "cp1252" or "utf-16", found "{self.encoding}"'
        if self.comment == "":
            yield "comment", "expected at least one sign, found none"
        if len(self.thousands) > 1 or self.thousands.isalnum():
            yield "thousands", f'expected one sign, like ",", found "{self.thousands}"'
        if self.thousands and self.thousands == ("," if self.decimal == "comma" else "."):
            yield "thousands", f'expected another sign than the decimal separator, found "{self.thousands}"'
        if (self.name_column is None) != (self.value_column is None):
            missing = "value_column" if self.value_column is None else "name_column"
            yield missing, "missing: name_column and value_column belong together"
        if self.name_column is None and self.join_within_s:
            yield "join_within_s", "expected name_column beside it: it is for files of one row a value"
        if self.name_column is not None and self.interval_s is not None:
            yield "name_column", "expected none beside interval_s, which is for rows without times"
        if self.name_pattern is not None:
            if (fault := pattern_fault(self.name_pattern)) is not None:
                yield "name_pattern", fault
            elif STREAM in self.name_pattern and (self.stream is not None or self.stream_column is not None):
                given = "stream" if self.stream is not None else "stream_column"
                yield given, "expected none beside a name_pattern with {stream}"

    def time_faults(self) -> Iterator[tuple[str, str]]:
        if isinstance(self.time, list) and not self.time:
            yield "time", "expected at least one column, found none"
        if self.interval_s is not None:
            for name in ("time", "time_format", "time_unit"):
                if getattr(self, name) is not None:
                    yield name, "expected none beside interval_s, which is for rows without times"
        elif self.start is not None and self.time_unit is None:
            yield (
                "start",
                "expected interval_s beside it, for rows without times, or time_unit, for numbers",
            )
        if self.time_format is not None and self.time_unit is not None:
            yield "time_unit", "expected either time_format or time_unit, found both"
        if self.time_format is not None and (fault := format_fault(self.time_format)) is not None:
            yield "time_format", fault
        try:
            self.zone()
        except ValueError as error:
            yield "timezone", str(error)
        else:
            if self.start is not None:
                yield from time_faults("start", self.start, self.zone())

    def zone(self) -> tzinfo:
        """The zone of times that name none. Raises ValueError if this machine does not know it."""
        return zone_named(self.timezone)

    @property
    def layout(self) -> Layout:
        """The layout of the files."""
        return Layout(
            self.separator,
            self.header,
            self.encoding,
            self.skip_lines,
            self.comment,
            self.units_row,
            self.name_column,
            self.value_column,
            self.name_pattern,
        )

    @property
    def streams_in(self) -> str | None:
        """The column of stream names."""
        return STREAM if self.name_pattern is not None and STREAM in self.name_pattern else self.stream_column

    @property
    def name(self) -> str:
        """The names of the files without their folders, which are private to this machine."""
        return ", ".join(Path(one).name for one in self.paths)

    @property
    def paths(self) -> list[str]:
        """All files and patterns, also those of data sets."""
        sets = self.path.values() if isinstance(self.path, dict) else [self.path]
        return [one for named in sets for one in ([named] if isinstance(named, str) else named)]

    @property
    def row_s(self) -> float | None:
        """Seconds between rows that have neither times nor a start time; None for clock times."""
        return self.interval_s if self.start is None else None

    @property
    def times(self) -> TimeColumns:
        """The columns of the times and their format."""
        columns = [self.time] if isinstance(self.time, str) else self.time or []
        start = None if self.start is None else parse_time(self.start, self.zone())
        return TimeColumns(columns, self.time_format, self.time_unit, self.zone(), self.interval_s, start)


@dataclass(frozen=True)
class FeatureSection:
    """One measured input."""

    column: str | None = key(None, doc="column of the recording; none: the feature's name")
    unit: str = key("", doc="physical unit, for display; of a circle, it also gives the period")
    mask: bool = key(False, doc="true: a second input is 1 where the value is missing")
    age: bool = key(False, doc="true: another input says how long ago the value was measured")
    level: bool = key(True, doc="true: the layers see the value itself; false: they see only its derived inputs")
    derived: list[str] = key(
        [],
        doc=(
            'inputs computed from it: "difference", "mean N", "deviation N", "from_mean N", "from_start N", '
            '"standardized N", "slope N M", "covariance OTHER N"'
        ),
    )
    mirrored_by: str | None = key(
        None, doc="name of a feature; where that feature is above 0, the sign of this one is inverted"
    )
    aggregate: Aggregate = key("mean", doc="with grid = true: how the readings of an interval become one value")
    categories: list[str] = key([], doc="texts of the column, one input each; any other text is missing")
    sentinels: list[float] = key([], doc="numbers that mean a missing value")
    least: float | None = key(None, doc="a smaller value is missing")
    most: float | None = key(None, doc="a larger value is missing")
    circular: bool = key(
        False, doc="true: an angle or another position on a circle; the inputs are its sine and its cosine"
    )
    period: float | None = key(
        None, doc="length of the circle; none: 360 for the unit degree, 2 pi for radian", least=1e-6, most=1e9
    )
    counter: bool = key(
        False, doc="true: the column counts up, like a meter; the value is the increase since the last reading"
    )
    modulus: float | None = key(
        None,
        doc="number at which the counter starts again at 0; none: 16 and 32 bits are recognized",
        least=1e-6,
        most=1e18,
    )
    known_ahead: str | None = key(
        None,
        doc="topic of its forecasts, like weather/{stream}/forecast: later values are forecast or known, and inputs",
    )
    known_ahead_steps: list[int] = key(
        [],
        doc="beside known_ahead: steps after the sample whose values are inputs; with 0 no reading holds the present "
        "value; none: the horizons of [forecast]",
        least=0,
        most=MOST_STEPS,
    )
    known_ahead_between: Between = key(
        "linear", doc="value between two points of a forecast: on the line, or that of the point before (a tariff)"
    )
    known_ahead_noise: float | None = key(
        None,
        doc="standard deviation of the error one step ahead, where the recording has no archived forecasts; none: the "
        'error is half of the change until then, and 0 with "previous"',
        least=0.0,
    )
    quantity: str | None = key(
        None, doc="of a later value, what it is a value of; edge-lstm writes such features for known_ahead_steps"
    )
    actual: str | None = key(None, doc="beside quantity: the column of the actual values")

    @property
    def circle(self) -> float | None:
        """The length of the circle that the values are on; None: they are on none."""
        if not self.circular:
            return None
        return self.period if self.period is not None else PERIODS.get(self.unit.strip().lower())

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from _quantity_faults(self)
        yield from kind_faults(self)
        yield from self._circle_faults()
        yield from self._ahead_faults()
        for text in self.derived:
            if (fault := derived_fault(text)) is not None:
                yield "derived", fault
        if self.categories and (self.derived or self.mirrored_by):
            yield "categories", "expected no derived or mirrored_by beside them: those are for numbers"

    def _ahead_faults(self) -> Iterator[tuple[str, str]]:
        if self.known_ahead is None:
            for name in ("known_ahead_steps", "known_ahead_noise", "quantity", "actual"):
                if getattr(self, name):
                    yield name, "expected known_ahead beside it"
            return
        yield from (("known_ahead", fault) for _, fault in forecast_topic_faults(self.known_ahead))
        if not self.known_ahead_steps:
            yield "known_ahead_steps", "missing (steps ahead; only with [forecast] they are its horizons)"
        if len(set(self.known_ahead_steps)) < len(self.known_ahead_steps):
            yield "known_ahead_steps", f"expected each once, found {self.known_ahead_steps}"
        if self.counter:
            yield "known_ahead", "expected none for a counter, whose increases no forecast gives"
        if self.categories and self.known_ahead_between == "linear":
            yield "known_ahead_between", 'expected "previous" for categories, which have nothing between them'
        if self.categories and self.known_ahead_noise:
            yield "known_ahead_noise", "expected none for categories"

    def _circle_faults(self) -> Iterator[tuple[str, str]]:
        if not self.circular:
            if self.period is not None:
                yield "period", "expected circular = true beside it"
        elif self.circle is None:
            found = f'the unit "{self.unit}"' if self.unit else "no unit"
            yield (
                "period",
                f'missing (the length of the circle where the unit is not "degree" or "radian", found {found})',
            )
        elif not self.level:
            yield "level", "expected true for a circle: its sine and cosine are all that the layers see of it"


@dataclass(frozen=True)
class LabelSection:
    """A known value of each row that is not an input: a class, a truth or a target."""

    column: str | None = key(None, doc="column of the recording; none: the label's name")
    unit: str = key("", doc="physical unit, for display only")
    text: bool = key(False, doc="true: the column holds texts; the categories are these texts, in alphabetical order")
    categories: list[str] = key(
        [], doc="texts of the column; the value is the index of the text, and any other text is missing"
    )
    sentinels: list[float] = key([], doc="numbers that mean a missing value")
    least: float | None = key(None, doc="a smaller value is missing")
    most: float | None = key(None, doc="a larger value is missing")
    windows: list[list[str]] = key(
        [], doc="instead of a column: 1 inside these [from, to] or [from, to, stream] intervals, 0 elsewhere"
    )
    windows_file: str | None = key(
        None, doc="instead of a column: path of a CSV file with such intervals, as edge-lstm feedback export writes it"
    )
    windows_kind: str | None = key(
        None, doc='only the intervals of this kind, such as "missed", count; none: all of windows_file'
    )
    countdown: bool = key(False, doc="instead of a column: number of rows that follow, as the remaining life")

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from _quantity_faults(self)
        if self.text and self.categories:
            yield "text", "expected this or categories, found both"
        if self.windows_kind is not None and self.windows_file is None:
            yield "windows_kind", "expected windows_file beside it, found none"
        has_column = self.column is not None or self.text or bool(self.categories)
        if sum([has_column, bool(self.windows), self.windows_file is not None, self.countdown]) > 1:
            yield "column", "expected one of a column, windows, windows_file and countdown, found several"
        for index, window in enumerate(self.windows):
            where = f"windows[{index}]"
            if len(window) not in (2, 3):
                yield where, f"expected [from, to] or [from, to, stream], found {len(window)} texts"
                continue
            faults = [*time_faults(where, window[0], timezone.utc), *time_faults(where, window[1], timezone.utc)]
            yield from faults
            if not faults and parse_time(window[0]) > parse_time(window[1]):
                yield where, f'expected an end after its begin, found "{window[0]}" to "{window[1]}"'


def _quantity_faults(section: FeatureSection | LabelSection) -> Iterator[tuple[str, str]]:
    if len(set(section.categories)) < len(section.categories):
        yield "categories", f"expected different texts, found {', '.join(section.categories)}"
    if section.categories and (section.sentinels or section.least is not None or section.most is not None):
        yield "categories", "expected no sentinels, least or most beside them: those are for numbers"
    if section.least is not None and section.most is not None and section.least > section.most:
        yield "least", f"expected at most `most` ({section.most:g}), found {section.least:g}"


def time_faults(name: str, text: str, zone: tzinfo) -> Iterator[tuple[str, str]]:
    try:
        parse_time(text, zone)
    except ValueError as error:
        yield name, str(error)
