"""What a broker carries: for each topic, its messages by count, time, keys and last values. Memory is bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_lstm.foundation.times.text import CLOCK_UNSET_BEFORE, parse_time
from edge_lstm.messages.discovery.found_keys import numbers_of
from edge_lstm.messages.formats.payloads import PayloadError, parse_json, parse_text

_MOST_TOPICS = 5000
_MOST_PARSED = 50  # messages of a topic; a fast one shows its keys in the first
_TIME_NAMES = (
    "time",
    "timestamp",
    "ts",
    "t",
    "datetime",
    "date",
    "last_seen",
    "Time",
    "DateTime",
    "_time",
    "measured_at",
)
_A_DAY_S = 86_400.0


@dataclass
class ObservedTopic:
    """One topic."""

    topic: str
    live: int = 0  # messages that came while we listened
    retained: int = 0
    first: float = 0.0  # arrival of the first and the last live message, seconds
    last: float = 0.0
    is_text: bool = False  # the payload is one number or switch, and no object
    keys: dict[str, float] = field(default_factory=dict)  # path and last number
    texts: dict[str, str] = field(default_factory=dict)  # key and last text or whole number
    time_key: str | None = None

    @property
    def interval_s(self) -> float | None:
        """The mean time between two messages; None with fewer than two."""
        return (self.last - self.first) / (self.live - 1) if self.live > 1 else None


class ObservedTopics:
    """Collects messages. `units` are those that devices or Home Assistant announce, by (topic, key)."""

    def __init__(self) -> None:
        self.topics: dict[str, ObservedTopic] = {}
        self.units: dict[tuple[str, str], str] = {}
        self.messages = 0
        self.unread = 0  # messages of topics beyond the limit

    def add(self, topic: str, payload: bytes, retained: bool, now: float) -> None:
        """Add a message; `now` in seconds since 1970."""
        self.messages += 1
        if topic.startswith("$") or not payload:
            return
        seen = self.topics.get(topic)
        if seen is None:
            if len(self.topics) >= _MOST_TOPICS:
                self.unread += 1
                return
            seen = self.topics[topic] = ObservedTopic(topic)
        if retained:
            seen.retained += 1
        else:
            seen.first = seen.first if seen.live else now
            seen.live, seen.last = seen.live + 1, now
        if seen.live + seen.retained <= _MOST_PARSED:
            self._parse(seen, payload, now)

    def _parse(self, seen: ObservedTopic, payload: bytes, now: float) -> None:
        try:
            facts = parse_json(payload)
        except PayloadError:
            try:
                facts = parse_text(payload).strip()
            except PayloadError:
                return
        if isinstance(facts, list) and facts and isinstance(facts[0], dict):
            _note_announced_devices(self.units, seen.topic, facts)
            facts = facts[0]
        if not isinstance(facts, dict):
            number = numbers_of({"": facts}, texts=True).get("")
            if number is not None:
                seen.is_text, seen.keys = True, {"": number}
            return
        _note_announced_entity(self.units, facts)
        seen.is_text = False
        seen.keys.update(numbers_of(facts))
        seen.texts.update(_texts(facts))
        seen.time_key = seen.time_key or _time_key(facts, now)
        seen.keys.pop(seen.time_key or "", None)


def _texts(facts: Mapping[Any, Any]) -> dict[str, str]:
    """The texts and the whole numbers in an object, which may name a device."""
    names = {key: value for key, value in facts.items() if isinstance(key, str) and type(value) in (str, int)}
    return {key: str(value) for key, value in names.items()}


def _time_key(facts: Mapping[Any, Any], now: float) -> str | None:
    """The key of a plausible time: after 2023, and at most a day ahead."""
    for key in _TIME_NAMES:
        value = facts.get(key)
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            try:
                seconds = parse_time(value)
            except ValueError:
                continue
            if CLOCK_UNSET_BEFORE <= seconds <= now + _A_DAY_S:
                return key
    return None


def _note_announced_entity(units: dict[tuple[str, str], str], facts: Mapping[Any, Any]) -> None:
    """The unit in a Home Assistant discovery message: `state_topic`, `value_template`, `unit_of_measurement`."""
    topic = facts.get("state_topic", facts.get("stat_t"))
    unit = facts.get("unit_of_measurement", facts.get("unit_of_meas"))
    template = facts.get("value_template", facts.get("val_tpl", ""))
    if isinstance(topic, str) and isinstance(unit, str) and isinstance(template, str):
        key = template.partition("value_json")[2].partition("}}")[0].strip().strip(".").partition("|")[0].strip()
        units[topic, key.strip("[]'\" ")] = unit


def _note_announced_devices(units: dict[tuple[str, str], str], topic: str, devices: list[Any]) -> None:
    """The units in Zigbee2MQTT's list of devices, `.../bridge/devices`: by friendly name and property."""
    base, _, rest = topic.partition("/bridge/")
    if rest != "devices":
        return
    for device in devices:
        if not isinstance(device, dict) or not isinstance(device.get("definition"), dict):
            continue
        exposes = device["definition"].get("exposes")
        for one in exposes if isinstance(exposes, list) else []:
            if isinstance(one, dict) and isinstance(one.get("unit"), str) and isinstance(one.get("property"), str):
                units[f"{base}/{device.get('friendly_name')}", one["property"]] = one["unit"]
