"""The verbs under `edge-lstm device`: the boards that are known, which one this is, and the service on it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from edge_lstm.cli.deploy import deploy, wheelhouse
from edge_lstm.foundation.errors import EdgeLstmError

root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("/"),
    metavar="DIR",
    help="A system's root folder instead of /.",
)


@click.group()
def device() -> None:
    """Boards: what is known of them, and the service on them."""


device.add_command(deploy)
device.add_command(wheelhouse)


@device.command("list")
def list_boards() -> None:
    """Name the boards that are known, with what a service does on them."""
    from edge_lstm.hardware.boards import board_names, read_board

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
    from edge_lstm.hardware.boards import board_text, read_board

    read_board(name)
    click.echo(board_text(name), nl=False)


@device.command()
@root_option
def detect(root: Path) -> None:
    """Name the board that this is, for `device = "NAME"` in a service's config."""
    from edge_lstm.hardware.boards import board_names, detected
    from edge_lstm.hardware.machine import prepared_machine

    machine = prepared_machine(root)
    seen = [machine.model or "no device tree", machine.architecture or "unknown architecture"]
    if root.resolve() == Path("/"):
        seen += [f"Python {machine.python}", f"glibc {machine.glibc}" if machine.glibc else "no glibc"]
    seen.append("unknown memory" if machine.memory_mb is None else f"{machine.memory_mb} MB")
    click.echo(", ".join(seen), err=True)
    name = detected(machine)
    if name is None:
        raise EdgeLstmError(
            f"expected a board of {', '.join(board_names())}, "
            f"found {machine.model or machine.architecture or 'nothing that tells'}",
            "leave device out of the service's config, and set backend, threads and memory_max_mb there",
        )
    click.echo(name)


@device.command()
@click.argument("service", type=click.Path(path_type=Path))
@root_option
@click.option("--dry-run", is_flag=True, help="Check all, show the unit, write nothing.")
@click.option("--start", is_flag=True, help="Start it too, or restart it, and wait until it is ready.")
def install(service: Path, root: Path, dry_run: bool, start: bool) -> None:
    """Install the service of a config, SERVICE.toml, under systemd."""
    from edge_lstm.deploy.install import install as put
    from edge_lstm.deploy.install import plan, systemctl

    if start and root.resolve() != Path("/"):
        raise click.UsageError("expected --start on the running system, found --root beside it")
    wanted = plan(service, root)
    if dry_run:
        for name in wanted.files:
            click.echo(f"would write {wanted.folder / name}", err=True)
        click.echo(f"would write {wanted.unit_path}:", err=True)
        click.echo(wanted.unit, nl=False)
        return
    for line in put(wanted):
        click.echo(line)
    if start:
        systemctl("restart", wanted.unit_path.name)
        click.echo(f"{wanted.name} is ready")
    elif root.resolve() == Path("/"):
        click.echo(f"start it: systemctl restart {wanted.name}", err=True)
    elif not os.path.lexists(root / wanted.python.relative_to("/")):
        click.echo(f"{root} has no {wanted.python}, which the unit starts: install edge-lstm there too", err=True)


@device.command()
@click.argument("service")
@root_option
@click.option("--with-state", is_flag=True, help="Also remove what the service remembers of its streams.")
def uninstall(service: str, root: Path, with_state: bool) -> None:
    """Remove an installed service, SERVICE: its config's path, its name or its client id."""
    from edge_lstm.deploy.install import service_name
    from edge_lstm.deploy.install import uninstall as take_away
    from edge_lstm.foundation.config import read_toml
    from edge_lstm.service.config import ServiceConfig

    if service.endswith(".toml"):
        service = read_toml(Path(service), ServiceConfig).mqtt.client_id
    service = service_name(service.removesuffix(".service"))
    for line in take_away(service, root, with_state):
        click.echo(line)
