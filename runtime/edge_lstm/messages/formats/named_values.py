"""Values that say their own name in a message: which feature a name means, and which parts of a stream's name it has.

A name is a field of each entry in a list (`value_name`), a key of an object (`name_pattern` alone), or SenML's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from sys import getsizeof
from typing import Any, NamedTuple

from edge_lstm.foundation.limited_dict import LimitedDict
from edge_lstm.messages.formats import senml
from edge_lstm.messages.formats.json_path import ABSENT, Path
from edge_lstm.messages.formats.payloads import PayloadError, shown
from edge_lstm.messages.mapping import InputMapping
from edge_lstm.messages.stream_names import label_of
from edge_lstm.messages.topics import PART

_MOST_BYTES = 1 << 21  # of names whose meaning is kept
_PART_BYTES = 300  # of a name's meaning, beside its texts
_LONGEST = 255  # characters of a name


class NamedValue(NamedTuple):
    """One value of a message, for these features; where to look for its time, and the parts of its name."""

    features: Sequence[str]
    parts: Mapping[str, str]
    value: Any
    unit: str | None
    places: Sequence[Any]


class _Member(NamedTuple):
    """A key of an object with what it holds, and the object."""

    key: str
    content: Any
    record: Mapping[str, Any]


class NamedValues:
    """Reads the values in the messages of one mapping."""

    def __init__(self, mapping: InputMapping, features: Iterable[str]) -> None:
        self._features: dict[str, list[str]] = {}  # by name, or by the part {value} of the name
        for feature in features:
            self._features.setdefault(mapping.source(feature).path or feature, []).append(feature)
        self._patterns = [_compiled(pattern) for pattern in mapping.name_patterns]
        self._is_senml = mapping.format == "senml"
        self._name = None if mapping.value_name is None else Path.parse(mapping.value_name)
        if self._is_senml:
            self._name = Path.of_key(senml.NAME)
        inner = mapping.value if mapping.value is not None or self._name is None else "value"
        self._value = None if inner is None else Path.parse(inner)
        self._quality = None if mapping.quality is None else Path.parse(mapping.quality)
        self._meanings: LimitedDict[str, tuple[Sequence[str], Mapping[str, str]] | None]
        self._meanings = LimitedDict(most_bytes=_MOST_BYTES)

    def parts(self, records: Sequence[Any]) -> Sequence[Any]:
        """The named values in these records, for `read`: the records, or all members of each."""
        if self._name is not None:
            return records
        return [
            part
            for record in records
            for part in (
                [_Member(key, content, record) for key, content in record.items() if self._meaning(key) is not None]
                if isinstance(record, dict)
                else [PayloadError(f"expected an object with keys, found {shown(record)}")]
            )
        ]

    def names_in(self, records: Sequence[Any]) -> list[str]:
        """What the values in these records are named: the part {value} of each name, once. Raises PayloadError."""
        names: dict[str, None] = {}
        for record in records:
            if not isinstance(record, dict):
                continue
            for name in record if self._name is None else [_checked_name(self._name.find(record), self._name)]:
                found = _matched(self._patterns, name) if self._patterns else {"value": name}
                if found is not None:
                    names[found["value"]] = None
        return list(names)

    def read(self, part: Any) -> NamedValue | None:
        """The value; None if its name is that of no feature, or if it has none. Raises PayloadError."""
        if isinstance(part, _Member):
            return self._member(part)
        if not isinstance(part, dict) or self._name is None:
            raise PayloadError(f"expected an object with a name and a value, found {shown(part)}")
        meaning = self._meaning(_checked_name(self._name.find(part), self._name))
        if meaning is None and self._is_senml and not self._patterns:
            meaning = self._meaning(part[senml.LOCAL_NAME])
        return None if meaning is None else self._value_of(meaning, part, part, (part,))

    def _member(self, part: _Member) -> NamedValue | None:
        meaning, content = self._meaning(part.key), part.content
        if meaning is None:
            return None
        places = (content, part.record) if isinstance(content, dict) else (part.record,)
        return self._value_of(meaning, content, content, places)

    def _value_of(
        self, meaning: tuple[Sequence[str], Mapping[str, str]], entry: Any, content: Any, places: Sequence[Any]
    ) -> NamedValue | None:
        value = content if self._value is None else self._value.find(entry)
        if self._quality is not None and not is_good(self._quality.find(entry)):
            value = None
        unit = entry.get(senml.UNIT) if self._is_senml else None
        return None if value is ABSENT else NamedValue(*meaning, value, unit, places)

    def _meaning(self, name: str) -> tuple[Sequence[str], Mapping[str, str]] | None:
        """The features that a name means, and the other parts of the name; None if it is the name of no feature."""
        try:
            return self._meanings[name]
        except KeyError:
            pass
        if len(name) > _LONGEST:
            return None
        return self._meanings.remember(name, self._learn(name), 2 * getsizeof(name) + _PART_BYTES)

    def _learn(self, name: str) -> tuple[Sequence[str], Mapping[str, str]] | None:
        if not self._patterns:
            features = self._features.get(name)
            return None if features is None else (features, {})
        for pattern in self._patterns:
            parts = _matched([pattern], name)
            if parts is not None and (features := self._features.get(parts.pop("value"))) is not None:
                return features, parts
        return None


def _matched(patterns: Sequence[re.Pattern[str]], name: str) -> dict[str, str] | None:
    """The parts of a name, by the first pattern that it matches."""
    return next((found.groupdict() for pattern in patterns if (found := pattern.fullmatch(name)) is not None), None)


def is_good(quality: Any) -> bool:
    """Whether a value of this quality is one: true, a text like Good, or a code of OPC from 192 to 255.

    A value without a quality is good.
    """
    if quality is ABSENT or quality is None or isinstance(quality, bool):
        return quality is not False
    if isinstance(quality, (int, float)):
        return quality == 1 or 192 <= quality <= 255
    return isinstance(quality, str) and quality.strip().lower().startswith(("good", "ok", "true"))


def _compiled(pattern: str) -> re.Pattern[str]:
    """The expression of a pattern, in which a part ends before the sign that follows it: no text takes long."""
    pieces = PART.split(pattern)  # text, name, text, name, …, text
    expression = re.escape(pieces[0])
    for name, after in zip(pieces[1::2], pieces[2::2], strict=True):
        expression += f"(?P<{name}>{f'[^{re.escape(after[0])}]+' if after else '.+'}){re.escape(after)}"
    return re.compile(expression, re.DOTALL)


def _checked_name(found: Any, path: Path) -> str:
    name = label_of(found)
    if name is None:
        described = "none" if found is ABSENT else shown(found)
        raise PayloadError(f'expected the name of a value under "{path.text}", found {described}')
    return name
