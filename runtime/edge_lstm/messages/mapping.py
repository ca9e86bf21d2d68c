"""The typed mapping: where a reading is in a message, and the topic and form of predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timezone, tzinfo
from typing import Any, Literal

from edge_lstm.foundation.config import key
from edge_lstm.foundation.times.units import TimeUnit
from edge_lstm.messages.formats import senml
from edge_lstm.messages.formats.json_path import Path
from edge_lstm.messages.mapping_faults import input_faults, path_faults
from edge_lstm.messages.presets import preset
from edge_lstm.messages.topics import STREAM, filters_of, topic_faults

_MOST_PROPERTY = 1000  # characters

PresetName = Literal[
    "esphome",
    "homeassistant",
    "kepware",
    "rtl_433",
    "shelly",
    "shelly-gen1",
    "tasmota",
    "telegraf",
    "zigbee2mqtt",
]


@dataclass(frozen=True)
class ValueMapping:
    """Where one value is in a message, and what its numbers mean."""

    path: str | None = key(
        None,
        doc="path of the value, or its name if {value} or value_name names the values; none: the feature's name",
    )
    topic: str | None = key(None, doc="topic pattern of this value, if it has its own topic")
    scale: float = key(1.0, doc="factor that converts the number to the bundle's unit")
    offset: float = key(0.0, doc="added after the multiplication by scale")
    unit: str | None = key(
        None,
        doc='unit that may follow the number, like "bar"; "strip": any; none: the bundle\'s, without scale and offset',
    )
    least: float | None = key(None, doc="a smaller value, in the bundle's unit, counts as missing")
    most: float | None = key(None, doc="a larger value, in the bundle's unit, counts as missing")
    ignore: list[float] = key([], doc="raw numbers that mean a missing value")
    words: dict[str, float] = key(
        {}, doc="numbers for texts, like words = {dry = 0, wet = 1}; upper and lower case are the same"
    )

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.topic is not None:
            yield from path_faults("path", self.path)
            yield from topic_faults(self.topic, wildcards=True)
            if "{value}" in self.topic:
                yield "topic", f'expected a topic of one value, so without {{value}}, found "{self.topic}"'
        if self.scale == 0:
            yield "scale", "expected a number other than 0, found 0"
        if self.least is not None and self.most is not None and self.least > self.most:
            yield "least", f"expected at most `most` ({self.most}), found {self.least}"


@dataclass(frozen=True)
class Join:
    """Which messages with some of the values are parts of one sample."""

    within_s: float = key(
        least=0, most=86_400, doc="how far apart their times may be; less than the time between two samples"
    )


@dataclass(frozen=True)
class InputMapping:
    """Where a reading is in a message.

    The keys of a preset apply only if the mapping is read from a table (`config.from_mapping`, a service.toml).
    """

    topic: str | list[str] = key(
        "sensors/{stream}",
        doc="topic pattern, or a list of patterns; {stream}, {value} or any {name} matches one level or part of one, "
        "{stream...} one level or more",
    )
    ignore_topic: str | list[str] = key(
        [], doc="topic pattern, or a list of patterns, of messages that are no readings, though `topic` matches them"
    )
    preset: PresetName | None = key(None, doc="device software; the preset sets the keys that this table leaves out")
    stream: str | None = key(
        None,
        doc="path of the stream's name in the payload, or a template like {model}-{id} of paths and of parts of the "
        "topic; none: {stream} in the topic",
    )
    streams: str | list[str] = key(
        [], doc='pattern of the streams\' names that are allowed, like "pump-*", or a list of patterns; none: any name'
    )
    name: str | None = key(None, doc="fixed name of the only stream, or a template of parts of the topic")
    format: Literal["json", "text", "csv", "msgpack", "senml", "influx"] = key(
        "json", doc="format of the payload; senml: RFC 8428; influx: InfluxDB line protocol"
    )
    encoding: Literal["utf-8", "cp1252"] = key("utf-8", doc="encoding of the text in a payload")
    columns: list[str] = key([], doc="column names of a CSV payload, in order")
    separator: str = key(",", doc="column separator of a CSV payload")
    readings: str | None = key(None, doc="path of the reading, or of a list of readings, in the payload")
    value_name: str | None = key(
        None, doc='path of a value\'s name, if the payload is a list of named values like {"id": "p", "v": 4.1}'
    )
    name_pattern: str | list[str] = key(
        [],
        doc="pattern of such names like {stream}.{value}.PV, or a list of patterns; without value_name: of the keys of "
        "an object",
    )
    value: str | None = key(
        None,
        doc='path of the value, if the topic or the payload names the feature; none: the whole payload, or "value" '
        "beside value_name",
    )
    quality: str | None = key(
        None, doc="path of the quality of a named value; it is missing if this is false, Bad or an OPC code below 192"
    )
    values: dict[str, str | ValueMapping] = key(
        {},
        doc="feature = path of its value, or a table; a feature that is not listed is read from the key with its name",
    )
    join: bool | Join = key(
        False, doc="true: a message may hold only some of the values of a sample; or a table, `join = {within_s = 2}`"
    )
    time_from: Literal["payload", "property", "arrival", "payload-or-arrival"] = key(
        "payload",
        doc="source of the time: payload, MQTT 5 user property, arrival, or arrival if the payload has no time",
    )
    time: str = key("time", doc="path (or name of the user property) of the time: ISO 8601, or a number since 1970")
    time_format: str | list[str] | None = key(
        None, doc='format of times that are not ISO 8601, like "%d.%m.%Y %H:%M:%S", or a list of formats'
    )
    time_unit: TimeUnit | None = key(None, doc="unit of times that are numbers; none: the size of the number shows it")
    timezone: str = key("UTC", doc="time zone of times without a zone, like Europe/Berlin")
    sequence: str | None = key(
        None, doc="path (or name of the user property) of a counter or id, unique within the stream"
    )
    sequence_from: Literal["payload", "property"] = key(
        "payload", doc="source of the sequence: payload or MQTT 5 user property"
    )
    unit: str | None = key(None, doc='unit that may follow any number, like "bar"; "strip": any unit')
    ignore: list[float] = key([], doc="raw numbers that mean a missing value, in any feature")
    missing: list[str] = key(
        [], doc="texts that mean a missing value, besides unavailable, unknown, nan and similar ones"
    )
    max_bytes: int = key(262_144, least=1, doc="a longer payload is refused and not decoded")
    decimal: Literal["point", "comma"] = key("point", doc="decimal separator of numbers that are written as texts")

    @staticmethod
    def completed(data: Mapping[str, Any]) -> Mapping[str, Any]:
        """The table, with the keys of its preset that are not set."""
        name = data.get("preset")
        base = preset(name) if isinstance(name, str) else {}
        values = data.get("values", {})
        if isinstance(values, Mapping):
            values = {**base.get("values", {}), **values}
        return {**base, **data, "values": values}

    @property
    def join_within_s(self) -> float | None:
        """How far apart the times of a sample's parts may be, if the mapping says so."""
        return self.join.within_s if isinstance(self.join, Join) else None

    @property
    def topics(self) -> list[str]:
        """The topic patterns of all values without a topic of their own."""
        return [self.topic] if isinstance(self.topic, str) else self.topic

    @property
    def ignored_topics(self) -> list[str]:
        """The patterns of topics that hold no readings."""
        return [self.ignore_topic] if isinstance(self.ignore_topic, str) else self.ignore_topic

    @property
    def allowed_streams(self) -> list[str]:
        """The patterns of names that streams may have; empty: any name."""
        return [self.streams] if isinstance(self.streams, str) else self.streams

    @property
    def names_values(self) -> bool:
        """Whether each value in a payload says its own name."""
        return self.value_name is not None or bool(self.name_pattern) or self.format == "senml"

    @property
    def name_patterns(self) -> list[str]:
        """The patterns of names of values."""
        return [self.name_pattern] if isinstance(self.name_pattern, str) else self.name_pattern

    @property
    def time_formats(self) -> list[str]:
        """The formats of times, in the order in which they are tried."""
        return [self.time_format] if isinstance(self.time_format, str) else self.time_format or []

    @property
    def time_path(self) -> Path:
        """The path of the time in the payload."""
        return Path.of_key(senml.TIME) if self.format == "senml" else Path.parse(self.time)

    @property
    def topic_filters(self) -> list[str]:
        """The MQTT topic filters that cover all values."""
        own = [value.topic for value in self.values.values() if isinstance(value, ValueMapping) and value.topic]
        return filters_of([*self.topics, *own])

    @property
    def needs_mqtt_5(self) -> list[str]:
        """The set keys that need MQTT 5."""
        by_property = self.sequence is not None and self.sequence_from == "property"
        return ["time_from"] * (self.time_from == "property") + ["sequence_from"] * by_property

    @property
    def properties_read(self) -> frozenset[str]:
        """The names of the user properties that are read."""
        time = {self.time} if self.time_from == "property" else set()
        sequence = {self.sequence} if self.sequence is not None and self.sequence_from == "property" else set()
        return frozenset(time | sequence)

    def zone(self) -> tzinfo:
        """The zone of times that name none. Raises what zoneinfo raises if this machine does not know it."""
        if self.timezone == "UTC":
            return timezone.utc
        import zoneinfo  # here: most devices use UTC, and save its memory

        return zoneinfo.ZoneInfo(self.timezone)

    def source(self, feature: str) -> ValueMapping:
        """Where a feature's value is."""
        value = self.values.get(feature, ValueMapping())
        return ValueMapping(value) if isinstance(value, str) else value

    def faults(self) -> Iterator[tuple[str, str]]:
        return input_faults(self)


@dataclass(frozen=True)
class OutputMapping:
    """The topic and form of predictions."""

    topic: str = key("predictions/{stream}", doc="topic of the predictions; {stream} is the stream's name")
    format: Literal["nested", "flat", "msgpack"] = key(
        "nested", doc="format of the payload: nested JSON, flat JSON, or MessagePack"
    )
    publish_when: Literal["every", "change", "alarm"] = key(
        "every",
        doc="every: each step; change: a value moved by more than its deadband; alarm: an alarm or label changed",
    )
    deadband: dict[str, float] = key(
        {}, doc="target = largest change that is not published, in the target's unit", least=0
    )
    retain: bool = key(False, doc="true: the broker keeps each stream's last prediction for later subscribers")
    expiry_s: int | None = key(None, least=1, most=4_294_967_295, doc="MQTT 5 message expiry, seconds")
    content_type: str | None = key(None, doc='MQTT 5 content type, like "application/json"')
    user_properties: dict[str, str] = key({}, doc='MQTT 5 user properties, like {site = "north"}')

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from topic_faults(self.topic, wildcards=False)
        if STREAM not in self.topic:
            yield "topic", f'expected {STREAM} once, so that streams do not mix, found "{self.topic}"'
        if self.deadband and self.publish_when != "change":
            yield "deadband", f'expected with publish_when = "change" only, found with "{self.publish_when}"'
        for where, text in self._texts():
            # a broker would close the connection, and the outbox would send the message again
            if not 0 < len(text) <= _MOST_PROPERTY or not text.isprintable():
                yield where, f"expected a printable text of 1 to {_MOST_PROPERTY} characters, found {text[:60]!r}"

    def _texts(self) -> Iterator[tuple[str, str]]:
        if self.content_type is not None:
            yield "content_type", self.content_type
        for name, text in self.user_properties.items():
            yield "user_properties", name
            yield f"user_properties.{name}", text

    @property
    def needs_mqtt_5(self) -> list[str]:
        """The set keys that need MQTT 5."""
        return [name for name in ("expiry_s", "content_type", "user_properties") if getattr(self, name)]
