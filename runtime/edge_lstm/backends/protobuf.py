"""Reads the fields of a protobuf message in pure Python, for files that no parser in C++ has seen yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4 (groups) are refused
_MOST_FIELDS = 200_000  # in a whole file, about half a second; a voice detector has 12,000
_SIZES = {FIXED64: 8, FIXED32: 4}


class ProtobufError(ValueError):
    """The bytes are no protobuf message, or one of too many fields."""


class Field(NamedTuple):
    """One field of a message: its number, its wire type, and its value."""

    number: int
    wire: int
    value: int  # of a varint; 0 for others
    start: int  # of its bytes in the file
    end: int


class ProtobufReader:
    """Reads messages anywhere in `content`. It counts the fields of all messages, and refuses too many."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._fields = 0

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message from `start` to `end`. Raises ProtobufError."""
        place = start
        while place < end:
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise ProtobufError(f"more than {_MOST_FIELDS} fields")
            tag, place = self._varint(place, end)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 2**29:
                raise ProtobufError(f"a field number {number} at byte {place}")
            value = 0
            if wire == VARINT:
                first = place
                value, place = self._varint(place, end)
            elif wire == BYTES:
                size, first = self._varint(place, end)
                place = first + size
            elif wire in _SIZES:
                first = place
                place += _SIZES[wire]
            else:
                raise ProtobufError(f"a field of wire type {wire} at byte {place}")
            if place > end:
                raise ProtobufError(f"a field that ends after its message, at byte {first}")
            yield Field(number, wire, value, first, place)

    def text(self, field: Field) -> str:
        """The text of a field of bytes; bytes that are no UTF-8 are replaced."""
        return self.content[field.start : field.end].decode("utf-8", "replace")

    def _varint(self, place: int, end: int) -> tuple[int, int]:
        """(value, the place after it)"""
        value = 0
        for shift in range(0, 70, 7):
            if place >= end:
                raise ProtobufError(f"a number that ends after its message, at byte {place}")
            byte = self.content[place]
            place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, place
        raise ProtobufError(f"a number of more than ten bytes at byte {place}")
