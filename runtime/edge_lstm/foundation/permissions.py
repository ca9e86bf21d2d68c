"""Which users may read or write a file: secrets, files that decide what is trusted, and the state database.

Elsewhere than on POSIX systems, where files have no such permissions, nothing is refused or changed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError

PRIVATE = 0o600
_HAS_PERMISSIONS = os.name == "posix"
_OF_GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_ODD_DISK = "; if that changes nothing, move it to a file system that keeps permissions"


def require_private(path: Path) -> None:
    """Raise EdgeLstmError if other users may read or write the secret in the file `path`, or may replace it.

    The group may read a file of root: so a service without a login gets its secret. Raises OSError if there is no file.
    """
    if not _HAS_PERMISSIONS:
        return
    facts = path.stat()
    refused = _mode_of_others(facts)
    if facts.st_uid == 0:
        refused &= ~stat.S_IRGRP
    if refused:
        raise EdgeLstmError(
            f"expected {path} to be closed to other users, found permissions {_shown(facts)}",
            f"chmod 600 {path}{_ODD_DISK}",
        )
    _require_owner(path, facts)


def require_unaltered_by_others(path: Path) -> None:
    """Raise EdgeLstmError if other users may write the file `path`, which decides what is trusted, or may replace it.

    Raises OSError if there is no file.
    """
    if not _HAS_PERMISSIONS:
        return
    facts = path.stat()
    if _mode_of_others(facts) & (stat.S_IWGRP | stat.S_IWOTH):
        raise EdgeLstmError(
            f"expected {path} to be writable by its owner only, found permissions {_shown(facts)}",
            f"chmod 644 {path}{_ODD_DISK}",
        )
    _require_owner(path, facts)


def is_within(path: Path, folder: Path) -> bool:
    """Whether the file `path` lies in `folder` or below it, after all links are followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def make_private(path: Path) -> bool:
    """Close an existing file to other users; whether that was needed and done.

    A file of another user stays as it is.
    """
    if not is_open_to_others(path):
        return False
    with contextlib.suppress(OSError):
        path.chmod(PRIVATE)
    return not is_open_to_others(path)


def is_open_to_others(path: Path) -> bool:
    """Whether there is such a file, and its group or others may read or write it."""
    return _HAS_PERMISSIONS and path.exists() and bool(path.stat().st_mode & _OF_GROUP_AND_OTHERS)


def _mode_of_others(facts: os.stat_result) -> int:
    """The permission bits that other users have. A group with the number of its user has nobody else in it."""
    own_group = facts.st_gid == facts.st_uid
    return facts.st_mode & (stat.S_IRWXO if own_group else _OF_GROUP_AND_OTHERS)


def _require_owner(path: Path, facts: os.stat_result) -> None:
    folder = path.parent.stat()
    if facts.st_uid not in (0, os.geteuid(), folder.st_uid):
        raise EdgeLstmError(
            f"expected {path} to belong to the user, to root or to the owner of its folder, found user {facts.st_uid}",
            f"chown {os.geteuid()} {path}, or copy it",
        )
    if folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX:
        raise EdgeLstmError(
            f"expected that others may not replace {path}, found its folder with permissions {_shown(folder)}",
            f"chmod o-w {path.parent}{_ODD_DISK}",
        )


def _shown(facts: os.stat_result) -> str:
    return f"{stat.S_IMODE(facts.st_mode):03o}"
