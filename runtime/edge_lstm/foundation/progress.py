"""The progress of long work, on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

# Called after each step, with a text to show (empty: none).
Tick = Callable[[str], None]

_LINES = 5  # without any texts


@contextmanager
def progress(length: int, label: str, done: int = 0) -> Iterator[Tick]:
    """A `Tick` for `length` steps of the work that `label` names; `done` of them are done already."""
    with _bar(length, label, done) if sys.stderr.isatty() else _lines(length, label, done) as tick:
        yield tick


@contextmanager
def _lines(length: int, label: str, done: int) -> Iterator[Tick]:
    share = max(length // _LINES, 1)

    def line(text: str) -> None:
        nonlocal done
        done += 1
        if text or done == length or (done % share == 0 and length - done >= share):
            click.echo(f"{label} {done}/{length}  {text}".rstrip(), err=True)

    yield line


@contextmanager
def _bar(length: int, label: str, done: int) -> Iterator[Tick]:
    latest = ""
    with click.progressbar(
        range(length), label=label, file=sys.stderr, item_show_func=lambda _: latest, show_pos=True, width=20
    ) as bar:
        bar.update(done)

        def advance(text: str) -> None:
            nonlocal latest
            latest = text or latest
            bar.update(1)

        yield advance
