"""Files of a system whose / is a folder of this machine, such as a mounted card: no link leads out of that folder.

Every step to a file is opened relative to the one before, and a link on the way is refused: a card can have links to
/etc of the machine that prepares it. Where the folder is this machine's own /, links are followed as usual.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError

_FOLDER_MODE = 0o755
_LINK_ERRORS = (errno.ELOOP, errno.ENOTDIR)  # of a link where O_NOFOLLOW and O_DIRECTORY are set


class SystemRoot:
    """A system in the folder `path`. Paths in calls are absolute paths of that system.

    Every method raises EdgeLstmError where a link is on the way, and OSError as the function of `os` does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_live = path.resolve() == Path("/")
        self._flags = os.O_RDONLY | os.O_CLOEXEC | (0 if self.is_live else os.O_NOFOLLOW)

    def on_this_machine(self, path: Path) -> Path:
        """The path of this machine for `path`. Nothing is checked."""
        return self.path / path.relative_to("/")

    def make_folder(self, path: Path) -> None:
        """Make the folder and its parents, if they are missing."""
        with self._opened(path, make=True):
            pass

    def exists(self, path: Path) -> bool:
        """Whether there is a file, folder or link."""
        return self._facts(path) is not None

    def is_link(self, path: Path) -> bool:
        facts = self._facts(path)
        return facts is not None and stat.S_ISLNK(facts.st_mode)

    def is_file(self, path: Path) -> bool:
        facts = self._facts(path)
        return facts is not None and stat.S_ISREG(facts.st_mode)

    def target(self, path: Path) -> Path | None:
        """Where the link leads, as it is written there; None: there is no link."""
        if not self.is_link(path):
            return None
        with self._opened(path.parent) as folder:
            return Path(os.readlink(path.name, dir_fd=folder))

    def names(self, path: Path) -> list[str]:
        """The names in a folder, sorted; empty without one."""
        with contextlib.suppress(FileNotFoundError), self._opened(path) as folder, os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
        return []

    def read(self, path: Path) -> bytes | None:
        """The content of a regular file; None: there is none."""
        if not self.is_file(path):
            return None
        with self._opened(path.parent) as folder:
            descriptor = os.open(path.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
        with os.fdopen(descriptor, "rb") as file:
            return file.read()

    def files(self, path: Path) -> dict[str, tuple[bytes, int]]:
        """Content and permissions of all files below the folder, by relative path."""
        found: dict[str, tuple[bytes, int]] = {}
        for name in self.names(path):
            facts = self._facts(path / name)
            if facts is not None and stat.S_ISDIR(facts.st_mode):
                found |= {f"{name}/{below}": content for below, content in self.files(path / name).items()}
            elif facts is not None and stat.S_ISREG(facts.st_mode):
                found[name] = (self.read(path / name) or b"", stat.S_IMODE(facts.st_mode))
        return found

    def write(self, path: Path, content: bytes, mode: int) -> None:
        """Write a file, completely or not at all, and fsync it."""
        beside = f".{path.name}.{secrets.token_hex(4)}"
        with self._opened(path.parent, make=True) as folder:
            # closed first: nobody else can read a secret while it is written
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fchmod(file.fileno(), mode)
                    os.fsync(file.fileno())
                os.replace(beside, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(beside, dir_fd=folder)
                raise
            os.fsync(folder)

    def link(self, path: Path, target: Path) -> None:
        """Make a link, or replace it in one step."""
        beside = f".{path.name}.{secrets.token_hex(4)}"
        with self._opened(path.parent, make=True) as folder:
            os.symlink(target, beside, dir_fd=folder)
            try:
                os.replace(beside, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(beside, dir_fd=folder)
                raise

    def remove(self, path: Path) -> None:
        """Remove a file or a link."""
        with self._opened(path.parent) as folder:
            os.unlink(path.name, dir_fd=folder)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder with all that is in it, or a file or a link."""
        facts = self._facts(path)
        if facts is None or not stat.S_ISDIR(facts.st_mode):
            self.remove(path)
            return
        with self._opened(path.parent) as folder:
            for _, folders, files, here in os.fwalk(path.name, topdown=False, follow_symlinks=False, dir_fd=folder):
                for name in files:
                    os.unlink(name, dir_fd=here)
                for name in folders:
                    if stat.S_ISLNK(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
                        os.unlink(name, dir_fd=here)
                    else:
                        os.rmdir(name, dir_fd=here)
            os.rmdir(path.name, dir_fd=folder)

    def _facts(self, path: Path) -> os.stat_result | None:
        with contextlib.suppress(FileNotFoundError), self._opened(path.parent) as folder:
            return os.stat(path.name, dir_fd=folder, follow_symlinks=False)
        return None

    @contextlib.contextmanager
    def _opened(self, path: Path, make: bool = False) -> Iterator[int]:
        """The descriptor of the folder, opened step by step. `make`: missing folders are made."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            here = Path("/")
            for name in path.relative_to("/").parts:
                here /= name
                below = self._step(descriptor, here, make)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    def _step(self, folder: int, path: Path, make: bool) -> int:
        if path.name == "..":
            raise ValueError(f"expected a path without .., found {path}")
        made = False
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path.name, _FOLDER_MODE, dir_fd=folder)
                made = True
        try:
            below = os.open(path.name, self._flags | os.O_DIRECTORY, dir_fd=folder)
            if made:
                os.fchmod(below, _FOLDER_MODE)  # whatever the umask
            return below
        except OSError as error:
            if error.errno in _LINK_ERRORS and not self.is_live:
                raise EdgeLstmError(
                    f"expected a folder {path} in {self.path}, found a link or a file there",
                    "a link in that system could lead to files of this machine: put a folder there",
                ) from None
            error.filename = str(path)
            raise
