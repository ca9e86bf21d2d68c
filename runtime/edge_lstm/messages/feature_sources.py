"""Where each feature is in a message and how it is parsed; refuses a mapping that does not fit the bundle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import ConfigError
from edge_lstm.messages.formats.json_path import Path
from edge_lstm.messages.mapping import InputMapping, ValueMapping
from edge_lstm.messages.presets import preset
from edge_lstm.messages.value_parser import ValueParser


@dataclass(frozen=True, slots=True)
class FeatureSource:
    """One feature in a message: `path` leads to what `parser` reads (None: the reading itself is the value)."""

    feature: str
    path: Path | None
    parser: ValueParser


def feature_source(
    mapping: InputMapping, feature: str, categories: Sequence[str] = (), unit: str = ""
) -> FeatureSource:
    """The source of a feature. `categories`: the texts that its values stand for; `unit`: its unit in the bundle."""
    source: ValueMapping = mapping.source(feature)
    if mapping.format == "text":
        path = None
    elif mapping.names_values:
        path = Path.of_key(source.path or feature)
    elif source.topic is not None:
        at = source.path or mapping.value
        path = None if at is None else Path.parse(at)
    else:
        path = Path.of_key(feature) if source.path is None else Path.parse(source.path)
    words = {**dict.fromkeys(map(str.lower, mapping.missing), math.nan), **source.words}
    converted = (source.scale, source.offset) != (1.0, 0.0)  # then the bundle's unit is that of the result
    parser = ValueParser(
        path.text if path else feature,
        scale=source.scale,
        offset=source.offset,
        least=source.least,
        most=source.most,
        ignore=[*mapping.ignore, *source.ignore],
        words={word.lower(): number for word, number in words.items()},
        decimal_comma=mapping.decimal == "comma",
        categories=categories,
        unit=source.unit or mapping.unit or ("" if converted else unit),
    )
    return FeatureSource(feature, path, parser)


def check(mapping: InputMapping, features: Sequence[str]) -> None:
    """Raises ConfigError with every fault if the mapping does not fit the bundle's features."""
    faults = [*_unknown_features(mapping, features), *_topic_faults(mapping, features), *_doubles(mapping, features)]
    if faults:
        raise ConfigError(
            "the mapping does not fit the bundle:\n  " + "\n  ".join(faults), "correct the service config"
        )


def _unknown_features(mapping: InputMapping, features: Sequence[str]) -> Iterator[str]:
    from_preset = preset(mapping.preset).get("values", {}) if mapping.preset else {}
    for name in mapping.values:
        if name not in features and name not in from_preset:
            yield f"input.values.{name}: no feature of the bundle; {suggestion(name, features)}"


def _topic_faults(mapping: InputMapping, features: Sequence[str]) -> Iterator[str]:
    whole = [name for name in features if mapping.source(name).topic is None]
    if mapping.format == "text" and len(whole) > 1:
        for topic in mapping.topics:
            if "{value}" not in topic:
                yield (
                    f"input.topic: expected {{value}} in it, since a text is one value and the bundle takes "
                    f'{len(whole)} ({", ".join(whole)}), found "{topic}"'
                )
    if whole and not mapping.topics:
        yield f"input.topic: expected one that holds {', '.join(whole)}, found none"


def _doubles(mapping: InputMapping, features: Sequence[str]) -> Iterator[str]:
    """Two features that always get the same number. Different words may make two of one text, like a direction."""
    first: dict[tuple[object, ...], str] = {}
    for name in features:
        source = mapping.source(name)
        if source.topic is None:
            place: tuple[object, ...] = (None, source.path or name)
        else:
            place = (source.topic, source.path or mapping.value)
        other = first.setdefault((*place, tuple(sorted(source.words.items()))), name)
        if other != name:
            where = f'"{place[1]}"' if place[1] is not None else f'the topic "{place[0]}"'
            yield f"input.values.{name}: expected a value of its own, found {where}, which {other} takes"
