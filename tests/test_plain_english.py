"""The project's texts use plain words: no banned word in documents, help texts and docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from edge_lstm.cli.main import main
from tests.paths import ROOT
from tests.plain_english import findings

PACKAGES = ("runtime", "train", "export")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def listed(name: str, text: str, first_line: int = 1) -> list[str]:
    """`name:line: word → use instead`, for each banned word; the text begins at `first_line` of its file."""
    return [f"{name}:{first_line - 1 + found.line}: {found.word} → {found.instead}" for found in findings(text)]


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """(first line, text) of each docstring of a Python file, which is parsed and not imported."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body[:1]:
                case [ast.Expr(value=ast.Constant(value=str() as text), lineno=line)]:
                    yield line, text


def helps(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """(command line, its --help) of a command and of its subcommands."""
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
            yield from helps(below, click.Context(below, parent=context, info_name=name))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_use_plain_words(document: Path) -> None:
    found = listed(str(document.relative_to(ROOT)), document.read_text())
    assert not found, "\n" + "\n".join(found)


def test_help_texts_use_plain_words() -> None:
    context = click.Context(main, info_name="edge-lstm", max_content_width=120, **main.context_settings)
    texts = dict(helps(main, context))
    assert {"edge-lstm run", "edge-lstm train", "edge-lstm device install"} <= set(texts)
    found = [line for command, text in texts.items() for line in listed(f"{command} --help", text)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_use_plain_words(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 10
    found = [
        line
        for file in files
        for first_line, text in docstrings(file)
        for line in listed(str(file.relative_to(ROOT)), text, first_line)
    ]
    assert not found, "\n" + "\n".join(found)


def test_a_banned_word_is_found_with_its_line() -> None:
    text = "The state\nbegins anew. Whoever\nasks for\nit finds it as\nit was."
    words = [(found.line, found.word) for found in findings(text)]
    assert words == [(2, "anew"), (2, "Whoever"), (4, "as it was")]


@pytest.mark.parametrize(
    "text",
    [
        "recommend, amend, mushroom, indoors, livingroom, greenhouse, warehouse, in-house",
        "the room temperature, a living room, the topic zigbee2mqtt/{room}/{stream}, the topic house/door/state",
        "a door sensor, door and motion events, whether the room is occupied",
        "tests/flow/ssh_door.py, sshd_room",
    ],
)
def test_real_rooms_and_parts_of_other_words_are_allowed(text: str) -> None:
    assert findings(text) == []


@pytest.mark.parametrize("text", ["the room of the decoder", "The door to the broker", "a restart cannot mend it"])
def test_rooms_and_doors_of_code_are_banned(text: str) -> None:
    assert len(findings(text)) == 1
