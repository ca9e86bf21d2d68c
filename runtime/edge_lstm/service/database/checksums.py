"""Checksums of rows and batches: they find content that changed on the disk, which SQLite itself does not notice."""

from __future__ import annotations

from zlib import crc32

BITS, TOP_BIT = 0x3FFFFFFF, 0x40000000  # such a number always takes 4 bytes in a row: a row keeps its length


def layout_seed(number: int, description: str) -> int:
    """Where the checksums of the rows of a layout begin: a damaged description makes them wrong."""
    return crc32(description.encode(), number)


def name_checksum(stream: str, seed: int) -> int:
    """Where the checksum of a stream's row begins."""
    return crc32(stream.encode(), seed)


def young_checksum(begun: int, young: int) -> int:
    """Where the checksum of the row of a stream begins that has few readings; `begun`: of its name."""
    return crc32(young.to_bytes(8, "little", signed=True), begun) if young else begun


def row_checksum(begun: int, row: bytes) -> int:
    """Of a stream's row; `begun`: of its name."""
    return crc32(row, begun) & BITS | TOP_BIT


def value_checksum(key: str, value: str) -> int:
    """Of a value of the service."""
    return crc32(value.encode(), crc32(key.encode())) & BITS | TOP_BIT


def batch_checksum(batch: int, facts: str | None, content: bytes) -> int:
    """Of one batch of messages or readings, together with its number and the facts beside it."""
    return crc32(content, crc32((facts or "").encode(), batch & 0xFFFFFFFF)) & BITS | TOP_BIT


def message_checksum(message: str, batch: int) -> int:
    """Of the identity of a message that may come again."""
    return crc32(message.encode(errors="replace"), batch & 0xFFFFFFFF) & BITS | TOP_BIT


def span_checksum(since: int, bundle: str, rules: str) -> int:
    """Of a span: which bundle stepped batches from `since` on, and by which rules."""
    return crc32(f"{bundle}\n{rules}".encode(errors="replace"), since & 0xFFFFFFFF) & BITS | TOP_BIT


def chunk_checksum(stream: str | None, content: bytes) -> int:
    """Of a chunk of one stream's readings."""
    return crc32(content, crc32((stream or "").encode())) & BITS | TOP_BIT
