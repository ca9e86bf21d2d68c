"""JSON for the status topics, made smaller where the broker takes no message of the full size."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_TEXT_LENGTHS = (200, 60, 20)  # characters, tried in this order
_MOST_USEFUL = ("readings", "predictions", "refused", "queue", "unconfirmed", "waiting", "too_large", "lag_s")


def status_payload(facts: Mapping[str, Any], fits: Callable[[bytes], bool]) -> bytes:
    """`facts` as JSON: all of them if that fits, else without lists and tables, then with shorter texts, and at last
    only the most useful numbers. If nothing fits, the smallest one."""
    payload = b""
    for smaller in _smaller(facts):
        payload = json.dumps(smaller).encode()
        if fits(payload):
            break
    return payload


def _smaller(facts: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield facts
    flat = {name: value for name, value in facts.items() if not isinstance(value, (Mapping, list, tuple))}
    yield flat
    for length in _TEXT_LENGTHS:
        yield {name: _shortened(value, length) for name, value in flat.items()}
    if numbers := {name: flat[name] for name in _MOST_USEFUL if name in flat}:
        yield numbers


def _shortened(value: Any, length: int) -> Any:
    return f"{value[: length - 1]}…" if isinstance(value, str) and len(value) > length else value
