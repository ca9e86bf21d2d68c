"""Opens text files as loggers and spreadsheets write them: plain or gzipped, by byte order mark or a given encoding.

A power failure leaves runs of NUL bytes and half a last character. They become DAMAGE signs, so that a reader can leave
out the rows that they hit.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
from pathlib import Path
from typing import IO, Any

from edge_lstm.foundation.text import marked_encoding

DAMAGE = "\x1a"  # the control character SUBSTITUTE; old programs end a file with it
_ERRORS = "edge_lstm_damage"
_NULS = re.compile(rb"\0+")
_WIDE = ("utf-16", "utf-32")  # encodings with NUL bytes in every text
_CHUNK = 65_536  # bytes


class TextFile:
    """A text file that is read once, from the beginning."""

    def __init__(self, path: Path, encoding: str | None = None, offset: int = 0) -> None:
        """Raises OSError. A byte order mark in the file goes before `encoding`. `offset`: the byte to begin at."""
        raw: Any = gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115 - `lines` closes it
        begin = raw.read(64)
        raw.seek(offset)
        self.encoding = marked_encoding(begin) or encoding or _unmarked_encoding(begin)
        self._source = _Source(raw, self.encoding.startswith(_WIDE))
        buffered = io.BufferedReader(self._source, _CHUNK)
        self.lines: IO[str] = io.TextIOWrapper(buffered, self.encoding, _ERRORS, newline="")

    @property
    def damaged(self) -> bool:
        """Whether what was read so far holds damage."""
        return self._source.damaged

    @property
    def ended(self) -> bool:
        """Whether what was read so far ends with the end of a line."""
        return self._source.last.rstrip(b"\0").endswith((b"\n", b"\r", DAMAGE.encode()))

    def __enter__(self) -> TextFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.lines.close()


class _Source(io.RawIOBase):
    """The bytes of a file, a run of NUL bytes as one DAMAGE sign."""

    def __init__(self, raw: Any, wide: bool) -> None:
        self._raw, self._wide = raw, wide
        self.damaged = False
        self.last = b""  # the last bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._raw.read(len(buffer))
        if not self._wide and b"\0" in chunk:
            chunk = _NULS.sub(DAMAGE.encode(), chunk)
        self.damaged = self.damaged or DAMAGE.encode() in chunk
        self.last = chunk[-2:] or self.last
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._raw.close()
        super().close()


def is_text_encoding(name: str) -> bool:
    """Whether Python knows an encoding of texts by this name."""
    try:
        "".encode(name)
    except (LookupError, ValueError):
        return False
    return True


def _unmarked_encoding(begin: bytes) -> str:
    """UTF-16 where every other byte is NUL, as in western texts; else UTF-8."""
    for encoding, place in (("utf-16-le", 1), ("utf-16-be", 0)):
        if len(begin) >= 8 and not any(begin[place::2]) and all(begin[1 - place :: 2]):
            return encoding
    return "utf-8"


def _damage(error: UnicodeError) -> tuple[str, int]:
    """An incomplete character at the end of the file as a DAMAGE sign. Raises other errors."""
    if isinstance(error, UnicodeDecodeError) and error.reason in ("unexpected end of data", "truncated data"):
        return DAMAGE, len(error.object)
    raise error


codecs.register_error(_ERRORS, _damage)
