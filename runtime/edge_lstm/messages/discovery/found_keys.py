"""Finds what could be features in a message, where no mapping names them: the values that a number stands for."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from edge_lstm.foundation.numbers import FLOAT32_MAX, WORD_VALUES
from edge_lstm.messages.decoder import payload_parser
from edge_lstm.messages.formats.json_path import ABSENT, Path
from edge_lstm.messages.formats.named_values import NamedValues
from edge_lstm.messages.mapping import InputMapping, ValueMapping
from edge_lstm.messages.stream_names import template_parts
from edge_lstm.messages.topics import TopicPattern

_DEEPEST = 4  # objects within one another
_MOST_KEYS = 300  # of a message; a stranger can send any number
_PLAIN_KEY = re.compile(r"""[^."'\[\]]+""")


def found_keys(mapping: InputMapping, topic: str, payload: bytes) -> dict[str, float]:
    """Name (of a key, or the path to it) and number of each value in a message that could be a feature.

    A message of a topic that the mapping does not read has none.

    A switch (true, false, on, off and similar words) is 1 or 0. Left out: the keys of time, stream and sequence, and
    keys that `mapping.values` gives another name. Raises PayloadError if the payload is not in the mapping's format.
    """
    if not is_read(mapping, topic):
        return {}
    if (value_name := _name_in_topic(mapping, topic)) is not None:
        number = _number(_value_of(mapping, payload), texts=True)
        return {} if number is None else {value_name: number}
    if mapping.format == "text":
        return {}
    if mapping.format == "csv":
        others = {mapping.time, mapping.stream, mapping.sequence}
        return {name: math.nan for name in mapping.columns if name not in others}
    records = _records(mapping, payload)
    if mapping.names_values:
        return dict.fromkeys(NamedValues(mapping, ()).names_in(records), math.nan)
    found: dict[str, float] = {}
    for record in records:
        found.update(numbers_of(record))
        if len(found) >= _MOST_KEYS:
            break
    for taken in _taken_paths(mapping):
        found.pop(taken, None)
    return found


def is_read(mapping: InputMapping, topic: str) -> bool:
    """Whether a topic is one of the mapping's, and not one that it ignores."""
    own = [value.topic for value in mapping.values.values() if isinstance(value, ValueMapping) and value.topic]
    return any(TopicPattern(pattern).match(topic) is not None for pattern in [*mapping.topics, *own]) and not any(
        TopicPattern(pattern).match(topic) is not None for pattern in mapping.ignored_topics
    )


def numbers_of(facts: Any, texts: bool = False) -> dict[str, float]:
    """Path and number of each value in an object that a number stands for; with `texts` also of texts like "21.5"."""
    return dict(islice(_numbers(facts, texts), _MOST_KEYS))


def path_text(keys: list[str]) -> str:
    """The path to a value within objects, as `Path.parse` reads it."""
    return ".".join(key if _PLAIN_KEY.fullmatch(key) and not key.isdecimal() else f'"{key}"' for key in keys)


def _name_in_topic(mapping: InputMapping, topic: str) -> str | None:
    """The part {value} of the topic."""
    for pattern in mapping.topics:
        found = TopicPattern(pattern).match(topic) if "{value}" in pattern else None
        if found is not None:
            return found["value"]
    return None


def _value_of(mapping: InputMapping, payload: bytes) -> Any:
    """The one value of a message whose topic names it."""
    facts = payload_parser(mapping)(payload)
    return facts if mapping.value is None else Path.parse(mapping.value).find(facts)


def _records(mapping: InputMapping, payload: bytes) -> list[Any]:
    facts = payload_parser(mapping)(payload)
    if mapping.readings is not None:
        facts = Path.parse(mapping.readings).find(facts)
    return facts if isinstance(facts, list) else [facts]


def _taken_paths(mapping: InputMapping) -> Iterator[str]:
    """The paths that are no features of their own."""
    yield from (path for path in (mapping.time, mapping.stream, mapping.sequence) if path is not None)
    yield from template_parts(mapping.stream or "")
    for name in mapping.values:
        path = mapping.source(name).path
        if path is not None and path != name:
            yield path


def _numbers(record: Any, texts: bool = False, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    """Path and number of each value within an object that a number stands for."""
    if not isinstance(record, dict) or len(keys) >= _DEEPEST:
        return
    for key, value in record.items():
        if not isinstance(key, str) or '"' in key:
            continue
        here = (*keys, key)
        if isinstance(value, dict):
            yield from _numbers(value, texts, here)
        elif (number := _number(value, texts)) is not None:
            yield (key if len(here) == 1 else path_text(list(here))), number


def _number(value: Any, texts: bool = False) -> float | None:
    """The number that a value stands for; with `texts` also "21.5". None: it stands for none, or is missing."""
    if value is ABSENT or isinstance(value, (dict, list)):
        return None
    if isinstance(value, str):
        number = WORD_VALUES.get(value.strip().lower(), math.nan)
        if texts and math.isnan(number):
            try:
                number = float(value)
            except ValueError:
                return None
        return None if math.isnan(number) else number
    if isinstance(value, (bool, int, float)) and abs(value) <= FLOAT32_MAX:
        return float(value)
    return None
