"""Checksums of rows and batches: they find content that changed on the disk, which SQLite itself does not notice."""

from __future__ import annotations

from zlib import crc32

_BITS, _TOP_BIT = 0x3FFFFFFF, 0x40000000  # such a number always takes 4 bytes in a row: a row keeps its length


def row_checksum(stream: str, layout: int, row: bytes) -> int:
    """Of a stream's row of the layout with this number."""
    return crc32(row, crc32(stream.encode(), layout)) & _BITS | _TOP_BIT


def batch_checksum(batch: int, facts: str | None, content: bytes) -> int:
    """Of one batch of messages or readings, together with its number and the facts beside it."""
    return crc32(content, crc32((facts or "").encode(), batch & 0xFFFFFFFF)) & _BITS | _TOP_BIT


def chunk_checksum(stream: str | None, content: bytes) -> int:
    """Of a chunk of one stream's readings."""
    return crc32(content, crc32((stream or "").encode())) & _BITS | _TOP_BIT
