"""The sections of a recipe, with the keys, defaults and faults of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timezone, tzinfo
from pathlib import Path
from typing import Literal

from edge_lstm.bundle.contract import Alarm, Decision
from edge_lstm.bundle.feature import PERIODS, Aggregate, derived_fault, kind_faults
from edge_lstm.bundle.network import Cell
from edge_lstm.foundation.config import key
from edge_lstm.foundation.times.formats import format_fault
from edge_lstm.foundation.times.text import parse_time
from edge_lstm.foundation.times.units import TimeUnit
from edge_lstm.foundation.times.zones import zone_named
from edge_lstm.recordings.columns import TimeColumns
from edge_lstm.recordings.tables.name_pattern import STREAM, pattern_fault
from edge_lstm.recordings.tables.table import Layout
from edge_lstm.recordings.tables.text_file import is_text_encoding

Period = Literal["hour", "day", "week", "month", "year"]
PERIOD_S: dict[Period, float] = {"hour": 3600, "day": 86_400, "week": 604_800, "month": 2_592_000, "year": 31_536_000}
_UNKNOWN_FACTOR = 3.0  # until training has found one


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
        yield from self._time_faults()

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

    def _time_faults(self) -> Iterator[tuple[str, str]]:
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
                yield from _time_faults("start", self.start, self.zone())

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
        for text in self.derived:
            if (fault := derived_fault(text)) is not None:
                yield "derived", fault
        if self.categories and (self.derived or self.mirrored_by):
            yield "categories", "expected no derived or mirrored_by beside them: those are for numbers"

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
    countdown: bool = key(False, doc="instead of a column: number of rows that follow, as the remaining life")

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from _quantity_faults(self)
        if self.text and self.categories:
            yield "text", "expected this or categories, found both"
        sources = [self.column is not None or self.text or bool(self.categories), bool(self.windows), self.countdown]
        if sum(sources) > 1:
            yield "column", "expected one of a column, windows and countdown, found several"
        for index, window in enumerate(self.windows):
            where = f"windows[{index}]"
            if len(window) not in (2, 3):
                yield where, f"expected [from, to] or [from, to, stream], found {len(window)} texts"
                continue
            faults = [*_time_faults(where, window[0], timezone.utc), *_time_faults(where, window[1], timezone.utc)]
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


def _time_faults(name: str, text: str, zone: tzinfo) -> Iterator[tuple[str, str]]:
    try:
        parse_time(text, zone)
    except ValueError as error:
        yield name, str(error)


@dataclass(frozen=True)
class ForecastSection:
    """Targets and horizons of a forecast."""

    targets: list[str] = key(doc="features to predict")
    horizons: list[int] = key(doc="steps ahead", least=1)
    change: bool = key(True, doc="true: predict the change from the newest value; false: predict the value itself")
    season: int | None = key(None, doc="number of steps in a season, for the seasonal-naive baseline", least=2)
    quantiles: list[float] = key(
        [], doc="quantiles to predict for each target, ascending, e.g. 0.1 and 0.9", least=0.001, most=0.999
    )
    intervals: float | None = key(
        None,
        doc="probability that the truth lies in the published interval of a prediction, e.g. 0.9; none: no interval",
        least=0.5,
        most=0.995,
    )

    def faults(self) -> Iterator[tuple[str, str]]:
        for name, listed in (("targets", self.targets), ("horizons", self.horizons)):
            if not listed:
                yield name, "expected at least one"
            elif len(set(listed)) < len(listed):
                yield name, f"expected each once, found {', '.join(map(str, listed))}"
        yield from _quantile_faults(self.quantiles)


@dataclass(frozen=True)
class AnomalySection:
    """The alarm rule of anomaly detection, on the residual of a forecast of the next step."""

    false_alarms_per: Period = key(
        "month",
        doc="the objective: about one false alarm of each stream in this time; training finds the `factor` for it",
    )
    span_steps: int | None = key(
        None,
        least=1,
        most=1_000_000,
        doc="span of the exponential average of the residuals; none: about 45 s if steps are 10 s apart or less, else "
        "4 h, but 10 to 240 steps; where labels tell, half or twice as much",
    )
    settle_steps: int | None = key(
        None,
        least=0,
        most=1_000_000,
        doc="steps after a start or restart that get no score; none: half of `span_steps`, but at least 20",
    )
    calibrate_steps: int = key(
        400,
        least=20,
        most=10_000,
        doc="steps after settle_steps in which a stream is calibrated; the equipment must work normally",
    )
    hold_steps: int | None = key(
        None,
        least=0,
        most=1_000_000,
        doc="an alarm ends after more than so many steps in a row at or below `release`; none: half of `span_steps`",
    )
    factor: float | None = key(
        None,
        least=0.01,
        doc="the alarm threshold is this factor times the quantile; none: found from data by `false_alarms_per`",
    )
    release: float = key(1.0, least=0.01, most=1.0, doc="an alarm ends below this score")
    ceiling: float | None = key(
        1.5, least=1.0, doc="the average is pulled back to this score, so that an alarm ends soon after its event"
    )
    trim: float | None = key(
        6.0,
        least=2.0,
        doc="steps of a stream's calibration further than this many times the median distance are left out of it",
    )
    quantile: float = key(0.99, least=0.5, most=1.0, doc="quantile of the distances during calibration")
    shrinkage: float = key(0.1, least=0.0, most=1.0, doc="shrinkage of the covariance towards its diagonal")
    targets: list[str] = key([], doc="features whose residuals are scored; empty: all numeric features")
    reconstruct: bool = key(
        False, doc="true: score the reconstruction of the same step; false: score the forecast of the next step"
    )
    truth: str | None = key(
        None, doc="label that is 1 where there is an anomaly; for alarm rule and evaluation, never for weights"
    )
    change: bool = key(True, doc="true: forecast the change from the newest value; false: forecast the value itself")

    def alarm(self, interval_s: float | None, span_steps: int | None = None) -> Alarm:
        """The alarm rule before its factor is found. interval_s: between steps, if known.

        span_steps: instead of the section's.
        """
        span = span_steps or self.span_steps or usual_span(interval_s)
        return Alarm(
            span_steps=span,
            settle_steps=max(20, span // 2) if self.settle_steps is None else self.settle_steps,
            calibrate_steps=self.calibrate_steps,
            quantile=self.quantile,
            factor=_UNKNOWN_FACTOR if self.factor is None else self.factor,
            release=self.release,
            shrinkage=self.shrinkage,
            hold_steps=span // 2 if self.hold_steps is None else self.hold_steps,
            ceiling=self.ceiling,
            trim=self.trim,
        )


def usual_span(interval_s: float | None) -> int:
    """The span of the average in steps, for steps that are interval_s apart.

    Faults of fast processes (steps of 10 s or less) show within a minute. Slow ones, such as leaks, go on for hours.
    """
    if interval_s is None:
        return 40
    return round(min(240.0, max(10.0, (45.0 if interval_s <= 10 else 14_400.0) / interval_s)))


@dataclass(frozen=True)
class ClassifySection(Decision):
    """The classes of a classifier."""

    classes: list[str] = key([], doc="values of the label to distinguish")
    ahead: int = key(0, doc="how many steps ahead the label is; 0: this step; 1: the next symbol of a series", least=0)
    balance: bool = key(False, doc="true: rare classes weigh as much as frequent ones")
    rare_chunks: float = key(
        0.0,
        doc="share of the chunks that are drawn from where the rarer classes occur, each class as often as any other",
        least=0,
        most=0.9,
    )
    smoothing: float = key(
        0.0, doc="label smoothing: share of the probability that is spread over all classes", least=0, most=0.5
    )


@dataclass(frozen=True)
class RegressSection:
    """The target of an estimate: a label of the recording that no sensor on the device measures."""

    target: str = key(doc="label of the recording to estimate")
    unit: str = key("", doc="physical unit of the target, for display only")
    cap: float | None = key(None, doc="a larger target is set to this value", least=1e-9)
    quantiles: list[float] = key(
        [], doc="quantiles to estimate for the target, ascending, e.g. 0.1 and 0.9", least=0.001, most=0.999
    )
    intervals: float | None = key(
        None,
        doc="probability that the truth lies in the published interval of a prediction, e.g. 0.9; none: no interval",
        least=0.5,
        most=0.995,
    )

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from _quantile_faults(self.quantiles)


def _quantile_faults(quantiles: list[float]) -> Iterator[tuple[str, str]]:
    if sorted(set(quantiles)) != quantiles:
        yield "quantiles", f"expected each once and the least first, found {', '.join(map(str, quantiles))}"


@dataclass(frozen=True)
class AugmentSection:
    """Random changes to the training data, so that the network learns to ignore such differences."""

    noise: float = key(0.0, doc="random noise on the inputs, in standard deviations of each input", least=0, most=10)
    crop: bool = key(False, doc="true: start each stream at a random step")
    scale: float = key(
        0.0, doc="multiply each run by a random factor between 1 - scale and 1 + scale", least=0, most=0.9
    )
    warp: float = key(
        0.0, doc="change the speed of each run by a random factor between 1 - warp and 1 + warp", least=0, most=0.9
    )
    rotate_degrees: float = key(
        0.0, doc="largest random rotation of each group of axes, new for each run", least=0, most=180
    )
    axes: list[list[str]] = key([], doc="groups of three features that are the axes of one sensor")
    sensor_dropout: float = key(
        0.0,
        doc="share of the time in which each feature with a mask is dead, in blocks; not the targets",
        least=0,
        most=0.8,
    )

    def faults(self) -> Iterator[tuple[str, str]]:
        for group in self.axes:
            if len(group) != 3:
                yield "axes", f"expected groups of three features, found {', '.join(group)}"
        if self.rotate_degrees and not self.axes:
            yield "axes", "missing (groups of three features, where rotate_degrees is above 0)"


@dataclass(frozen=True)
class SplitSection:
    """Shares for training and validation; the rest is the test part. By time, the oldest steps come first.

    By beginning, the shares are those of each stream's first `beginning_steps`, and all later steps are the test part.
    This suits machines that work normally when their recording starts, each at an operating point of its own.
    """

    train: float = key(0.6, doc="share of the training part, which gives weights and statistics", least=0.01, most=0.99)
    validation: float = key(
        0.2, doc="share of the validation part, which decides on the best weights and ridge", least=0.01, most=0.98
    )
    by: Literal["time", "stream", "group", "beginning"] = key(
        "time",
        doc=(
            "time: cut all streams at the same time; stream, group: put each into one part; beginning: "
            "cut each stream after its first steps"
        ),
    )
    beginning_steps: int | None = key(None, doc='by = "beginning": steps of each stream before its test part', least=2)
    validation_from: str | None = key(None, doc="time at which the validation part begins, instead of shares")
    test_from: str | None = key(None, doc="time at which the test part begins, instead of shares")
    leave_out: list[str] = key(
        [], doc="streams (or groups, if there are any) for testing only; patterns like valve2-* are allowed"
    )
    leave_out_time: Literal["test", "all"] = key(
        "test", doc='by = "time": test them on the time of the test part, or on all of their time'
    )
    validate_on: list[str] = key([], doc="streams or groups of the validation part; empty: drawn at random")
    seed: int = key(1, doc='by = "stream" or "group": random seed of the draw', least=0, most=2**31 - 1)

    def faults(self) -> Iterator[tuple[str, str]]:
        both = self.train + self.validation
        whole = bool(self.leave_out) or self.by == "beginning"  # the test part is not part of the shares
        if both > (1.0 + 1e-9 if whole else 0.99) and self.test_from is None:
            most, why = ("1", "more than there is") if whole else ("0.99", "nothing is left to test on")
            yield "validation", f"expected train + validation <= {most}, found {both:g}: {why}"
        if (self.validation_from is None) != (self.test_from is None):
            missing = "validation_from" if self.validation_from is None else "test_from"
            if not (missing == "test_from" and self.leave_out):
                yield missing, "expected both validation_from and test_from, found one"
        if self.by != "time":
            for name in ("validation_from", "test_from"):
                if getattr(self, name) is not None:
                    yield name, f'expected by = "time" beside it, found "{self.by}"'
        if self.by in ("time", "beginning") and self.validate_on:
            yield "validate_on", f'expected by = "stream" or "group" beside it, found "{self.by}"'
        if self.by == "beginning" and self.beginning_steps is None:
            yield "beginning_steps", 'missing (steps of each stream before its test part, where by = "beginning")'
        if self.by != "beginning" and self.beginning_steps is not None:
            yield "beginning_steps", f'expected by = "beginning" beside it, found "{self.by}"'
        moments = []
        for name in ("validation_from", "test_from"):
            text = getattr(self, name)
            if text is not None:
                faults = list(_time_faults(name, text, timezone.utc))
                yield from faults
                moments += [] if faults else [parse_time(text)]
        if len(moments) == 2 and moments[0] >= moments[1]:
            yield "test_from", f'expected a time after validation_from, found "{self.test_from}"'


CandidateName = Literal["linear", "network", "both"]


@dataclass(frozen=True)
class ModelSection:
    """The network."""

    cell: Cell = key("lstm", doc="recurrent cell; none: a linear path alone, without recurrent layers")
    hidden: int = key(32, doc="units per layer", least=1, most=1024)
    layers: int = key(1, doc="recurrent layers", least=1, most=3)
    dropout: float = key(0.0, doc="share of a layer's outputs that is dropped in training", least=0, most=0.95)
    recurrent_dropout: float = key(
        0.0, doc="share of the hidden-to-hidden weights that is dropped in training", least=0, most=0.95
    )
    candidates: list[CandidateName] = key(
        [],
        doc="networks that the validation part chooses from: linear (a linear path alone), network (the layers alone), "
        "both; empty: all that the other keys leave open",
    )
    highway: int | None = key(
        None,
        doc="earlier samples in a linear path beside the recurrent layers; 0: no such path; none: the validation part "
        "chooses",
        least=0,
        most=1024,
    )
    linear: bool = key(False, doc="true: a linear path, even if it sees the newest sample alone (highway = 0)")
    level_free: bool = key(True, doc="true: the linear path takes its samples relative to the newest sample")
    learned_start: bool = key(False, doc="true: the initial state is learned; false: it is zero")
    most_parameters: int = key(20_000, doc="largest number of parameters; a larger network is refused", least=1)

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.cell == "none" and set(self.candidates) - {"linear"}:
            yield "candidates", f'expected ["linear"] with the cell "none", found {self.candidates}'
        if len(set(self.candidates)) < len(self.candidates):
            yield "candidates", f"expected each once, found {self.candidates}"
        if self.has_highway and self.cell != "none" and "network" in self.candidates:
            yield "candidates", f'expected no "network" beside a highway, found {self.candidates}'
        if self.highway == 0 and not self.linear and self.cell != "none" and "both" in self.candidates:
            yield "candidates", f'expected no "both" with highway = 0, found {self.candidates}'

    @property
    def depth(self) -> int:
        """Recurrent layers: 0 where the cell is none."""
        return 0 if self.cell == "none" else self.layers

    @property
    def units(self) -> int:
        """Units per layer: 0 where the cell is none."""
        return 0 if self.cell == "none" else self.hidden

    @property
    def has_highway(self) -> bool:
        """Whether there is a linear path."""
        return self.linear or bool(self.highway) or self.cell == "none"

    @property
    def earlier(self) -> int:
        """Earlier samples in the linear path; a network without layers keeps one at least, to have a state."""
        return max(1, self.highway or 0) if self.cell == "none" else self.highway or 0

    @property
    def taps(self) -> int:
        """Samples that each input of the linear path has a weight for: without levels, the earlier ones alone."""
        if not self.has_highway:
            return 0
        return self.earlier if self.level_free and self.earlier else self.earlier + 1


@dataclass(frozen=True)
class FitSection:
    """The training of the weights."""

    updates: int = key(600, doc="gradient steps", least=1)
    learning_rate: float = key(3e-3, doc="highest learning rate", least=1e-7, most=1)
    schedule: Literal["one-cycle", "cosine"] = key(
        "one-cycle", doc="one-cycle: it rises over a tenth of the updates, then falls; cosine: it falls throughout"
    )
    weight_decay: float = key(1e-4, doc="weight decay of AdamW", least=0, most=10)
    method: Literal["carried", "windows"] = key(
        "carried", doc="carried: the state is carried from chunk to chunk; windows: it starts again in each window"
    )
    segments: int = key(16, doc="segments (or windows) in one update", least=1, most=4096)
    chunk: int = key(96, doc="steps of truncated backpropagation through time (carried)", least=1)
    window: int | None = key(None, doc="steps in a window (windows)", least=1)
    clip: float = key(1.0, doc="largest norm of the gradient", least=1e-6)
    loss: Literal["mse", "huber"] = key("mse", doc="loss of numeric outputs; huber gives outliers less weight")
    refit: bool = key(
        False, doc="true: after the best update is found, train again on the training and validation part together"
    )
    seed: int = key(1, doc="random seed; the same seed gives the same weights", least=0, most=2**31 - 1)

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.method == "windows" and self.window is None:
            yield "window", 'missing (steps in a window, where method = "windows")'
        if self.method == "carried" and self.window is not None:
            yield "window", 'expected none where method = "carried": a carried state has no window'


@dataclass(frozen=True)
class ReportSection:
    """What the report shows beside the model and its baselines."""

    opponents: bool = key(
        False,
        doc="true: gradient-boosted trees and exponential smoothing on the same recording, which no device runs; needs "
        "the extra opponents",
    )


@dataclass(frozen=True)
class Range:
    """The values that `edge-lstm tune` may give a key: those of a list, or numbers between two bounds."""

    choices: list[float] = key([], doc="numbers to choose from")
    texts: list[str] = key([], doc="texts to choose from")
    least: float | None = key(None, doc="smallest number")
    most: float | None = key(None, doc="largest number")
    log: bool = key(False, doc="true: search on a logarithmic scale")

    def faults(self) -> Iterator[tuple[str, str]]:
        between = self.least is not None or self.most is not None
        if bool(self.choices) + bool(self.texts) + between != 1:
            yield "choices", "expected one of choices, texts, and least with most"
        elif between and (self.least is None or self.most is None or self.least >= self.most):
            yield "least", f"expected least < most, found {self.least} and {self.most}"
        elif between and self.log and self.least is not None and self.least <= 0:
            yield "least", f"expected a number above 0 where log = true, found {self.least:g}"
