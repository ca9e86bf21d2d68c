"""Parses payloads (JSON, MessagePack, CSV, text) to plain values: dict, list, text, number."""

from __future__ import annotations

import codecs
import contextlib
import csv
import json
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

_fast_loads: Callable[[bytes], Any] | None = None
_fast_dumps: Callable[[Any], bytes] | None = None
with contextlib.suppress(ImportError):  # the extra `fast`; without it, messages mean the same
    from orjson import dumps as _fast_dumps
    from orjson import loads as _fast_loads

_repr = reprlib.Repr()  # shortens long, deep or large values
_repr.maxstring = _repr.maxother = _repr.maxlong = 60

Parse = Callable[[bytes], Any]


class PayloadError(ValueError):
    """A message that does not fit the mapping. It is counted and reported, and never ends the service.

    `readings` are those in the same message that fit.
    """

    def __init__(self, message: str, readings: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.readings = list(readings)


def load_json() -> Callable[[bytes], Any]:
    """The fastest installed JSON parser. It raises ValueError, and may do so for NaN."""
    return _fast_loads or json.loads


def dump_json(facts: Any) -> str:
    """JSON that only we read; NaN may be null or NaN in it."""
    return json.dumps(facts) if _fast_dumps is None else _fast_dumps(facts).decode()


def parse_json(payload: bytes) -> Any:
    """The value of a JSON text. NaN and Infinity are allowed: some devices write them. Raises PayloadError."""
    if _fast_loads is not None:
        try:
            return _fast_loads(payload)
        except ValueError:
            pass  # NaN, a byte order mark or UTF-16: json reads those
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        text = _without_nuls(payload)
        if len(text) < len(payload) and json.detect_encoding(payload).startswith("utf-8"):
            return parse_json(text)
        raise PayloadError(f"expected JSON, found {shown_bytes(payload)} ({error})") from None


def parse_msgpack(payload: bytes) -> Any:
    """The value of a MessagePack payload; timestamps become seconds. Raises PayloadError."""
    import msgpack

    try:
        return msgpack.unpackb(payload, timestamp=1)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise PayloadError(f"expected MessagePack, found {shown_bytes(payload)} ({error})") from None


def parse_text(payload: bytes) -> str:
    """The payload as text. Raises PayloadError if it is not UTF-8."""
    try:
        return _without_nuls(payload).removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        found = f"{shown_bytes(payload)} ({error})"
        raise PayloadError(f'expected text in UTF-8 (or set encoding = "cp1252"), found {found}') from None


def _without_nuls(payload: bytes) -> bytes:
    """The payload without what follows its text in a buffer of C: NULs, and white space after them."""
    text = payload.rstrip(b"\0 \t\r\n")
    end = payload.find(b"\0", len(text))
    return payload if end < 0 else payload[:end]


def recoded(parse: Parse, encoding: str) -> Parse:
    """The parser for payloads in another encoding."""
    return lambda payload: parse(payload.decode(encoding, "replace").encode())


def csv_parser(columns: Sequence[str], separator: str) -> Parse:
    """A parser of lines with these columns to a list of {column: text}; a PayloadError in place of any other line."""

    def parse_csv(payload: bytes) -> list[dict[str, str] | PayloadError]:
        lines = [line for line in parse_text(payload).splitlines() if line.strip()]
        try:
            rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
        except csv.Error as error:
            raise PayloadError(f"expected lines of CSV, found {shown_bytes(payload)} ({error})") from None
        other_counts = {len(row) for row in rows} - {len(columns)}
        expected = f"expected {len(columns)} columns ({separator.join(columns)})"
        faults = {count: PayloadError(f"{expected}, found {count} in {shown_bytes(payload)}") for count in other_counts}
        return [faults.get(len(row)) or dict(zip(columns, row, strict=True)) for row in rows]

    return parse_csv


def shown(value: object) -> str:
    """A value for an error message: short and on one line, however large it is."""
    text = json.dumps(value[:60], ensure_ascii=True) if isinstance(value, str) else _repr.repr(value)
    return f"{text}…" if isinstance(value, str) and len(value) > 60 else text


def shown_bytes(payload: bytes) -> str:
    """The beginning of a payload for an error message."""
    text = payload[:60].decode("utf-8", "replace")
    return f"{text!r}{'…' if len(payload) > 60 else ''}"
