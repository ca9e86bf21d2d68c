"""The typed mapping of forecasts: where the points of one quantity are in a message."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge_lstm.foundation.config import key
from edge_lstm.foundation.times.units import TimeUnit
from edge_lstm.messages.mapping import InputMapping, ValueMapping
from edge_lstm.messages.mapping_faults import path_faults
from edge_lstm.messages.topics import STREAM, part_names, topic_faults


@dataclass(frozen=True)
class ForecastMapping:
    """Where the forecast of one quantity is in a JSON message."""

    topic: str | None = key(
        None, doc="topic pattern; without {stream} the forecast is for all streams; none: the one in the bundle"
    )
    points: str | None = key(
        None, doc="path of the list of points, or of the object with the lists of times and values; none: the payload"
    )
    time: str = key("time", doc="path of a point's time, of the list of times, or of the time of the first value")
    value: str | None = key(
        None, doc='path of a point\'s value, or of the list of values; none: "value", "values" or the quantity\'s name'
    )
    interval_s: float | None = key(
        None, least=1e-6, doc="seconds between two values, if only the first has a time; none: the bundle's interval"
    )
    issued: str | None = key(
        None,
        doc="path of the time at which the forecast was made; a late reading then gets the forecast of its own time; "
        "none: the newest forecast is for every reading",
    )
    time_format: str | list[str] | None = key(
        None, doc="format of times that are not ISO 8601, or a list of formats, as in [input]"
    )
    time_unit: TimeUnit | None = key(None, doc="unit of times that are numbers; none: the size of the number shows it")
    timezone: str = key("UTC", doc="time zone of times without a zone, like Europe/Berlin")
    scale: float = key(1.0, doc="factor that converts the number to the bundle's unit")
    offset: float = key(0.0, doc="added after the multiplication by scale")
    unit: str | None = key(
        None, doc='unit that may follow the number, like "°C"; "strip": any; none: the bundle\'s, without scale, offset'
    )
    least: float | None = key(None, doc="a smaller value, in the bundle's unit, counts as missing")
    most: float | None = key(None, doc="a larger value, in the bundle's unit, counts as missing")
    ignore: list[float] = key([], doc="raw numbers that mean a missing value")
    words: dict[str, float] = key({}, doc="numbers for texts, like words = {low = 0, high = 1}")
    max_bytes: int = key(262_144, least=1, doc="a longer payload is refused and not decoded")

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.topic is not None:
            yield from forecast_topic_faults(self.topic)
        for name in ("points", "value", "issued"):
            yield from path_faults(name, getattr(self, name))
        times = ("time", "time_format", "time_unit", "timezone")
        yield from (fault for fault in self.as_input("value").faults() if fault[0] in times)
        yield from self._source.faults()

    def as_input(self, quantity: str) -> InputMapping:
        """The same as an input mapping, for the parsers of times and of the quantity's values."""
        return InputMapping(
            time=self.time,
            time_format=self.time_format,
            time_unit=self.time_unit,
            timezone=self.timezone,
            values={quantity: self._source},
        )

    @property
    def _source(self) -> ValueMapping:
        return ValueMapping(
            self.value, None, self.scale, self.offset, self.unit, self.least, self.most, self.ignore, self.words
        )


def forecast_topic_faults(topic: str) -> Iterator[tuple[str, str]]:
    """The faults of a topic pattern of forecasts: {stream} is its only part."""
    yield from topic_faults(topic, wildcards=True)
    if others := sorted({f"{{{name}}}" for name in part_names(topic)} - {STREAM}):
        yield "topic", f'expected no other part than {STREAM}, found {others[0]} in "{topic}"'
