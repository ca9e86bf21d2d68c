"""Facts about a machine, read under `/` or another root folder; and the CPU cores of this process."""

from __future__ import annotations

import os
import platform
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.permissions import is_within

_DEVICE_TREE = Path("proc/device-tree")
# The file name of the C library's loader gives the architecture of a system that is not running.
_LOADERS = {
    "lib/ld-linux-aarch64.so.1": "aarch64",
    "lib/ld-linux-armhf.so.3": "armv7l",
    "lib64/ld-linux-x86-64.so.2": "x86_64",
}
_ARCHITECTURES = {"arm64": "aarch64", "amd64": "x86_64", "armv8l": "armv7l"}


@dataclass(frozen=True)
class Machine:
    """Facts about a machine; None: not known."""

    architecture: str | None  # of the userland: armv7l where it has 32 bits, also on a 64-bit kernel
    python: str | None
    glibc: str | None
    memory_mb: int | None  # total memory that Linux reports
    model: str | None = None  # from the device tree
    compatible: tuple[str, ...] = ()


def this_machine(root: Path = Path("/")) -> Machine:
    """This machine. Its device tree and memory are read under `root`."""
    return Machine(
        _architecture(),
        platform.python_version(),
        _glibc(),
        memory_mb(root),
        _text(root, _DEVICE_TREE / "model"),
        tuple(filter(None, (_text(root, _DEVICE_TREE / "compatible") or "").split("\0"))),
    )


def prepared_machine(root: Path) -> Machine:
    """The machine whose system is in the folder `root`: only what the files there show."""
    if root.resolve() == Path("/"):
        return this_machine()
    found = this_machine(root)
    present = {name for loader, name in _LOADERS.items() if os.path.lexists(root / loader)}
    architecture = present.pop() if len(present) == 1 else None  # with two loaders it could be either
    return Machine(architecture, None, None, found.memory_mb, found.model, found.compatible)


def run_on(cores: list[int]) -> None:
    """Restrict this process and its threads to these CPU cores. Raises EdgeLstmError where that is not allowed."""
    if os.sched_getaffinity(0) <= set(cores):  # it is restricted to them already
        return
    try:
        os.sched_setaffinity(0, cores)
    except (OSError, ValueError, OverflowError) as error:
        raise EdgeLstmError(
            f"expected to run on the cores {', '.join(map(str, cores))}, found: {error}; "
            f"this machine has 0 to {(os.cpu_count() or 1) - 1}",
            "correct cores, or leave it out",
        ) from None


def memory_mb(root: Path = Path("/")) -> int | None:
    """Total memory in MB (2^20 bytes) from /proc/meminfo; None where it is not given there."""
    for line in (_text(root, Path("proc/meminfo")) or "").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemTotal" and rest.split()[:1] and rest.split()[0].isdecimal():
            return int(rest.split()[0]) // 1024
    return None


def _architecture() -> str:
    machine = platform.machine().lower()
    machine = _ARCHITECTURES.get(machine, machine)
    if machine == "aarch64" and struct.calcsize("P") == 4:  # platform.machine() reports the kernel, not the userland
        return "armv7l"
    return "i686" if machine == "x86_64" and sys.maxsize < 2**32 else machine


def _glibc() -> str | None:
    """The version of glibc; None with another C library, for which there are no wheels."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        return None
    return version if name == "glibc" else None


def _text(root: Path, path: Path) -> str | None:
    """The text of a small file under `root`, without the final NUL that files of the device tree have.

    None: there is none, or a link leads out of the root to it.
    """
    try:
        if not is_within(root / path, root):
            return None
        return (root / path).read_bytes().decode("utf-8", "replace").rstrip("\0\n")
    except OSError:
        return None
