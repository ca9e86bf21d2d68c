"""Payload bytes to plain facts (dict, list, text, number): JSON, MessagePack, CSV and text; what is none is refused."""

from __future__ import annotations

import contextlib
import csv
import json
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

_fast_loads: Callable[[bytes], Any] | None = None
_fast_dumps: Callable[[Any], bytes] | None = None
with contextlib.suppress(ImportError):  # the extra `fast`; without it the same messages mean the same
    from orjson import dumps as _fast_dumps
    from orjson import loads as _fast_loads

_repr = reprlib.Repr()  # cuts what is long, deep or large
_repr.maxstring = _repr.maxother = _repr.maxlong = 60

Parse = Callable[[bytes], Any]


class PayloadError(ValueError):
    """A message that the mapping does not fit: counted and reported, never fatal.

    `readings` are those in the same message that do fit.
    """

    def __init__(self, message: str, readings: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.readings = list(readings)


def load_json() -> Callable[[bytes], Any]:
    """The fastest reader of JSON that is installed; it raises ValueError, also for NaN."""
    return _fast_loads or json.loads


def dump_json(facts: Any) -> str:
    """JSON for our own reading; a number that is none may be null or NaN."""
    return json.dumps(facts) if _fast_dumps is None else _fast_dumps(facts).decode()


def parse_json(payload: bytes) -> Any:
    """The facts in a JSON text. NaN and Infinity are read, as many a device writes them. Raises PayloadError."""
    if _fast_loads is not None:
        try:
            return _fast_loads(payload)
        except ValueError:
            pass  # NaN, a byte order mark or UTF-16, which json reads: what json takes is taken
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"expected JSON, found {shown_bytes(payload)} ({error})") from None


def parse_msgpack(payload: bytes) -> Any:
    """The facts in a MessagePack value; its timestamps become seconds. Raises PayloadError."""
    import msgpack

    try:
        return msgpack.unpackb(payload, timestamp=1)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise PayloadError(f"expected MessagePack, found {shown_bytes(payload)} ({error})") from None


def parse_text(payload: bytes) -> str:
    """The text itself. Raises PayloadError where it is not UTF-8."""
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise PayloadError(f"expected text in UTF-8, found {shown_bytes(payload)} ({error})") from None


def csv_parser(columns: Sequence[str], separator: str) -> Parse:
    """A parser of lines with these columns: it gives a list of {column: text}, one a line."""

    def parse_csv(payload: bytes) -> list[dict[str, str]]:
        lines = [line for line in parse_text(payload).splitlines() if line.strip()]
        try:
            rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
        except csv.Error as error:
            raise PayloadError(f"expected lines of CSV, found {shown_bytes(payload)} ({error})") from None
        for row in rows:
            if len(row) != len(columns):
                expected = f"{len(columns)} columns ({separator.join(columns)})"
                raise PayloadError(f"expected {expected}, found {len(row)} in {shown_bytes(payload)}")
        return [dict(zip(columns, row, strict=True)) for row in rows]

    return parse_csv


def shown(value: object) -> str:
    """A value for an error: short, on one line, whatever a stranger sent."""
    text = json.dumps(value[:60], ensure_ascii=True) if isinstance(value, str) else _repr.repr(value)
    return f"{text}…" if isinstance(value, str) and len(value) > 60 else text


def shown_bytes(payload: bytes) -> str:
    """The beginning of a payload for an error."""
    text = payload[:60].decode("utf-8", "replace")
    return f"{text!r}{'…' if len(payload) > 60 else ''}"
