"""Checksums of rows and batches: they find content that changed on the disk, which SQLite itself does not notice."""

from __future__ import annotations

from zlib import crc32

WRONG = -1  # of values whose type the damage changed; no stored checksum is right then
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


def value_checksum(key: object, value: object) -> int:
    """Of a value of the service."""
    if not (isinstance(key, str) and isinstance(value, str)):
        return WRONG
    return crc32(value.encode(), crc32(key.encode())) & BITS | TOP_BIT


def batch_checksum(batch: object, facts: object, content: object) -> int:
    """Of one batch of messages or readings, together with its number and the facts (None: none) beside it."""
    if not (isinstance(batch, int) and isinstance(content, bytes) and (facts is None or isinstance(facts, str))):
        return WRONG
    return crc32(content, crc32((facts or "").encode(), batch & 0xFFFFFFFF)) & BITS | TOP_BIT


def message_checksum(message: object, batch: object) -> int:
    """Of the identity of a message that may come again."""
    if not (isinstance(message, str) and isinstance(batch, int)):
        return WRONG
    return crc32(message.encode(errors="replace"), batch & 0xFFFFFFFF) & BITS | TOP_BIT


def span_checksum(since: object, bundle: object, rules: object) -> int:
    """Of a span: which bundle stepped batches from `since` on, and by which rules."""
    if not (isinstance(since, int) and isinstance(bundle, str) and isinstance(rules, str)):
        return WRONG
    return crc32(f"{bundle}\n{rules}".encode(errors="replace"), since & 0xFFFFFFFF) & BITS | TOP_BIT


def chunk_checksum(stream: object, content: object) -> int:
    """Of a chunk of one stream's readings."""
    if not (isinstance(stream, str) and isinstance(content, bytes)):
        return WRONG
    return crc32(content, crc32(stream.encode())) & BITS | TOP_BIT
