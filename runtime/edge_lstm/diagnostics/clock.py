"""Checks of the clock: whether the time is plausible, and whether the clock is synchronized."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from edge_lstm.diagnostics.finding import Finding
from edge_lstm.foundation.times.clock import synchronized as clock_synchronized
from edge_lstm.foundation.times.text import CLOCK_UNSET_BEFORE, format_time

_TOLERANCE_S = 120.0
_REMEDY = "sudo timedatectl set-ntp true, or install chrony; without a network, add a clock module (RTC)"


def plausible(now: float, files: Sequence[Path]) -> Finding:
    """Whether `now` (seconds since 1970) is a set clock, and later than files that must be older."""
    shown = format_time(float(int(now)))
    if now < CLOCK_UNSET_BEFORE:
        remedy = (
            "set it: sudo timedatectl set-ntp true, or sudo date --set; readings without a time of their own need it"
        )
        return Finding("clock", "red", f"{shown}: the clock was never set", remedy)
    newest = max((path.stat().st_mtime for path in files if path.exists()), default=0.0)
    if now < newest - _TOLERANCE_S:
        found = f"{shown}, which is before the service's own files were written ({format_time(float(int(newest)))})"
        return Finding("clock", "amber", found, "set it: sudo timedatectl set-ntp true")
    return Finding("clock", "green", shown)


def synchronized(root: Path = Path("/")) -> Finding:
    """Whether the clock is synchronized, by the kernel or by the marker file of systemd under `root`."""
    kept = clock_synchronized(root)
    if kept is None:
        found = "the kernel does not report it here, and there is no systemd-timesyncd"
        return Finding("time source", "unknown", found, _REMEDY)
    if not kept:
        found = "none: the clock runs free, and so do the times of readings that are timed by arrival"
        return Finding("time source", "amber", found, _REMEDY)
    return Finding("time source", "green", "the clock is synchronized")


def clock(files: Sequence[Path], root: Path = Path("/")) -> list[Finding]:
    """Both findings; `files` must be older than the present time."""
    return [plausible(time.time(), [Path(os.fspath(path)) for path in files]), synchronized(root)]
