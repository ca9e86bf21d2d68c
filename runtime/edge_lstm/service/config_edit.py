"""Sets keys in an existing service config; other lines, comments and the file's mode stay unchanged.

It edits lines and does not parse TOML. So it checks the result: the edited text has to hold the old values with the new
ones, or nothing is written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_lstm.foundation.config import toml_table
from edge_lstm.foundation.errors import ConfigError
from edge_lstm.foundation.files import write_file

_TABLE = re.compile(r"[ \t]*\[")


def set_keys(path: Path, values: Mapping[str, str], check: Callable[[Mapping[str, Any]], object]) -> None:
    """Set top-level keys of the TOML file at `path` to these texts, in place or below its first key.

    Raises ConfigError, and leaves the file unchanged, if anything else would change or `check` raises it.
    """
    path = path.resolve()  # keeps a link
    try:
        before = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"expected to read TOML from {path}, found: {error}", "name a TOML text file") from None
    after = edited(before, values)
    held, wanted = _read(before), _read(after)
    if held is None or wanted != {**held, **values}:
        lines = ", ".join(f"{name} = {json.dumps(text)}" for name, text in values.items())
        raise ConfigError(
            f"{path}: expected a file in which these keys can be set line by line, found another form",
            f"write them yourself, above the first [table]: {lines}",
        )
    check(wanted)
    old = path.stat()
    write_file(path, after, mode=old.st_mode & 0o777)
    if os.geteuid() == 0:
        os.chown(path, old.st_uid, old.st_gid)  # the owner stays the same


def edited(text: str, values: Mapping[str, str]) -> str:
    """`text` with the lines of these keys changed or added."""
    lines = text.splitlines(keepends=True)
    newline = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    for name, value in reversed(list(values.items())):  # each is inserted above the one before
        end = next((number for number, line in enumerate(lines) if _TABLE.match(line)), len(lines))
        pattern = re.compile(rf"""([ \t]*{re.escape(name)}[ \t]*=[ \t]*)("[^"\n]*"|'[^'\n]*')(.*)""", re.DOTALL)
        for number in range(end):
            if (match := pattern.fullmatch(lines[number])) is not None:
                lines[number] = f"{match[1]}{json.dumps(value)}{match[3]}"
                break
        else:
            first = next((number for number in range(end) if "=" in lines[number].split("#")[0]), -1)
            if first >= 0 and not lines[first].endswith("\n"):
                lines[first] += newline
            lines.insert(first + 1, f"{name} = {json.dumps(value)}{newline}")
    return "".join(lines)


def _read(text: str) -> dict[str, Any] | None:
    try:
        return dict(toml_table(text))
    except ValueError:  # not TOML
        return None
