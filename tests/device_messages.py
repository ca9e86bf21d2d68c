"""Messages of devices with the readings that they hold, from tests/fixtures."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_lstm.foundation.config import from_mapping
from edge_lstm.messages.decoder import Decoder
from edge_lstm.messages.mapping import InputMapping
from tests.paths import FIXTURES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class DeviceMessage:
    """A message, the name of the mapping that reads it, and what is expected: readings, "ignored" or "refused: why"."""

    mapping: str
    topic: str
    payload: bytes
    properties: Mapping[str, str]
    expect: Sequence[Mapping[str, Any]] | str


def device_messages() -> list[DeviceMessage]:
    """All messages, in the order of the file."""
    rows = [json.loads(line) for line in (FIXTURES / "messages.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        DeviceMessage(
            row["mapping"],
            row["topic"],
            row["payload"].encode() if "payload" in row else bytes.fromhex(row["payload_hex"]),
            row.get("properties", {}),
            row["expect"],
        )
        for row in rows
    ]


def decoders() -> dict[str, Decoder]:
    """A decoder for each mapping of fixtures/mappings.toml."""
    tables = tomllib.loads((FIXTURES / "mappings.toml").read_text(encoding="utf-8"))
    return {name: decoder(table, table.pop("features")) for name, table in tables.items()}


def decoder(table: Mapping[str, Any], features: Sequence[str]) -> Decoder:
    """The decoder of an [input] table."""
    return Decoder(from_mapping(table, InputMapping, "service.toml"), features)
