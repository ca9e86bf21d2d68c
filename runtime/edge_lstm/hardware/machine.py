"""What machine this is, under `/` or another root, and which of its cores we run on."""

from __future__ import annotations

import os
import platform
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError

_TREE = Path("proc/device-tree")
# The C library's loader, by whose name a system that does not run says what it is.
_LOADERS = {
    "lib/ld-linux-aarch64.so.1": "aarch64",
    "lib/ld-linux-armhf.so.3": "armv7l",
    "lib64/ld-linux-x86-64.so.2": "x86_64",
}
_ARCHITECTURES = {"arm64": "aarch64", "amd64": "x86_64", "armv8l": "armv7l"}


@dataclass(frozen=True)
class Machine:
    """Facts of a machine; None: not known."""

    architecture: str | None  # of the userland: a 32-bit one on a 64-bit kernel is armv7l
    python: str | None
    glibc: str | None
    memory_mb: int | None  # that Linux has
    model: str | None = None  # as the device tree says
    compatible: tuple[str, ...] = ()


def this_machine(root: Path = Path("/")) -> Machine:
    """The machine that this runs on, its device tree and memory read under `root`."""
    return Machine(
        _architecture(),
        platform.python_version(),
        _glibc(),
        memory_mb(root),
        _text(root / _TREE / "model"),
        tuple(filter(None, (_text(root / _TREE / "compatible") or "").split("\0"))),
    )


def prepared_machine(root: Path) -> Machine:
    """What is known of the machine that `root` is being prepared for: no more than what lies there."""
    if root.resolve() == Path("/"):
        return this_machine()
    found = this_machine(root)
    told = {name for loader, name in _LOADERS.items() if os.path.lexists(root / loader)}
    architecture = told.pop() if len(told) == 1 else None  # with two it could be either
    return Machine(architecture, None, None, found.memory_mb, found.model, found.compatible)


def run_on(cores: list[int]) -> None:
    """Keep this process and its threads to these cores. Raises EdgeLstmError where they are not there or not ours."""
    if os.sched_getaffinity(0) <= set(cores):  # of those that are not there nobody can be kept off
        return
    try:
        os.sched_setaffinity(0, cores)
    except (OSError, ValueError, OverflowError) as error:
        raise EdgeLstmError(
            f"expected to run on the cores {', '.join(map(str, cores))}, found: {error}; "
            f"this machine has 0 to {(os.cpu_count() or 1) - 1}",
            "mend cores, or leave it out",
        ) from None


def memory_mb(root: Path = Path("/")) -> int | None:
    """Memory in all, in MB (2^20), as /proc/meminfo says; None where it does not."""
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemTotal" and rest.split()[:1] and rest.split()[0].isdecimal():
            return int(rest.split()[0]) // 1024
    return None


def _architecture() -> str:
    machine = platform.machine().lower()
    machine = _ARCHITECTURES.get(machine, machine)
    if machine == "aarch64" and struct.calcsize("P") == 4:  # the kernel's answer, not the userland's
        return "armv7l"
    return "i686" if machine == "x86_64" and sys.maxsize < 2**32 else machine


def _glibc() -> str | None:
    """Its version; None with another C library, for which there are no wheels, whatever its number."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        return None
    return version if name == "glibc" else None


def _text(path: Path) -> str | None:
    """A small file's text, without the NUL that ends those of the device tree."""
    try:
        return path.read_bytes().decode("utf-8", "replace").rstrip("\0\n")
    except OSError:
        return None
