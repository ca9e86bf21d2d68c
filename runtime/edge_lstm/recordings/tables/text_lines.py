"""The lines of a text file: errors name the row of a wrong byte, and a line break in quotes is part of a line."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import printable
from edge_lstm.recordings.tables.text_file import TextFile

_MOST_LINES_OF_A_ROW = 10


@contextlib.contextmanager
def opened_text(path: Path, encoding: str | None, offset: int = 0) -> Iterator[TextFile]:
    """The text file, open, from the byte `offset` on. Raises EdgeLstmError if it cannot be read as its encoding."""
    try:
        with TextFile(path, encoding, offset) as file:
            yield file
    except UnicodeError as error:
        raise _encoding_error(path, encoding, error) from None
    except LookupError as error:
        raise EdgeLstmError(f"expected a known encoding, found: {error}", 'write it like "cp1252"') from None
    except (OSError, EOFError, zlib.error) as error:
        raise EdgeLstmError(f"expected a CSV file at {path}, found: {error}", "name a CSV text file") from None


def _encoding_error(path: Path, named: str | None, error: UnicodeError) -> EdgeLstmError:
    """The error with the row of the first wrong byte; `error` itself does not give the row."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for place, line in enumerate(file, 1):
            try:
                line.decode(named or "utf-8")
            except UnicodeDecodeError as found:
                text = line[max(0, found.start - 20) : found.start + 20].decode("cp1252", "replace").strip()
                meaning = "" if named else f'; in cp1252 it would be "{printable(text)}"'
                return EdgeLstmError(
                    f"expected a CSV file at {path}, in {named or 'UTF-8'}, found "
                    f"the byte 0x{line[found.start]:02x} in row {place}{meaning}",
                    'name its encoding: encoding = "cp1252" under [recording] (init, replay and simulate: '
                    "--encoding cp1252), or save it as UTF-8",
                )
    return EdgeLstmError(f"expected a CSV file at {path}, found: {error}", "name another encoding")


def whole_lines(lines: Iterable[str]) -> Iterator[str]:
    """Lines, where a line break in quotes is part of a line. A quote that no later one of some lines ends is a sign."""
    source = iter(lines)
    for line in source:
        whole = [line]
        while sum(one.count('"') for one in whole) % 2 and len(whole) < _MOST_LINES_OF_A_ROW:
            if (following := next(source, None)) is None:
                break
            whole.append(following)
        text = "".join(whole)
        if text.count('"') % 2:
            yield from whole
        else:
            yield text
