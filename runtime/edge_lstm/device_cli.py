"""The verbs under `edge-lstm device`: the boards that are known, and which one this is."""

from __future__ import annotations

from pathlib import Path

import click

from edge_lstm.boards import board_names, board_text, detected, read_board
from edge_lstm.errors import EdgeLstmError
from edge_lstm.machine import this_machine

root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    metavar="DIR",
    help="A system's root folder instead of /.",
)


@click.group()
def device() -> None:
    """Boards: what is known of them, and the service on them."""


@device.command("list")
def list_boards() -> None:
    """Name the boards that are known, with what a service does on them."""
    for name in board_names():
        board = read_board(name)
        service = board.service
        click.echo(
            f"{name:<21}{board.title:<23}{board.architecture:<9}{service.backend:<15}{service.scheme:<6}"
            f"{service.memory_max_mb:>5} MB"
        )


@device.command()
@click.argument("name")
def show(name: str) -> None:
    """Show a board's settings, and the reasons for them."""
    read_board(name)
    click.echo(board_text(name), nl=False)


@device.command()
@root_option
def detect(root: Path) -> None:
    """Name the board that this is, for `device = "NAME"` in a service's config."""
    machine = this_machine(root)
    memory = "unknown memory" if machine.memory_mb is None else f"{machine.memory_mb} MB"
    click.echo(
        f"{machine.model or 'no device tree'}, {machine.architecture}, Python {machine.python}, "
        f"{f'glibc {machine.glibc}' if machine.glibc else 'no glibc'}, {memory}",
        err=True,
    )
    name = detected(machine)
    if name is None:
        raise EdgeLstmError(
            f"expected a board of {', '.join(board_names())}, found {machine.model or machine.architecture}",
            "leave device out of the service's config, and set backend, threads and memory_max_mb there",
        )
    click.echo(name)
