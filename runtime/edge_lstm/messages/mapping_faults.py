"""The faults of an input mapping: conditions on several of its keys, which the types of the keys do not show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edge_lstm.foundation.times.formats import format_fault
from edge_lstm.messages.formats.json_path import Path
from edge_lstm.messages.stream_names import is_template, template_faults, template_parts
from edge_lstm.messages.topics import STREAM, fill_template, name_fault, name_pattern_faults, part_names, topic_faults

if TYPE_CHECKING:
    from edge_lstm.messages.mapping import InputMapping


def input_faults(mapping: InputMapping) -> Iterator[tuple[str, str]]:
    """The faults of a mapping, as (key, message)."""
    for name in ("readings", "value", "value_name", "quality"):
        yield from path_faults(name, getattr(mapping, name))
    yield from _time_faults(mapping)
    for topic in mapping.topics:
        yield from topic_faults(topic, wildcards=True)
    for topic in mapping.ignored_topics:
        yield from (("ignore_topic", fault) for _, fault in topic_faults(topic, wildcards=True))
    if mapping.sequence_from == "payload":
        yield from path_faults("sequence", mapping.sequence)
    yield from _format_faults(mapping)
    for name, value in mapping.values.items():
        path = value if isinstance(value, str) else value.path if value.topic is None else None
        if not mapping.names_values:
            yield from path_faults(f"values.{name}" if isinstance(value, str) else f"values.{name}.path", path)
    yield from _name_faults(mapping)
    yield from _named_value_faults(mapping)


def _time_faults(mapping: InputMapping) -> Iterator[tuple[str, str]]:
    try:
        mapping.zone()
    except (KeyError, ValueError, OSError):
        expected = "expected a zone of this machine's zone database, like Europe/Berlin (pip install tzdata)"
        yield "timezone", f'{expected}, found "{mapping.timezone}"'
    if mapping.time_from in ("payload", "payload-or-arrival"):
        yield from path_faults("time", mapping.time)
    for form in mapping.time_formats:
        if (fault := format_fault(form)) is not None:
            yield "time_format", fault
    if mapping.time_format is not None and mapping.time_unit is not None:
        yield "time_unit", "expected time_format for texts or time_unit for numbers, found both"
    for name in ("time_format", "time_unit"):
        if getattr(mapping, name) is not None and (mapping.time_from == "arrival" or mapping.format == "senml"):
            where = 'time_from = "arrival"' if mapping.time_from == "arrival" else 'format = "senml"'
            yield name, f"expected none, since {where} says what a time is"


def _name_faults(mapping: InputMapping) -> Iterator[tuple[str, str]]:
    patterns = [("topic", topic) for topic in mapping.topics]
    for name, value in mapping.values.items():
        if not isinstance(value, str) and value.topic is not None:
            patterns.append((f"values.{name}.topic", value.topic))
    if not patterns:
        yield "topic", "expected at least one, or values that have a topic of their own, found none"
    if mapping.stream is not None and is_template(mapping.stream):
        yield from (("stream", fault) for fault in template_faults(mapping.stream))
        if mapping.name is not None:
            yield "name", f'expected none beside stream = "{mapping.stream}", which is the whole name'
        if mapping.format == "text":
            yield from _lacking_parts(set(template_parts(mapping.stream)), patterns)
        return
    yield from path_faults("stream", mapping.stream)
    in_name = part_names(STREAM if mapping.name is None else mapping.name)
    needed = set(in_name) - ({"stream"} if mapping.stream is not None else set())
    for pattern in mapping.name_patterns:
        needed -= set(part_names(pattern))
    for where, topic in patterns:
        if mapping.stream is not None and "stream" in part_names(topic):
            yield where, f'expected {STREAM} in the topic or stream = "{mapping.stream}", found both in "{topic}"'
    yield from _lacking_parts(needed, patterns)
    if mapping.stream is not None and "stream" not in in_name:
        yield "name", f'expected {STREAM} in it, since stream = "{mapping.stream}", found "{mapping.name}"'
    if not all(mapping.allowed_streams):
        yield "streams", 'expected patterns of names, like "pump-*", found an empty one'
    if mapping.name is not None and (fault := name_fault(fill_template(mapping.name, dict.fromkeys(in_name, "x")))):
        yield "name", f"expected {fault}"


def _lacking_parts(needed: set[str], patterns: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for where, topic in patterns:
        if lacks := needed - set(part_names(topic)):
            lacking = ", ".join(f"{{{part}}}" for part in sorted(lacks))
            otherwise = ' (or stream = "path")' if lacking == STREAM else ""
            yield where, f'expected {lacking} in the topic{otherwise}, found "{topic}"'


def _named_value_faults(mapping: InputMapping) -> Iterator[tuple[str, str]]:
    """Where each value says its own name, nothing else may name it."""
    for pattern in mapping.name_patterns:
        yield from (("name_pattern", fault) for fault in name_pattern_faults(pattern))
        for topic in mapping.topics:
            for part in set(part_names(topic)) & set(part_names(pattern)):
                yield (
                    "name_pattern",
                    f'expected {{{part}}} in the topic or in the pattern, found both in "{pattern}"',
                )
    if not mapping.names_values:
        if mapping.quality is not None:
            yield "quality", "expected with value_name or name_pattern only"
        return
    if mapping.format not in ("json", "msgpack", "senml"):
        yield "format", f'expected "json", "msgpack" or "senml" for named values, found "{mapping.format}"'
    for name, value in mapping.values.items():
        if not isinstance(value, str) and value.topic is not None:
            yield f"values.{name}.topic", "expected none, since each value says its own name"
    for topic in mapping.topics:
        if "{value}" in topic:
            yield "topic", f'expected no {{value}}, since each value says its own name, found "{topic}"'
    if mapping.format == "senml":
        for name in ("readings", "value", "value_name", "quality"):
            if getattr(mapping, name) is not None:
                yield name, 'expected none, since format = "senml" says what it is'


def _format_faults(mapping: InputMapping) -> Iterator[tuple[str, str]]:
    if (mapping.format == "csv") != bool(mapping.columns):
        yield "columns", f'expected with format = "csv", and only there, found {mapping.columns}'
    if mapping.format == "csv" and len(set(mapping.columns)) < len(mapping.columns):
        yield "columns", f"expected different names, found {', '.join(mapping.columns)}"
    if len(mapping.separator) != 1 or mapping.separator in '"\r\n\0':
        yield "separator", f'expected one sign, found "{mapping.separator}"'
    if mapping.format == "text":
        for name in ("stream", "readings", "value"):
            text = getattr(mapping, name)
            if text is not None and not (name == "stream" and is_template(text)):
                yield name, "expected none, since a text has no parts: the topic says what it is"
        if mapping.time_from.startswith("payload"):
            expected = 'expected "arrival" or "property", since a text holds no time'
            yield "time_from", f'{expected}, found "{mapping.time_from}"'
        if mapping.sequence is not None and mapping.sequence_from == "payload":
            yield "sequence_from", 'expected "property", since a text has no parts, found "payload"'
    if mapping.format == "msgpack" and mapping.encoding != "utf-8":
        yield "encoding", f'expected "utf-8", which MessagePack texts have, found "{mapping.encoding}"'


def path_faults(name: str, text: str | None) -> Iterator[tuple[str, str]]:
    """The fault of a path under this key."""
    if text is not None:
        try:
            Path.parse(text)
        except ValueError as error:
            yield name, str(error)
