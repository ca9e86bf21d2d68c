"""An operator's command: the JSON of a message as typed values. It knows no stream and no event.

`{"id": "a1", "command": "missed", "stream": "pump-7", "from": "2026-03-01T08:00Z", "to": "2026-03-01T09:00Z"}`
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import is_printable
from edge_lstm.foundation.times.text import parse_time
from edge_lstm.messages.formats.payloads import PayloadError, parse_json, shown

MOST_BYTES = 4096  # of a message
_MOST_ID = 64  # characters
_TEXTS, _TIMES, _FLAGS = ("stream", "event", "sensor", "of"), ("from", "to", "until"), ("residuals",)

# by command: the keys that it needs, and those that it may have
KEYS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "false_alarm": (("event",), ("residuals",)),
    "missed": (("stream", "from", "to"), ()),
    "maintenance": (("stream", "until"), ()),
    "recalibrate": (("stream",), ("from",)),
    "sensor_replaced": (("stream", "sensor"), ()),
    "revert": (("of",), ()),
}


class CommandError(EdgeLstmError):
    """A command that is refused; nothing has changed. `command_id`: of the command, where it could be read."""

    def __init__(self, message: str, hint: str = "", command_id: str | None = None) -> None:
        super().__init__(message, hint)
        self.command_id = command_id


class Request(NamedTuple):
    """A command that is well formed. Times in `values` are seconds since 1970."""

    id: str
    kind: str
    values: Mapping[str, Any]

    @property
    def stream(self) -> str:
        """The stream that it names; that of its event if it names one; "" if it names neither."""
        named: str = self.values.get("stream") or self.values.get("event", "").rpartition("@")[0]
        return named


def request_of(payload: bytes) -> Request:
    """The command of a message. Raises CommandError that says what is wrong."""
    if len(payload) > MOST_BYTES:
        raise CommandError(
            f"expected a command of at most {MOST_BYTES} bytes, found {len(payload):,}", "send one command a message"
        )
    try:
        found = parse_json(payload)
    except PayloadError as error:
        raise CommandError(str(error), 'send JSON like {"id": "a1", "command": "false_alarm", "event": "…"}') from None
    if not isinstance(found, dict):
        raise CommandError(f"expected a JSON object, found {shown(found)}", "send one command a message")
    number = _id_of(found)
    try:
        return _checked(number, found)
    except CommandError as error:
        raise CommandError(error.message, error.hint, number) from None


def _id_of(found: Mapping[str, Any]) -> str:
    number = found.get("id")
    if not isinstance(number, str) or not 0 < len(number) <= _MOST_ID or not is_printable(number):
        raise CommandError(
            f"expected an id of 1 to {_MOST_ID} printable characters, found {shown(number)}",
            "give each command an id of its own, such as a UUID: a command that comes again is known by it",
        )
    return number


def _checked(number: str, found: Mapping[str, Any]) -> Request:
    kind = found.get("command")
    if not isinstance(kind, str) or kind not in KEYS:
        raise CommandError(f"expected a command, found {shown(kind)}", suggestion(str(kind), KEYS))
    needed, allowed = KEYS[kind]
    known = ("id", "command", *needed, *allowed)
    for name in found:
        if name not in known:
            raise CommandError(f"{kind}: expected no key {shown(name)}", suggestion(name, known))
    if missing := [name for name in needed if name not in found]:
        raise CommandError(f"{kind}: expected {', '.join(missing)}, found nothing", f"its keys are {', '.join(known)}")
    values = {name: _value(kind, name, found[name]) for name in (*needed, *allowed) if name in found}
    if "to" in values and values["to"] < values["from"]:
        raise CommandError(f"{kind}: expected `to` after `from`", "exchange the two")
    return Request(number, kind, values)


def _value(kind: str, name: str, value: Any) -> Any:
    if name in _TIMES:
        try:
            return parse_time(value)
        except ValueError as error:
            raise CommandError(f"{kind}: {name}: {error}", "write a time like 2026-03-01T08:00:00Z") from None
    expected: type = bool if name in _FLAGS else str
    if not isinstance(value, expected) or value == "":
        form = "true or false" if expected is bool else "a text"
        raise CommandError(f"{kind}: {name}: expected {form}, found {shown(value)}", "correct the value")
    return value
