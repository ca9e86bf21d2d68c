"""The CSV file that `record` writes: one row a reading, each on the disk when `append` returns.

A file with other columns is refused. A row that a crash left incomplete is removed before the next one is written.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_lstm.foundation.csv_text import csv_text
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.times.text import format_time
from edge_lstm.streaming.reading import Reading

log = logging.getLogger(__name__)

_LONGEST_HEADER = 1_000_000  # bytes; a file that is none of ours may have no lines


class RecordingFile:
    """A growing CSV file of readings, with the columns time, stream and one per feature."""

    def __init__(
        self, path: Path, features: Sequence[str], categories: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """`categories`: by feature, the texts that its values are indices of; the file gets the texts.

        Raises EdgeLstmError where the file cannot be written, or has other columns.
        """
        self.path, self.features = path, list(features)
        self._categories = categories or {}
        header = csv_text([["time", "stream", *self.features]]).encode()
        try:
            # unbuffered: a write that a full disk refused must not be repeated later
            self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
            found = self._file.readline(_LONGEST_HEADER)
            if found and found.rstrip(b"\r\n") != header.rstrip(b"\n"):
                self._file.close()
                raise EdgeLstmError(
                    f"{path}: expected the columns time, stream, {', '.join(self.features)}, found "
                    f"{found.decode('utf-8', 'replace').strip()}",
                    "name another file with -o, or the features of that file",
                )
            self._size = self._whole_rows()
            self._file.truncate(self._size)
            self._file.seek(self._size)
            if not self._size:
                self._write(header)
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Close the file; every row is on the disk already."""
        self._file.close()

    def append(self, readings: Sequence[Reading]) -> None:
        """Write the readings and fsync. Raises EdgeLstmError where the disk is full; the file then ends as before."""
        try:
            self._write(b"".join(map(self._line, readings)))
        except OSError as error:
            self._file.truncate(self._size)
            raise self._unwritable(error) from None

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())
        self._size += len(data)

    def _line(self, reading: Reading) -> bytes:
        cells = [self._cell(name, reading.values.get(name, math.nan)) for name in self.features]
        return csv_text([[format_time(reading.time), reading.stream, *cells]]).encode()

    def _cell(self, name: str, value: float) -> str:
        if math.isnan(value):
            return ""
        return self._categories[name][int(value)] if name in self._categories else repr(value)

    def _whole_rows(self) -> int:
        """The size of the file up to its last whole row. The broker repeats the reading of an incomplete row."""
        size = self._file.seek(0, os.SEEK_END)
        end = size
        while end:
            begin = max(0, end - 65_536)
            self._file.seek(begin)
            at = self._file.read(end - begin).rfind(b"\n")
            if at >= 0:
                end = begin + at + 1
                break
            end = begin
        if end < size:
            log.warning("half a row removed file=%s bytes=%d", self.path, size - end)
        return end

    def _unwritable(self, error: OSError) -> EdgeLstmError:
        return EdgeLstmError(
            f"expected to write {self.path}, found: {error.strerror}", "free some space, or name another place with -o"
        )
