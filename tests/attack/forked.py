"""Runs work in a forked child: what it returned, or how it died; the parent imports everything once."""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple


class Ended(NamedTuple):
    """How a child ended."""

    value: Any = None  # what the work returned
    fault: str | None = None  # an exception with its traceback, a signal, or no answer; None: it returned
    peak_mib: float = 0.0  # its largest resident memory


def in_child(work: Callable[[], Any], timeout_s: float = 60.0) -> Ended:
    """What `work` returns in a child process."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        os.close(reading)
        _answer(work, writing)
    os.close(writing)
    content = _read(reading, time.monotonic() + timeout_s)
    os.close(reading)
    if content is None:
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    peak_mib = used.ru_maxrss / 1024
    if content is None:
        return Ended(fault=f"no answer within {timeout_s:g} s", peak_mib=peak_mib)
    if os.WIFSIGNALED(status):
        return Ended(fault=f"it died of {signal.Signals(os.WTERMSIG(status)).name}", peak_mib=peak_mib)
    if not content:
        return Ended(fault="it ended without an answer", peak_mib=peak_mib)
    value, fault = pickle.loads(content)  # of our own child
    return Ended(value, fault, peak_mib)


def _answer(work: Callable[[], Any], writing: int) -> None:
    """In the child: do the work, write its result, and leave without the parent's clean-up."""
    try:
        found = (work(), None)
    except BaseException:  # noqa: BLE001 - the child must never go on as the parent
        found = (None, traceback.format_exc())
    with os.fdopen(writing, "wb") as pipe:
        pickle.dump(found, pipe)
    os._exit(0)


def _read(reading: int, deadline: float) -> bytes | None:
    """All bytes until the child closes its end; None: it did not in time."""
    parts = []
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([reading], [], [], left)[0]:
            break
        part = os.read(reading, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return None
