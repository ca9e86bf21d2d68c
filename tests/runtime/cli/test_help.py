"""The help of every command: complete, short, and the same in docs/commands.md."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import click

from tests.make_commands_doc import DOCUMENT, commands
from tests.paths import ROOT


def options() -> list[tuple[str, click.Option]]:
    """(command and option, option) for all options of all commands, hidden ones too."""
    return [
        (f"{context.command_path} {option.opts[-1]}", option)
        for context in commands()
        for option in context.command.params
        if isinstance(option, click.Option)
    ]


def test_the_commands_document_is_the_help_of_the_program() -> None:
    # in a process of its own: click keeps the help option of a command that another test called without its parent
    program = "import sys; from tests.make_commands_doc import document; sys.stdout.buffer.write(document().encode())"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=60, check=True)
    assert DOCUMENT.read_bytes() == done.stdout, "run make docs"


def test_the_help_in_the_document_is_what_a_terminal_of_80_columns_shows() -> None:
    environment = {**os.environ, "COLUMNS": "80"}
    for arguments in ([], ["device", "deploy"]):
        command = [sys.executable, "-m", "edge_lstm", *arguments, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
        assert f"```text\n{done.stdout}```" in DOCUMENT.read_text(encoding="utf-8")


def test_every_option_has_a_help_text_that_is_a_sentence() -> None:
    found = {name: option.help or "" for name, option in options()}
    assert len(found) > 70
    assert {name: text for name, text in found.items() if not (text[:1].isupper() and text.endswith("."))} == {}


def test_every_option_states_its_default() -> None:
    """Unless it is off, or adds something, where it is not given."""
    silent = {
        name.removeprefix("edge-lstm ")
        for name, option in options()
        if not (option.required or option.is_flag or option.multiple or option.hidden)
        and not (option.show_default or "default: " in str(option.help))
    }
    written_or_added = {"inspect --html", "bench --write", "replay --output", "replay --history", "init --header"}
    assert silent == {*written_or_added, "record --preset", "record --config", "adopt --width"}


def test_every_command_has_a_summary_that_fits_one_line_of_the_help() -> None:
    for context in commands():
        summary = inspect.cleandoc(context.command.help or "").split("\n\n")[0]
        assert summary.endswith("."), context.command_path
        if context.parent is not None:
            assert " ".join(summary.split()) in context.parent.get_help(), context.command_path
