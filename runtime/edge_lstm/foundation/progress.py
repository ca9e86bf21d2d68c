"""The progress of long work, on stderr: a bar on a terminal, plain lines elsewhere.

Work may contain other work; the innermost is shown. Work that ends within a second is not shown.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

# Called after each step, with a text to show (empty: none).
Tick = Callable[[str], None]
# Called with a number of units that are done.
Advance = Callable[[int], None]

_LINES = 5  # of work in steps, without any texts
_FIRST_S = 0.8  # before work is shown
_PAUSES_S = (2.0, 5.0, 10.0, 30.0)  # between two plain lines; then the last
_BAR_S = 0.2  # between two changes of a bar
_WIDTH = 20  # characters of a bar


@dataclass
class _Work:
    """Work in progress."""

    label: str
    total: int | None
    unit: str
    left: str  # what an interruption leaves behind
    stream: TextIO
    done: int = 0
    first: int = 0  # what was done before
    text: str = ""  # the newest result
    begun: float = field(default_factory=time.monotonic)

    @property
    def state(self) -> str:
        """How far the work is, its rate, and the time that it still takes."""
        took_s = time.monotonic() - self.begun
        rate = (self.done - self.first) / max(took_s, 1e-9)
        unit = f" {self.unit}" if self.unit else ""
        if not self.done and not self.total:
            return f"{took_s:.0f} s"
        found = [f"{self.done:,}{unit}" if self.total is None else f"{self.done:,}/{self.total:,}{unit}"]
        if self.done > self.first:
            found.append(f"{rate:,.0f}{unit}/s" if rate >= 10 else f"{rate:.2g}{unit}/s")
            if self.total is not None and self.done < self.total:
                found.append(f"{_duration((self.total - self.done) / rate)} left")
        else:
            found.append(f"{took_s:.0f} s")
        return ", ".join(found)

    @property
    def bar(self) -> str:
        if not self.total:
            return ""
        full = _WIDTH * min(self.done, self.total) // self.total
        return f"  [{'#' * full}{'-' * (_WIDTH - full)}]"


class _Display:
    """Shows the innermost work from a thread of its own, so that a long computation does not hide it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._works: list[_Work] = []
        self._ended = threading.Event()
        self._due = 0.0  # when the next plain line is due
        self._pause = 0  # index of the pause after it
        self._on_screen = False  # whether a bar is on the terminal

    def begin(self, work: _Work) -> None:
        with self._lock:
            now = time.monotonic()
            first = not self._works
            self._works.append(work)
            self._pause = 0
            self._due = now + _FIRST_S if first else max(min(self._due, now + _PAUSES_S[0]), now + _FIRST_S)
            if first:
                self._ended = threading.Event()
                threading.Thread(target=self._run, args=(self._ended,), name="progress", daemon=True).start()

    def end(self, work: _Work, shown: str) -> None:
        """The work is over; `shown` stays on a terminal."""
        with self._lock:
            self._works.remove(work)
            if self._on_screen or (shown and work.stream.isatty()):
                self._write(work.stream, f"\r\x1b[K{shown}" + ("\n" if shown else ""))
                self._on_screen = False
            if not self._works:
                self._ended.set()

    def line(self, work: _Work, text: str) -> None:
        """A plain line about the work; the next one by itself comes later."""
        with self._lock:
            self._write(work.stream, f"{text}\n")
            self._later()

    @property
    def innermost(self) -> _Work | None:
        return self._works[-1] if self._works else None

    def _later(self) -> None:
        self._due = time.monotonic() + _PAUSES_S[min(self._pause, len(_PAUSES_S) - 1)]
        self._pause += 1

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(_BAR_S):
            with self._lock:
                if ended.is_set() or not self._works or time.monotonic() < self._due:
                    continue
                work = self._works[-1]
                if work.stream.isatty():
                    width = shutil.get_terminal_size().columns - 1
                    text = f"{work.label}{work.bar}  {work.state}  {work.text}".rstrip()
                    self._write(work.stream, f"\r\x1b[K{text[:width]}\r")
                    self._on_screen = True
                else:
                    self._write(work.stream, f"{work.label}  {work.state}\n")
                    self._later()

    def _write(self, stream: TextIO, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the reader of stderr is gone, or the stream is closed
            stream.write(text)
            stream.flush()


_display = _Display()


@contextmanager
def work(label: str, total: int | None = None, unit: str = "", left: str = "") -> Iterator[Advance]:
    """Show work while the block runs; yields a function that takes how many units are done since its last call.

    `left`: what an interruption leaves behind, such as: nothing was written.
    """
    one = _Work(label, total, unit, left, sys.stderr)

    def advance(count: int) -> None:
        one.done += count

    with _shown(one):
        yield advance


@contextmanager
def progress(length: int, label: str, done: int = 0, left: str = "") -> Iterator[Tick]:
    """A `Tick` for `length` steps of the work that `label` names; `done` of them are done already."""
    one = _Work(label, length, "", left, sys.stderr, done, done)
    share = max(length // _LINES, 1)

    def tick(text: str) -> None:
        one.done += 1
        one.text = text or one.text
        at_share = one.done % share == 0 and length - one.done >= share
        if (text or one.done == length or at_share) and not one.stream.isatty():
            _display.line(one, f"{label} {one.done}/{length}  {text}".rstrip())

    with _shown(one):
        yield tick


@contextmanager
def _shown(one: _Work) -> Iterator[None]:
    _display.begin(one)
    try:
        yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and not hasattr(error, _INTERRUPTED):
            setattr(error, _INTERRUPTED, _interruption())
        _display.end(one, "")
        raise
    steps = one.total is not None and not one.unit
    _display.end(one, f"{one.label}{one.bar}  {one.done}/{one.total}  {one.text}".rstrip() if steps else "")


_INTERRUPTED = "edge_lstm_interrupted"


def _interruption() -> str:
    """The innermost work in words, and what is left of the innermost that says so."""
    works = _display._works
    left = next((one.left for one in reversed(works) if one.left), "")
    return f"{works[-1].label}{f': {left}' if left else ''}"


def interrupted_text(error: KeyboardInterrupt) -> str:
    """One line on what Ctrl-C interrupted, and what it left behind."""
    during = getattr(error, _INTERRUPTED, "")
    return f"interrupted while {during}" if during else "interrupted"


def _duration(seconds: float) -> str:
    """Such as 0:05, 12:30 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
