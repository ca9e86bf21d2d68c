"""Reads a zip file of a few uncompressed entries, as bundles and .npz files are, and nothing else.

Python's zipfile reads the whole directory into objects before a caller can count them, and finds an archive inside
other bytes. Here the count comes first, and every byte belongs to an entry or to the directory.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from edge_lstm.foundation.text import printable

_END = struct.Struct("<4s4H2LH")  # the end of the directory, without a comment
_RECORD = struct.Struct("<4s4B4HL2L5H2L")  # of the directory
_LOCAL = struct.Struct("<4s2B4HL2L2H")  # before the bytes of an entry
_UTF8_NAME = 0x800  # the only flag that changes nothing
_MOST_EXTRA = 64  # bytes beside the name; numpy writes 20


class Entry(NamedTuple):
    """An entry of a zip file, before its bytes are read."""

    name: str
    size: int
    attributes: int  # external attributes: the mode of the file in the upper half
    checksum: int
    at: int  # of its local header


def directory(data: bytes, most_entries: int) -> list[Entry]:
    """The entries in the order of the directory.

    Raises ValueError where the file is no such zip file, has a compressed entry, or more than `most_entries`.
    """
    if len(data) < _END.size or data[:2] != b"PK":
        raise ValueError("a file that is no zip file, or has other bytes before it")
    sign, *disks, count, size, begin, comment = _END.unpack(data[-_END.size :])
    if sign != b"PK\x05\x06" or comment:
        raise ValueError("bytes behind the archive")
    if disks != [0, 0, count]:
        raise ValueError("a zip file in parts")
    if count > most_entries:
        raise ValueError(f"{count} entries, more than {most_entries}")
    end = len(data) - _END.size
    if begin + size != end:
        raise ValueError("bytes before or behind the archive")
    entries, place = [], begin
    for _ in range(count):
        entry, place = _entry(data, place, end)
        entries.append(entry)
    if place != end:
        raise ValueError("bytes between the directory and its end")
    names = {entry.name for entry in entries}
    if len(names) < count:
        raise ValueError(f"{count} entries of {len(names)} names")
    if (claimed := sum(entry.size for entry in entries)) > len(data):
        raise ValueError(f"entries that claim {claimed} bytes in a file of {len(data)}")
    return entries


def contents(data: bytes, entries: list[Entry]) -> dict[str, bytes]:
    """The bytes of all entries of `directory(data)` by name.

    Raises ValueError where an entry is damaged, or a byte of the file belongs to none.
    """
    found, place = {}, 0
    for entry in sorted(entries, key=lambda one: one.at):
        shown = printable(entry.name)
        if entry.at != place or place + _LOCAL.size > len(data):
            raise ValueError(f"bytes before {shown!r} that belong to no entry, or to two")
        sign, _, _, flags, method, *_, name, extra = _LOCAL.unpack_from(data, place)
        start = place + _LOCAL.size + name
        if (
            extra > _MOST_EXTRA
            or sign != b"PK\x03\x04"
            or method
            or flags & ~_UTF8_NAME
            or _text(data[start - name : start]) != entry.name
        ):
            raise ValueError(f"another header of {shown!r} than the directory has")
        place = start + extra + entry.size
        content = data[start + extra : place]
        if len(content) != entry.size or zlib.crc32(content) != entry.checksum:
            raise ValueError(f"{shown!r} with another checksum than the directory has")
        found[entry.name] = content
    end = int.from_bytes(data[-6:-2], "little")  # where the directory begins
    if place != end:
        raise ValueError("bytes between the entries and the directory")
    return found


def _entry(data: bytes, place: int, end: int) -> tuple[Entry, int]:
    """(the entry of the record at `place`, the place after it)"""
    if place + _RECORD.size > end:
        raise ValueError("a directory that is cut off")
    record = _RECORD.unpack_from(data, place)
    sign, flags, method, checksum, packed, size = record[0], record[5], record[6], record[9], record[10], record[11]
    name, extra, comment, disk = record[12:16]
    attributes, at = record[17], record[18]
    start = place + _RECORD.size
    place = start + name + extra + comment
    if sign != b"PK\x01\x02" or place > end or disk or comment or extra > _MOST_EXTRA or flags & ~_UTF8_NAME:
        raise ValueError("a directory with a damaged or unknown record")
    text = _text(data[start : start + name])
    if method or packed != size:
        raise ValueError(f"{printable(text)!r} that is compressed")
    return Entry(text, size, attributes, checksum, at), place


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
