"""Writes files atomically: to a temporary file in the same folder, fsync, then rename."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError


def write_file(path: Path, content: bytes | str, mode: int | None = None) -> None:
    """Write `content` to `path`. A crash at any moment leaves the old file or the new one, never a part of one.

    `mode`: the file's permissions; None: by the umask. Raises EdgeLstmError if the folder is missing or not writable.
    """
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = _temporary_file(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask() if mode is None else mode)
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink()
        raise EdgeLstmError(
            f"expected to write {path}, found: {error.strerror}", "free some space, or name another place"
        ) from None
    except BaseException:
        Path(temporary).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename has to reach the disk too
    finally:
        os.close(folder)


def require_writable_folder(path: Path) -> None:
    """Raise EdgeLstmError if `path` could not be written. For use before long work that ends in this file."""
    descriptor, temporary = _temporary_file(path)
    os.close(descriptor)
    Path(temporary).unlink()


def _temporary_file(path: Path) -> tuple[int, str]:
    try:
        return tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise EdgeLstmError(
            f"expected a folder that can be written at {path.parent}, found: {error.strerror}",
            "make the folder, or name another place with -o",
        ) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
