"""The typed mapping: where a reading is in a message, and the topic and form of predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timezone, tzinfo
from typing import Any, Literal

from edge_lstm.foundation.config import key
from edge_lstm.messages.json_path import Path
from edge_lstm.messages.presets import preset
from edge_lstm.messages.topics import STREAM, fill_template, filters_of, name_fault, part_names, topic_faults

_MOST_PROPERTY = 1000  # characters

PresetName = Literal["esphome", "homeassistant", "shelly", "shelly-gen1", "tasmota", "zigbee2mqtt"]


@dataclass(frozen=True)
class ValueMapping:
    """Where one value is in a message, and what its numbers mean."""

    path: str | None = key(None, doc="path of the value; none: a key with the feature's name")
    topic: str | None = key(None, doc="topic pattern of this value, if it has its own topic")
    scale: float = key(1.0, doc="factor that converts the number to the bundle's unit")
    offset: float = key(0.0, doc="added after the multiplication by scale")
    least: float | None = key(None, doc="a smaller value, in the bundle's unit, counts as missing")
    most: float | None = key(None, doc="a larger value, in the bundle's unit, counts as missing")
    ignore: list[float] = key([], doc="raw numbers that mean a missing value")
    words: dict[str, float] = key(
        {}, doc="numbers for texts, like words = {dry = 0, wet = 1}; upper and lower case are the same"
    )

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from _path_faults("path", self.path)
        if self.topic is not None:
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
        doc="topic pattern, or a list of patterns; {stream}, {value} or any {name} matches one level or part of one",
    )
    preset: PresetName | None = key(None, doc="device software; the preset sets the keys that this table leaves out")
    name: str | None = key(
        None, doc="stream name from the topic's parts, like {line}-{stream}, or a fixed name; none: {stream}"
    )
    stream: str | None = key(None, doc="path of the stream's name in the payload, if it is not in the topic")
    format: Literal["json", "text", "csv", "msgpack"] = key("json", doc="format of the payload")
    columns: list[str] = key([], doc="column names of a CSV payload, in order")
    separator: str = key(",", doc="column separator of a CSV payload")
    readings: str | None = key(None, doc="path of the reading, or of a list of readings, in the payload")
    value: str | None = key(
        None, doc="path of the value in the payload, if {value} in the topic names the feature; none: the whole payload"
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
    timezone: str = key("UTC", doc="time zone of times without a zone, like Europe/Berlin")
    sequence: str | None = key(
        None, doc="path (or name of the user property) of a counter or id, unique within the stream"
    )
    sequence_from: Literal["payload", "property"] = key(
        "payload", doc="source of the sequence: payload or MQTT 5 user property"
    )
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
    def topic_filters(self) -> list[str]:
        """The MQTT topic filters that cover all values."""
        own = [value.topic for value in self.values.values() if isinstance(value, ValueMapping) and value.topic]
        return filters_of([*self.topics, *own])

    @property
    def needs_mqtt_5(self) -> list[str]:
        """The set keys that need MQTT 5."""
        by_property = self.sequence is not None and self.sequence_from == "property"
        return ["time_from"] * (self.time_from == "property") + ["sequence_from"] * by_property

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
        for name in ("stream", "readings", "value"):
            yield from _path_faults(name, getattr(self, name))
        try:
            self.zone()
        except (KeyError, ValueError, OSError):
            expected = "expected a zone of this machine's zone database, like Europe/Berlin (pip install tzdata)"
            yield "timezone", f'{expected}, found "{self.timezone}"'
        for topic in self.topics:
            yield from topic_faults(topic, wildcards=True)
        if self.time_from in ("payload", "payload-or-arrival"):
            yield from _path_faults("time", self.time)
        if self.sequence_from == "payload":
            yield from _path_faults("sequence", self.sequence)
        yield from self._format_faults()
        for name, value in self.values.items():
            if isinstance(value, str):
                yield from _path_faults(f"values.{name}", value)
        yield from self._name_faults()

    def _name_faults(self) -> Iterator[tuple[str, str]]:
        patterns = [("topic", topic) for topic in self.topics]
        for name, value in self.values.items():
            if isinstance(value, ValueMapping) and value.topic is not None:
                patterns.append((f"values.{name}.topic", value.topic))
        if not patterns:
            yield "topic", "expected at least one, or values that have a topic of their own, found none"
        in_name = part_names(STREAM if self.name is None else self.name)
        needed = set(in_name) - ({"stream"} if self.stream is not None else set())
        for where, topic in patterns:
            parts = set(part_names(topic))
            if self.stream is not None and "stream" in parts:
                yield where, f'expected {STREAM} in the topic or stream = "{self.stream}", found both in "{topic}"'
            if needed - parts:
                lacking = ", ".join(f"{{{part}}}" for part in sorted(needed - parts))
                otherwise = ' (or stream = "path")' if lacking == STREAM else ""
                yield where, f'expected {lacking} in the topic{otherwise}, found "{topic}"'
        if self.stream is not None and "stream" not in in_name:
            yield "name", f'expected {STREAM} in it, since stream = "{self.stream}", found "{self.name}"'
        if self.name is not None and (fault := name_fault(fill_template(self.name, dict.fromkeys(in_name, "x")))):
            yield "name", f"expected {fault}"

    def _format_faults(self) -> Iterator[tuple[str, str]]:
        if (self.format == "csv") != bool(self.columns):
            yield "columns", f'expected with format = "csv", and only there, found {self.columns}'
        if self.format == "csv" and len(set(self.columns)) < len(self.columns):
            yield "columns", f"expected different names, found {', '.join(self.columns)}"
        if len(self.separator) != 1 or self.separator in '"\r\n\0':
            yield "separator", f'expected one sign, found "{self.separator}"'
        if self.format == "text":
            for name in ("stream", "readings", "value"):
                if getattr(self, name) is not None:
                    yield name, "expected none, since a text has no parts: the topic says what it is"
            if self.time_from.startswith("payload"):
                expected = 'expected "arrival" or "property", since a text holds no time'
                yield "time_from", f'{expected}, found "{self.time_from}"'
            if self.sequence is not None and self.sequence_from == "payload":
                yield "sequence_from", 'expected "property", since a text has no parts, found "payload"'


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


def _path_faults(name: str, text: str | None) -> Iterator[tuple[str, str]]:
    if text is not None:
        try:
            Path.parse(text)
        except ValueError as error:
            yield name, str(error)
