"""Files that are whole or absent: written beside their place, fsynced, then renamed into it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError


def write_file(path: Path, content: bytes | str, mode: int | None = None) -> None:
    """Put `content` at `path`, so that a crash at any moment leaves the old file or the new one, never half of one.

    `mode`: who may read and write it; None: as the umask says.
    Raises EdgeLstmError where the folder is missing or cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    descriptor, beside = _temporary_file(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).chmod(0o666 & ~_umask() if mode is None else mode)
        Path(beside).replace(path)
    except OSError as error:
        Path(beside).unlink()
        raise EdgeLstmError(
            f"expected to write {path}, found: {error.strerror}", "free some space, or name another place"
        ) from None
    except BaseException:
        Path(beside).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself has to reach the disk
    finally:
        os.close(folder)


def require_writable_folder(path: Path) -> None:
    """Raise EdgeLstmError where `path` could not be written: before long work whose end it is."""
    descriptor, beside = _temporary_file(path)
    os.close(descriptor)
    Path(beside).unlink()


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
