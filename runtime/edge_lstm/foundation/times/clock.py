"""The clocks of this machine: the time of day, whether the kernel keeps it synchronized, and the time since its start.

Nothing here changes a clock.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

Trust = Literal["kernel", "always", "never"]

_MARKER = "run/systemd/timesync/synchronized"  # written by systemd-timesyncd after it has set the clock
_UNSYNCHRONIZED = 0x40  # STA_UNSYNC of adjtimex(2): cleared by any time service, such as chrony or ntpd
_ASKED_EVERY_S = 1.0
# it also counts while the machine is suspended, as the time of day does; Linux only
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class _Timex(ctypes.Structure):
    """The part of struct timex that is read here; glibc has this layout on 32-bit systems too."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 64),
    )


def time_of_day_us() -> int:
    """Microseconds since 1970, by the clock that a person or a time service sets."""
    return time.time_ns() // 1000


def since_boot_us() -> int:
    """Microseconds that always rise, also while the machine is suspended, and that nobody can set."""
    return time.clock_gettime_ns(_SINCE_BOOT) // 1000


def synchronized(root: Path = Path("/")) -> bool | None:
    """Whether a time service keeps the clock: by the kernel, or by the marker file of systemd under `root`.

    None where neither says anything.
    """
    kept = kernel_synchronized() if root == Path("/") else None
    return True if kept is None and (root / _MARKER).exists() else kept


def kernel_synchronized() -> bool | None:
    """From adjtimex(2), which only reads here; None where a sandbox or another C library prevents it."""
    timex = _Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (AttributeError, OSError):
        return None
    return None if state < 0 else not timex.status & _UNSYNCHRONIZED


class ClockTrust:
    """Whether the clock of this machine is known to be right. The kernel is asked at most once a second."""

    def __init__(
        self,
        trust: Trust = "kernel",
        ask: Callable[[], bool | None] = synchronized,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """`trust`: "kernel": as `ask` says; "always" or "never": without asking. `seconds` never run backwards."""
        self._trust, self._ask, self._seconds = trust, ask, seconds
        self._asked_at = -_ASKED_EVERY_S
        self._answer = False

    def __call__(self) -> bool:
        """What nobody can tell is not known to be right."""
        if self._trust != "kernel":
            return self._trust == "always"
        now = self._seconds()
        if now - self._asked_at >= _ASKED_EVERY_S:
            self._asked_at, self._answer = now, self._ask() is True
        return self._answer
