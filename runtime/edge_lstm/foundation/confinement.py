"""Takes rights away from this process for good, before it parses a file of unknown origin.

It loses the rights of root, is limited in processor time and memory, writes no files, and gets EPERM from the system
calls that open sockets, start programs, or reach other processes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import resource
import signal
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

CPU_S = 120  # far more than any self-test takes on a small board
DATA_BYTES = 512 * 2**20  # on top of what the process has; a bundle has at most 64 MB
_SET_PDEATHSIG, _SET_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 1, 38, 22, 2  # of prctl
_ALLOW, _EPERM, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # of the filter's machine
_X32 = 0x40000000  # numbers from here on are those of another ABI of x86-64


class _Architecture(NamedTuple):
    audit: int  # its number in linux/audit.h
    denied: tuple[int, ...]  # numbers of system calls


# socket, connect, accept, sendto, sendmsg, bind, listen, socketpair, accept4, sendmmsg; execve, execveat; ptrace,
# process_vm_readv, process_vm_writev, kill, tkill, pidfd_send_signal, pidfd_getfd; unlink, unlinkat, rename, renameat,
# renameat2, truncate; io_uring_setup, which could do all of these
_ARCHITECTURES: Mapping[str, _Architecture] = {
    "x86_64": _Architecture(
        0xC000003E,
        (
            *(41, 42, 43, 44, 46, 49, 50, 53, 288, 307, 59, 322, 101, 310, 311, 62, 200, 424, 438),
            *(87, 263, 82, 264, 316, 76, 425),
        ),
    ),
    "aarch64": _Architecture(
        0xC00000B7,
        (
            *(198, 203, 202, 206, 211, 200, 201, 199, 242, 269, 221, 281, 117, 270, 271, 129, 130, 424, 438),
            *(35, 38, 276, 45, 425),
        ),
    ),
    "armv7l": _Architecture(
        0x40000028,
        (
            *(281, 283, 285, 290, 296, 282, 284, 288, 366, 374, 11, 387, 26, 376, 377, 37, 238, 424, 438),
            *(10, 328, 38, 329, 382, 92, 193, 425),
        ),
    ),
}


class _Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def confine(cpu_s: int = CPU_S, data_bytes: int | None = DATA_BYTES, drop_root: bool = True) -> bool:
    """Take the rights away. Returns whether system calls are filtered: not on every processor and kernel.

    `data_bytes`: how much more memory it may take; None: any. Import everything before.
    """
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CPU, cpu_s)
    if data_bytes is not None:
        _limit(resource.RLIMIT_DATA, _data_bytes() + data_bytes)
    if drop_root:
        _drop_root()  # last: another user may not be able to import what is missing
    return _filter_system_calls()


def end_with_parent() -> None:
    """Let the kernel end this process when its parent ends."""
    _libc().prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _drop_root() -> None:
    if os.geteuid() != 0:
        return
    try:
        nobody = pwd.getpwnam("nobody")
        user, group = nobody.pw_uid, nobody.pw_gid
    except KeyError:
        user = group = 65534
    with contextlib.suppress(PermissionError):  # in a namespace without other groups
        os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)


def _limit(what: int, most: int) -> None:
    """Set both limits, and leave a lower one. Where a sandbox forbids it, its own limits hold."""
    with contextlib.suppress(ValueError, OSError):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def _data_bytes() -> int:
    """The memory of this process that RLIMIT_DATA counts."""
    for line in Path("/proc/self/status").read_bytes().splitlines():
        if line.startswith(b"VmData:"):
            return 1024 * int(line.split()[1])
    return 0


def _filter_system_calls() -> bool:
    architecture = _ARCHITECTURES.get(_architecture_name())
    if architecture is None:
        return False
    instructions = _instructions(architecture)
    program = _Program(len(instructions) // 8, instructions)
    prctl = _libc().prctl
    if prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0)


def _architecture_name() -> str:
    """The architecture of this program, which may have 32 bits on a kernel of 64."""
    machine, bits = os.uname().machine, 8 * struct.calcsize("P")
    if machine in ("aarch64", "armv8l", "armv7l", "armv6l"):
        return "aarch64" if bits == 64 else "armv7l"
    return machine if bits == 64 else ""


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
    return libc


def _instructions(architecture: _Architecture) -> bytes:
    """The filter (classic BPF): another architecture ends the process, a denied number gives EPERM."""
    denied = architecture.denied
    lines = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # the number of the call
        (_AT_LEAST, len(denied) + 1, 0, _X32),
        *((_EQUAL, len(denied) - index, 0, number) for index, number in enumerate(denied)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _EPERM),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
