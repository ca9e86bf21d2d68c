"""Names of streams: parts of the topic, fields of the payload, or several of both, like `{model}-{id}-{channel?}`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edge_lstm.messages.formats.json_path import ABSENT, Path, find_in
from edge_lstm.messages.formats.payloads import PayloadError, shown
from edge_lstm.messages.topics import STREAM, fill_template, name_fault

if TYPE_CHECKING:
    from edge_lstm.messages.mapping import InputMapping

_PART = re.compile(r"\{([^{}]*)\}")


def is_template(text: str) -> bool:
    """Whether it is a template, and not the path of one field."""
    return "{" in text or "}" in text


def template_parts(text: str) -> list[str]:
    """The names in a template, without the sign of those that may be absent."""
    return [part.removesuffix("?") for part in _PART.findall(text)]


def template_faults(text: str) -> Iterator[str]:
    """What is wrong with a template."""
    if "{" in _PART.sub("", text) or "}" in _PART.sub("", text):
        yield f'expected each part as {{path}}, found "{text}"'
        return
    for part in template_parts(text):
        try:
            Path.parse(part)
        except ValueError as error:
            yield str(error)
    if all(part.endswith("?") for part in _PART.findall(text)):
        yield f'expected a part that each message has, so without "?", found "{text}"'
    elif (fault := name_fault(_PART.sub("x", text))) is not None:
        yield f"expected {fault}"


class NameRefusedError(PayloadError):
    """The stream's name is unfit, or `[input] streams` does not allow it."""


class StreamName:
    """Makes the name of a reading's stream, as one mapping says."""

    def __init__(self, mapping: InputMapping) -> None:
        by_template = mapping.stream is not None and is_template(mapping.stream)
        template = mapping.stream if by_template else mapping.name
        self._template = STREAM if template is None else template
        self._of_stream = None if by_template or mapping.stream is None else Path.parse(mapping.stream)
        self._shown = mapping.stream or self._template
        allowed = "|".join(fnmatch.translate(pattern) for pattern in mapping.allowed_streams)
        self._allowed = re.compile(allowed) if allowed else None
        pieces = _PART.split(self._template)  # text, part, text, part, …, text
        self._first = pieces[0]
        self._parts = [
            (part.removesuffix("?"), self._path(part.removesuffix("?")), part.endswith("?"), after)
            for part, after in zip(pieces[1::2], pieces[2::2], strict=True)
        ]

    def _path(self, part: str) -> Path:
        return self._of_stream if self._of_stream is not None and part == "stream" else Path.parse(part)

    def of_topic(self, parts: Mapping[str, str]) -> str | None:
        """The name, if parts of the topic are all that it needs. It is not checked: see `fault`."""
        known = self._of_stream is None and all(part in parts for part, _, _, _ in self._parts)
        return fill_template(self._template, parts) if known else None

    def name(self, parts: Mapping[str, str], *places: Any) -> str:
        """The name from parts of the topic, or else fields of the first of these places that has them.

        A part with a `?` that is absent is left out, and the text before it as well. Raises PayloadError.
        """
        name, before = "", self._first
        for part, path, may_be_absent, after in self._parts:
            label = None if path is self._of_stream else parts.get(part)
            if label is None:
                found = find_in(path, *places)
                if may_be_absent and (found is ABSENT or found is None):
                    before = after if name else before
                    continue
                label = _checked_label(found, path)
            name, before = name + before + label, after
        name += before
        if fault := self.fault(name):
            raise NameRefusedError(f'"{self._shown}": expected {fault}')
        return name

    def fault(self, name: str) -> str | None:
        """What is wrong with a name; None: nothing."""
        if (fault := name_fault(name)) is not None:
            return fault
        if self._allowed is not None and self._allowed.match(name) is None:
            return f'a stream that [input] streams allows, found "{name}"'
        return None


def label_of(found: Any) -> str | None:
    """A text, or a whole number as its digits; None for anything else."""
    if isinstance(found, str):
        return found
    # beyond 64 bits orjson would give the digits of the nearest float
    whole = isinstance(found, int) and not isinstance(found, bool) and -(2**63) <= found < 2**64
    return str(found) if whole else None


def _checked_label(found: Any, path: Path) -> str:
    label = label_of(found)
    if label is None:
        described = "none" if found is ABSENT else shown(found)
        raise PayloadError(f'expected the stream\'s name under "{path.text}", found {described}')
    return label
