"""Outgoing messages of a batch as bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from edge_lstm.service.processing.outbox import Outgoing


def pack(messages: Sequence[Outgoing]) -> bytes:
    """Number of parts, length of each (4 bytes per number), then the parts: topic, payload, topic, payload, …"""
    parts = [piece for topic, payload in messages for piece in (topic.encode(), payload)]
    return struct.pack(f"<{1 + len(parts)}I", len(parts), *map(len, parts)) + b"".join(parts)


def unpack(content: bytes) -> Iterator[Outgoing]:
    """The messages of `pack`."""
    (count,) = struct.unpack_from("<I", content)
    at = 4 + 4 * count
    parts = []
    for length in struct.unpack_from(f"<{count}I", content, 4):
        parts.append(content[at : at + length])
        at += length
    for topic, payload in zip(parts[::2], parts[1::2], strict=True):
        yield topic.decode(), payload
