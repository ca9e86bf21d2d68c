"""Writes docs/commands.md, which holds the `--help` of every command: python -m tests.make_commands_doc."""

from __future__ import annotations

from collections.abc import Iterator

import click

from edge_lstm.cli.main import main
from tests.paths import ROOT

DOCUMENT = ROOT / "docs/commands.md"
_WIDTH = 78  # click keeps two of a terminal's 80 columns free
_HEAD = """\
# Commands

The `--help` of every command, written by `make docs`. A test compares this page with the program.

Results go to stdout, everything else to stderr. Exit codes: 0 success; 1 refused or failed (stderr has one line and a
hint); 2 wrong usage; 65 the bundle failed its self-test on this machine.
"""


def commands(command: click.Command = main, parent: click.Context | None = None) -> Iterator[click.Context]:
    """A context for each command, in the order of `edge-lstm --help`; the commands of a group follow the group."""
    context = command.make_context(
        "edge-lstm" if parent is None else command.name,
        [],
        parent,
        resilient_parsing=True,
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
    )
    yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            member = command.get_command(context, name)
            assert member is not None, name
            yield from commands(member, context)


def document() -> str:
    """The text of docs/commands.md."""
    sections = [f"\n## {one.command_path}\n\n```text\n{one.get_help()}\n```\n" for one in commands()]
    return _HEAD + "".join(sections)


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
