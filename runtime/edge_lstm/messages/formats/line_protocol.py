"""Parses InfluxDB's line protocol: each line becomes an object with its tags, fields and time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edge_lstm.messages.formats.payloads import Parse, PayloadError, parse_text, shown

_MEASUREMENT = re.compile(r"(?:[^,\s\\]|\\.)+")
_KEY = re.compile(r"(?:[^,=\s\\]|\\.)+")  # of a tag or field, and the value of a tag
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_PLAIN = re.compile(r"[^,\s]+")
_TIME = re.compile(r"[ \t]+(-?\d{1,20})")
_REST = re.compile(r"[ \t\r]*(?:\n|$)")
_ESCAPED = re.compile(r"\\([,= ])")
_ESCAPED_IN_STRING = re.compile(r"\\([\\\"])")
_MOST_FAULTS = 1000  # in a message, after which the rest is not read: describing a fault takes time
_SWITCHES = {**dict.fromkeys(("t", "T", "true", "True", "TRUE"), True)}
_SWITCHES |= dict.fromkeys(("f", "F", "false", "False", "FALSE"), False)
_INTEGER = re.compile(r"[+-]?\d{1,20}[iu]")


def line_protocol_parser(paths: Iterable[str] = ()) -> Parse:
    """A parser to a list of dicts, one per line, with fields and tags by name, `measurement`, and `time` in digits.

    Where names are the same, a field goes before a tag. `paths`: also the names under which a field is searched with
    its measurement, like `cpu.usage`. In place of a line that is not valid stands a PayloadError. The parser raises
    PayloadError if the payload is no text.
    """
    wanted: dict[str, list[str]] = {}
    for path in paths:
        measurement, dot, field = path.partition(".")
        if dot:
            wanted.setdefault(measurement, []).append(field)
    return lambda payload: _lines(payload, wanted)


def _lines(payload: bytes, wanted: Mapping[str, Sequence[str]]) -> list[Any]:
    text = parse_text(payload)
    lines: list[Any] = []
    at = faults = 0
    while at < len(text) and faults < _MOST_FAULTS:
        if text[at].isspace():
            at += 1
            continue
        end = text.find("\n", at)
        if text[at] == "#":
            at = len(text) if end < 0 else end + 1
            continue
        try:
            line, at = _line(text, at, wanted)
            lines.append(line)
        except PayloadError as error:
            lines.append(error)
            faults += 1
            at = len(text) if end < 0 else end + 1
    return lines


def _line(text: str, begin: int, wanted: Mapping[str, Sequence[str]]) -> tuple[dict[str, Any], int]:
    """The line that begins there, and where the next one does."""
    measurement, at = _take(_MEASUREMENT, text, begin, begin, "a measurement")
    tags: dict[str, Any] = {}
    while text.startswith(",", at):
        name, at = _take(_KEY, text, at + 1, begin, "a tag")
        value, at = _take(_KEY, text, _after("=", text, at, begin), begin, "the value of a tag")
        tags[name] = value
    fields: dict[str, Any] = {}
    at = _after(" ", text, at, begin)
    while text.startswith(" ", at):
        at += 1
    while True:
        name, at = _take(_KEY, text, at, begin, "a field")
        fields[name], at = _field(text, _after("=", text, at, begin), begin)
        if not text.startswith(",", at):
            break
        at += 1
    line = {**tags, **fields}
    line.setdefault("measurement", measurement)
    line.update({f"{measurement}.{name}": fields[name] for name in wanted.get(measurement, ()) if name in fields})
    line.pop("time", None)
    if (time := _TIME.match(text, at)) is not None:
        line["time"], at = int(time[1]), time.end()
    rest = _REST.match(text, at)
    if rest is None:
        raise _fault("a time in digits, or the end of the line", text, at, begin)
    return line, rest.end()


def _field(text: str, at: int, begin: int) -> tuple[Any, int]:
    """The value of a field: a number, a text or true or false."""
    if (found := _STRING.match(text, at)) is not None:
        return _ESCAPED_IN_STRING.sub(r"\1", found[1]), found.end()
    plain = _PLAIN.match(text, at)
    if plain is None:
        raise _fault("the value of a field", text, at, begin)
    word = plain[0]
    if word in _SWITCHES:
        return _SWITCHES[word], plain.end()
    try:
        if "_" in word:
            raise ValueError  # digit grouping of Python
        return int(word[:-1]) if _INTEGER.fullmatch(word) else float(word), plain.end()
    except ValueError:
        raise _fault("a number, true, false or a text in quotes", text, at, begin) from None


def _take(pattern: re.Pattern[str], text: str, at: int, begin: int, expected: str) -> tuple[str, int]:
    found = pattern.match(text, at)
    if found is None:
        raise _fault(expected, text, at, begin)
    return _ESCAPED.sub(r"\1", found[0]), found.end()


def _after(sign: str, text: str, at: int, begin: int) -> int:
    if not text.startswith(sign, at):
        raise _fault(f'"{sign}"', text, at, begin)
    return at + 1


def _fault(expected: str, text: str, at: int, begin: int) -> PayloadError:
    line = text[begin : begin + 100].split("\n", 1)[0]
    return PayloadError(f"expected line protocol, {expected} at sign {at - begin + 1}, found {shown(line)}")
