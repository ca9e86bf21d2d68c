"""Checks of the disk of the state database: write access, free space, and the time of an fsync, measured."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from edge_lstm.diagnostics.finding import Finding
from edge_lstm.foundation.permissions import is_open_to_others

_WRITES, _BLOCK = 20, b"\0" * 4096
_SLOW_MS = 20.0
_FULL_MB, _LOW_MB = 20.0, 200.0
_IN_MEMORY = ("tmpfs", "ramfs")
_REMEDIES = {
    errno.EROFS: "a failing card is mounted read-only: see dmesg, then sudo mount -o remount,rw, or replace the card",
    errno.ENOSPC: "free some space: a service that cannot commit stops predicting",
}


def disk(state: Path, root: Path = Path("/")) -> Iterator[Finding]:
    """Findings about the folder of the database `state`; `root` holds proc/mounts."""
    folder = state.parent
    try:
        took_ms = sorted(_fsyncs_ms(folder))
    except OSError as error:
        remedy = _REMEDIES.get(
            error.errno or 0, "create the folder, or run this as the user of the service; the config key is state"
        )
        yield Finding("disk", "red", f"{folder} cannot be written: {error.strerror}", remedy)
        return
    free_mb = shutil.disk_usage(folder).free / 2**20
    kind = filesystem(folder.resolve(), root)
    yield free_space(folder, free_mb, kind)
    yield fsync_cost(took_ms[len(took_ms) // 2], took_ms[-1], kind)
    if is_open_to_others(state):
        found = f"other users may read {state}, which has the readings of all devices"
        yield Finding("disk", "amber", found, f"the next start closes it; or chmod 600 {state}")


def free_space(folder: Path, free_mb: float, kind: str | None) -> Finding:
    """Free space in MB, and whether the folder survives a power cut."""
    found = f"{folder} can be written, {free_mb:,.0f} MB free"
    if free_mb < _FULL_MB:
        return Finding("disk", "red", found, "free some space: a service that cannot commit stops predicting")
    if kind in _IN_MEMORY:
        remedy = "put the state on a card, an SSD or flash"
        return Finding("disk", "amber", f"{found}, but {kind} is in memory: a power cut loses the states", remedy)
    if free_mb < _LOW_MB:
        return Finding("disk", "amber", found, "free some space: logs and the database grow")
    return Finding("disk", "green", f"{found}{f', {kind}' if kind else ''}")


def fsync_cost(median_ms: float, worst_ms: float, kind: str | None) -> Finding:
    """The time that a commit waits for the disk, in milliseconds; each batch of readings needs one."""
    found = f"{median_ms:.2g} ms per write, {worst_ms:.2g} ms at worst of {_WRITES}"
    if kind in _IN_MEMORY:
        return Finding(
            "fsync", "unknown", f"{found}, but {kind} writes to no disk", "measure in the folder of the state"
        )
    if median_ms > _SLOW_MS:
        remedy = 'use an SSD or a better card; or durability = "at-most-once", which commits every checkpoint_s'
        return Finding("fsync", "amber", f"{found}: every batch of readings waits for it", remedy)
    return Finding("fsync", "green", found)


def filesystem(folder: Path, root: Path = Path("/")) -> str | None:
    """The type of the file system that holds `folder`; None where proc/mounts does not list it."""
    try:
        lines = (root / "proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    mounts = [line.split()[1:3] for line in lines if len(line.split()) > 2]
    over = [(len(where), kind) for where, kind in mounts if folder.is_relative_to(where.replace("\\040", " "))]
    return max(over, key=lambda pair: pair[0])[1] if over else None


def _fsyncs_ms(folder: Path) -> Iterator[float]:
    """Times in milliseconds to append and fsync a block, in a temporary file."""
    with tempfile.TemporaryFile(dir=folder, prefix=".edge-lstm-doctor.", buffering=0) as file:
        for _ in range(_WRITES):
            file.write(_BLOCK)
            begun = time.perf_counter()
            os.fsync(file.fileno())
            yield 1000 * (time.perf_counter() - begun)
