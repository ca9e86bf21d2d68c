"""Topic patterns: their filters, the topics that match, the values of their named parts; names of streams."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from edge_lstm.foundation.text import disguise, printable

STREAM = "{stream}"
PART = re.compile(r"\{([A-Za-z_]\w*)\}")
LEVELS = re.compile(r"\{([A-Za-z_]\w*)\.\.\.\}")  # a part of one level or more
_MOST_LEVEL = 255  # characters: no device has a longer level, and the search would take long
_MOST_NAME = 200
_MOST_TOPIC = 64_000  # bytes: MQTT allows 65,535, and a stream's name is added
# What the topic of a prediction cannot hold, or for which a broker closes the connection (MQTT 5, 1.5.4): separators,
# wildcards, control characters, lone surrogates, and code points that are not characters.
_NO_CHARACTERS = "".join(chr((plane << 16) + low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
_NO_TEXT = rf"\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_NO_CHARACTERS}"
_UNFIT = re.compile(rf"^\$|[/+#{{}}{_NO_TEXT}]|(?:^|(?<=\\))\.\.?(?=\\|$)")  # a step of a path: .. or .
_UNFIT_LEVEL = re.compile(rf"[{{}}+#{_NO_TEXT}]")


class TopicPattern:
    """A pattern like `site/{line}/{stream}/+`: `{name}` names a level or part of one, and `+` is any one level.

    `{name...}` names one level or more, joined by a point: `kitchen/sensor` is kitchen.sensor. `#` at the end stands
    for any further levels.
    """

    def __init__(self, pattern: str, choices: Collection[str] = ()) -> None:
        """`choices`: what the part `{value}` may be (none: anything)."""
        levels = pattern.split("/")
        self._tail = levels[-1] == "#"
        levels = levels[:-1] if self._tail else levels
        self._long_at = next((at for at, level in enumerate(levels) if LEVELS.fullmatch(level)), None)
        self._long_name = "" if self._long_at is None else levels[self._long_at][1:-4]
        self._levels = [
            _level_pattern(level if at != self._long_at else f"{{{self._long_name}}}", choices)
            for at, level in enumerate(levels)
        ]

    def match(self, topic: str) -> dict[str, str] | None:
        """The value of each named part in `topic`, or None if the topic does not match."""
        levels = topic.split("/")
        more = len(levels) - len(self._levels)
        if more < 0 or (more and not self._tail and self._long_at is None):
            return None
        if self._long_at is not None and more:
            end = self._long_at + more + 1
            if not all(levels[self._long_at : end]):
                return None  # an empty level
            levels[self._long_at : end] = [".".join(levels[self._long_at : end])]
        named: dict[str, str] = {}
        # level by level, so that the alternatives of one level do not multiply with those of another
        for found, expected in zip(levels, self._levels, strict=False):
            if isinstance(expected, str):
                if found != expected:
                    return None
            elif len(found) > _MOST_LEVEL or (match := expected.fullmatch(found)) is None:
                return None
            else:
                named.update(match.groupdict())
        return named


def filters_of(patterns: Iterable[str]) -> list[str]:
    """The MQTT topic filters that cover all of these patterns.

    No filter covers another: a broker delivers a message once for each filter that it matches.
    """
    filters = list(dict.fromkeys(map(_filter_of, patterns)))
    return [one for one in filters if not any(other != one and _covers(other, one) for other in filters)]


def _filter_of(pattern: str) -> str:
    levels = ["+" if PART.search(level) else level for level in pattern.split("/")]
    long_at = next((at for at, level in enumerate(levels) if LEVELS.fullmatch(level)), None)
    return "/".join(levels if long_at is None else [*levels[:long_at], "#"])


def _covers(wide: str, narrow: str) -> bool:
    """Whether every topic that matches the filter `narrow` matches `wide`."""
    if not narrow.endswith("#"):
        return matches_filter(narrow, wide)
    return wide.endswith("#") and matches_filter(narrow[:-1].removesuffix("/"), wide)


def matches_filter(topic: str, topic_filter: str) -> bool:
    """Whether a topic matches an MQTT topic filter for all values of its {parts}."""
    levels, wanted = topic.split("/"), topic_filter.split("/")
    tail = wanted[-1] == "#"  # any further levels, or none
    wanted = wanted[:-1] if tail else wanted
    long_enough = len(levels) >= len(wanted) if tail else len(levels) == len(wanted)
    return long_enough and all(want in ("+", level) for level, want in zip(levels, wanted, strict=False))


def part_names(pattern: str) -> list[str]:
    """The names of the parts in a pattern."""
    return [*PART.findall(pattern), *LEVELS.findall(pattern)]


def fill_template(template: str, parts: Mapping[str, str]) -> str:
    """The template with the values of its parts."""
    return PART.sub(lambda part: parts[part[1]], template)


def _level_pattern(level: str, choices: Collection[str]) -> str | re.Pattern[str]:
    """A level's text, or the expression that it has to match."""
    if level == "+":
        return re.compile(r".+", re.DOTALL)
    if not PART.search(level):
        return level
    pieces = PART.split(level)  # text, name, text, name, …, text
    for at in range(0, len(pieces), 2):
        pieces[at] = re.escape(pieces[at])
    for at in range(1, len(pieces), 2):
        # the first part is as short as possible: in attic_air_quality the value is air_quality, not quality
        one_of = "|".join(map(re.escape, choices)) if pieces[at] == "value" and choices else ".+?"
        pieces[at] = f"(?P<{pieces[at]}>{one_of})"
    return re.compile("".join(pieces), re.DOTALL)


def topic_faults(topic: str, *, wildcards: bool) -> Iterator[tuple[str, str]]:
    """The faults of a topic pattern, as (key, message).

    Without `wildcards` it is a topic to publish to: its only part is {stream}.
    """
    levels = topic.split("/")
    if levels[0] == "$share":
        yield "topic", f'expected a topic of one subscriber, since readings have an order, found "{topic}"'
    if not wildcards and levels[0].startswith("$"):
        yield "topic", f'expected a topic without a first $, which are the broker\'s own, found "{topic}"'
    if (size := len(topic.encode(errors="replace"))) > _MOST_TOPIC:
        yield "topic", f"expected at most {_MOST_TOPIC} bytes, found {size}"
        return
    names = part_names(topic)
    if len(LEVELS.findall(topic)) > 1 or (levels[-1] == "#" and LEVELS.search(topic)):
        yield "topic", f'expected one part of several levels, found "{topic}"'
    if "{value...}" in topic:
        yield "topic", f'expected {{value}}, which is one level or part of one, found {{value...}} in "{topic}"'
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        yield "topic", f'expected different parts, found {{{repeated[0]}}} twice in "{topic}"'
    for at, level in enumerate(levels):
        if wildcards and (level == "+" or LEVELS.fullmatch(level) or (level == "#" and at == len(levels) - 1)):
            continue
        texts, parts = PART.split(level)[::2], PART.findall(level)
        strange = any(_UNFIT_LEVEL.search(text) for text in texts)
        if wildcards and (strange or not topic):
            yield "topic", f'expected levels of plain text, {{parts}}, + or a last #, found "{printable(level)}"'
        elif wildcards and (len(parts) > 2 or (len(parts) == 2 and not texts[1])):
            yield "topic", f'expected at most two {{parts}} a level, with text between them, found "{level}"'
        elif not wildcards and (strange or not topic or set(parts) - {"stream"}):
            yield "topic", f'expected levels of plain text and {STREAM}, found "{printable(level)}"'


def name_pattern_faults(pattern: str) -> Iterator[str]:
    """The faults of a pattern of the names of values."""
    texts, names = PART.split(pattern)[::2], PART.findall(pattern)
    if names.count("value") != 1:
        yield f'expected {{value}} once, which names the feature, found "{printable(pattern)}"'
    if repeated := sorted({name for name in names if name != "value" and names.count(name) > 1}):
        yield f'expected different parts, found {{{repeated[0]}}} twice in "{printable(pattern)}"'
    if not all(texts[1:-1]):
        yield f'expected text between two parts, found "{printable(pattern)}"'
    if any(sign in text for text in texts for sign in "{}"):
        yield f'expected each part as {{name}}, found "{printable(pattern)}"'


def name_fault(name: str) -> str | None:
    """The fault of a stream's name, which becomes part of a topic; None if it has none."""
    if not name or len(name) > _MOST_NAME:
        return f"a stream's name of 1 to {_MOST_NAME} characters, found {len(name)}"
    found = _UNFIT.search(name)
    sign = disguise(name) if found is None else found.group().encode("unicode_escape").decode()
    if sign is not None:
        expected = "a stream's name without / + # { }, a first $, a step . or .., control characters or invisible ones"
        return f'{expected}, found "{sign}" in it'
    return None
