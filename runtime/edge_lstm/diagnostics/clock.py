"""The clock: whether the time can be true, and whether somebody keeps it so."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Sequence
from pathlib import Path

from edge_lstm.diagnostics.finding import Finding
from edge_lstm.foundation.times import CLOCK_UNSET_BEFORE, format_time

_MARKER = "run/systemd/timesync/synchronized"  # systemd-timesyncd makes it when it has set the clock
_UNSYNCHRONIZED = 0x40  # STA_UNSYNC of adjtimex(2): cleared by whoever disciplines the clock, chrony and ntpd too
_FORGIVEN_S = 120.0
_REMEDY = "sudo timedatectl set-ntp true, or install chrony; without a network, fit a clock module (RTC)"


class _Timex(ctypes.Structure):
    """struct timex, as far as it is read here; glibc keeps this layout under this name on 32-bit systems too."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 64),
    )


def sane(now: float, files: Sequence[Path]) -> Finding:
    """`now` (seconds since 1970) against the calendar, and against files that must be older."""
    said = format_time(float(int(now)))
    if now < CLOCK_UNSET_BEFORE:
        remedy = (
            "set it: sudo timedatectl set-ntp true, or sudo date --set; readings without a time of their own need it"
        )
        return Finding("clock", "red", f"{said}: it was never set", remedy)
    newest = max((path.stat().st_mtime for path in files if path.exists()), default=0.0)
    if now < newest - _FORGIVEN_S:
        found = f"{said}, which is before the service's own files were written ({format_time(float(int(newest)))})"
        return Finding("clock", "amber", found, "set it: sudo timedatectl set-ntp true")
    return Finding("clock", "green", said)


def synchronized(root: Path = Path("/")) -> Finding:
    """Whether the kernel, or else systemd's marker under `root`, says that somebody disciplines the clock."""
    kept = _kernel_says() if root == Path("/") else None
    if kept is None and (root / _MARKER).exists():
        kept = True
    if kept is None:
        found = "the kernel does not tell here, and there is no systemd-timesyncd"
        return Finding("time source", "unknown", found, _REMEDY)
    if not kept:
        found = "none: the clock runs free, and readings that are timed by arrival drift with it"
        return Finding("time source", "amber", found, _REMEDY)
    return Finding("time source", "green", "the clock is synchronized")


def _kernel_says() -> bool | None:
    """By adjtimex(2), which only reads here; None where a sandbox or another libc does not let us."""
    timex = _Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (AttributeError, OSError):
        return None
    return None if state < 0 else not timex.status & _UNSYNCHRONIZED


def clock(files: Sequence[Path], root: Path = Path("/")) -> list[Finding]:
    """Both lines; `files` are those that the clock cannot precede."""
    return [sane(time.time(), [Path(os.fspath(path)) for path in files]), synchronized(root)]
