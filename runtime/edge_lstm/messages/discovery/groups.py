"""Groups the topics of a broker into devices, and proposes the `[input]` mapping of each group.

The topics of a group have the same number of levels and differ in some. The level that names the device becomes
{stream}; if each topic holds one value, the level that names it becomes {value}.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_lstm.messages.discovery.observed_topics import ObservedTopic, ObservedTopics
from edge_lstm.messages.presets import preset, preset_names
from edge_lstm.messages.topics import TopicPattern, name_fault

_OWN = ("edge-lstm/", "predictions/")  # topics that this product publishes by default
_NO_READINGS = ("config", "availability", "LWT", "set", "get", "cmnd", "command", "bridge", "status")
_ID_KEYS = ("device", "device_id", "deviceId", "id", "sensor", "sensor_id", "serial", "mac", "name", "node", "hostname")
_QUANTITIES = re.compile(
    "temp|hum|press|power|energy|volt|current|amp|flow|level|co2|lux|illum|speed|state|contact|motion|battery|rssi|pm"
    "|torque|vibration|distance|weight|noise|rain|wind|freq|value",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Key:
    """One value of a group."""

    name: str
    unit: str  # empty: unknown
    example: float
    devices: int


@dataclass(frozen=True)
class Group:
    """Topics that one mapping reads."""

    mapping: Mapping[str, Any]  # the keys of [input]
    streams: Sequence[str]
    keys: Sequence[Key]
    topics: int
    messages: int  # while we listened
    interval_s: float | None  # the usual time between two messages of a device


@dataclass
class _Members:
    """The topics of a group, and the device and the value that each one names."""

    mapping: dict[str, Any]
    names: dict[str, str] = field(default_factory=dict)  # path -> feature, where the mapping names it
    topics: list[tuple[ObservedTopic, str, str | None]] = field(default_factory=list)


def groups(observed: ObservedTopics) -> list[Group]:
    """The groups, that with the most messages first. Topics of known device software use its preset."""
    left = [one for one in observed.topics.values() if one.keys and not _is_other(one.topic)]
    found: list[_Members] = []
    for name in preset_names():
        members, left = _by_preset(name, left)
        if members is not None:
            found.append(members)
    shapes: dict[tuple[int, bool], list[ObservedTopic]] = defaultdict(list)
    for one in left:
        shapes[one.topic.count("/"), one.is_text].append(one)
    for (_, is_text), topics in shapes.items():
        for related in _related(topics, is_text):
            found.append(_topic_per_value(related) if is_text else _objects(related))
    listed = [_group(members, observed.units) for members in found]
    return sorted(listed, key=lambda group: (-group.messages, -len(group.streams), str(group.mapping.get("topic"))))


def _is_other(topic: str) -> bool:
    """Whether a topic holds no readings: our own, announcements, commands."""
    return topic.startswith(_OWN) or any(level in _NO_READINGS for level in topic.split("/")[1:])


def _by_preset(name: str, topics: Sequence[ObservedTopic]) -> tuple[_Members | None, list[ObservedTopic]]:
    """The topics that fit a preset of one device software, and the others."""
    table = preset(name)
    patterns = table.get("topic", [])
    names = {str(path).replace('"', ""): feature for feature, path in table.get("values", {}).items()}
    members = _Members({"preset": name}, names)
    left = []
    is_text = table.get("format") == "text"
    plain = {"json": not is_text, "text": is_text}.get(str(table.get("format", "json")), False)
    for one in topics:
        match = None
        if plain and one.is_text == is_text:
            for pattern in [patterns] if isinstance(patterns, str) else patterns:
                match = match or TopicPattern(pattern).match(one.topic)
        if match is None or "stream" not in match or not _has_mapped_key(names, one):
            left.append(one)
        else:
            members.topics.append((one, match["stream"], match.get("value")))
    return (members, left) if members.topics else (None, list(topics))


def _has_mapped_key(names: Mapping[str, str], one: ObservedTopic) -> bool:
    """Whether the topic has a value that the preset names, if it names any."""
    return not names or bool(names.keys() & {key.replace('"', "") for key in one.keys})


def _related(topics: Sequence[ObservedTopic], is_text: bool) -> list[list[ObservedTopic]]:
    """Topics that one pattern can read: objects with common keys and texts with a common beginning."""
    related: list[list[ObservedTopic]] = []
    for one in sorted(topics, key=lambda one: one.topic):
        for group in related:
            if _is_related(group[0], one, is_text):
                group.append(one)
                break
        else:
            related.append([one])
    return related


def _is_related(first: ObservedTopic, one: ObservedTopic, is_text: bool) -> bool:
    same_first_level = first.topic.split("/")[0] == one.topic.split("/")[0]
    if is_text:
        return same_first_level
    common = first.keys.keys() & one.keys.keys()
    return len(common) * 2 >= min(len(first.keys), len(one.keys)) or (same_first_level and bool(common))


def _objects(topics: list[ObservedTopic]) -> _Members:
    """A mapping for topics that hold objects."""
    levels = [one.topic.split("/") for one in topics]
    varying = _varying(levels)
    time_key = next((one.time_key for one in topics if one.time_key), None)
    times = {"time": time_key} if time_key else {"time_from": "arrival"}
    if not varying and (key := _id_key(topics)) is not None:
        members = _Members({"topic": topics[0].topic, "stream": key, **times})
        for one in topics:
            one.keys.pop(key, None)
            members.topics.append((one, one.texts[key], None))
        return members
    at = varying or [_name_level(levels[0])]
    pattern, name = _pattern(levels[0], at)
    members = _Members({"topic": pattern, **({"name": name} if name else {}), **times})
    members.topics = [
        (one, "-".join(level[place] for place in at), None) for one, level in zip(topics, levels, strict=True)
    ]
    return members


def _topic_per_value(topics: list[ObservedTopic]) -> _Members:
    """A mapping for topics that hold one number each."""
    levels = [one.topic.split("/") for one in topics]
    varying = _varying(levels)
    value_at = _value_level(levels, varying)
    at = [place for place in varying if place != value_at]
    if not at:
        at = [max(0, value_at - 1)] if value_at else [len(levels[0]) - 1]
    pattern, name = _pattern(levels[0], at, None if value_at in at else value_at)
    members = _Members({"topic": pattern, **({"name": name} if name else {}), "format": "text", "time_from": "arrival"})
    for one, level in zip(topics, levels, strict=True):
        members.topics.append((one, "-".join(level[place] for place in at), level[value_at]))
    return members


def _varying(levels: Sequence[Sequence[str]]) -> list[int]:
    return [place for place in range(len(levels[0])) if len({level[place] for level in levels}) > 1]


def _value_level(levels: Sequence[Sequence[str]], varying: Sequence[int]) -> int:
    """The level that names the value: that with the most names of quantities, else the last one that varies."""
    candidates = list(varying) or [len(levels[0]) - 1]
    shares = {
        place: sum(bool(_QUANTITIES.search(level[place])) for level in levels) / len(levels) for place in candidates
    }
    return max(candidates, key=lambda place: (round(shares[place], 1), place))


def _name_level(levels: Sequence[str]) -> int:
    """The level that names the device, where only one topic is known: the last but one, else the last."""
    return max(0, len(levels) - 2) if len(levels) > 1 else 0


def _pattern(levels: Sequence[str], at: Sequence[int], value_at: int | None = None) -> tuple[str, str | None]:
    """The topic pattern and, if several levels name a device, the template of its name."""
    parts = [f"level{place + 1}" for place in at[:-1]] + ["stream"]
    marked = list(levels)
    for place, part in zip(at, parts, strict=True):
        marked[place] = f"{{{part}}}"
    if value_at is not None:
        marked[value_at] = "{value}"
    return "/".join(marked), "-".join(f"{{{part}}}" for part in parts) if len(parts) > 1 else None


def _id_key(topics: Sequence[ObservedTopic]) -> str | None:
    """The key of a text that names the device."""
    for key in _ID_KEYS:
        if all(key in one.texts and name_fault(one.texts[key]) is None for one in topics):
            return key
    return None


def _group(members: _Members, units: Mapping[tuple[str, str], str]) -> Group:
    examples: dict[str, float] = {}
    devices: dict[str, set[str]] = defaultdict(set)
    unit_of: dict[str, str] = {}
    for one, stream, value in members.topics:
        for key, number in one.keys.items():
            if value is None and members.names and key.replace('"', "") not in members.names:
                continue  # the mapping does not read it
            name = value if value is not None else members.names.get(key.replace('"', ""), key)
            examples.setdefault(name, number)
            devices[name].add(stream)
            unit = units.get((one.topic, key)) or _unit_in_name(name) or _unit_beside(one, key)
            if unit:
                unit_of.setdefault(name, unit)
    intervals = [one.interval_s for one, _, _ in members.topics if one.interval_s is not None]
    return Group(
        members.mapping,
        list(dict.fromkeys(stream for _, stream, _ in members.topics)),
        [Key(name, unit_of.get(name, ""), number, len(devices[name])) for name, number in examples.items()],
        len(members.topics),
        sum(one.live for one, _, _ in members.topics),
        statistics.median(intervals) if intervals else None,
    )


_SUFFIXES = {"C": "°C", "F": "°F", "K": "K", "hPa": "hPa", "kPa": "kPa", "bar": "bar", "V": "V", "mV": "mV", "A": "A"}
_SUFFIXES |= {"W": "W", "kW": "kW", "kWh": "kWh", "Wh": "Wh", "Hz": "Hz", "pct": "%", "percent": "%", "ppm": "ppm"}
_SUFFIXES |= {"lux": "lx", "mm": "mm", "m": "m", "s": "s", "dBm": "dBm", "rpm": "rpm", "tC": "°C", "rh": "%"}


def _unit_in_name(name: str) -> str:
    """The unit at the end of a name like temperature_C or pressure_hPa."""
    return _SUFFIXES.get(re.split(r"[_.]", name)[-1], "") if re.search(r"[_.]", name) else ""


def _unit_beside(one: ObservedTopic, key: str) -> str:
    """The unit in the same message: {"value": 21, "unit": "°C"}, or Tasmota's {"TempUnit": "C"}."""
    if len(one.keys) == 1:
        return one.texts.get("unit", one.texts.get("unit_of_measurement", ""))
    if key.lower().endswith("temperature") and "TempUnit" in one.texts:
        return f"°{one.texts['TempUnit']}"
    if key.lower().endswith("pressure") and "PressureUnit" in one.texts:
        return one.texts["PressureUnit"]
    return ""
