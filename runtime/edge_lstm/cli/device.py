"""The commands of `edge-lstm device`: supported boards, detection, installation of a service."""

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
    help="Root folder of the system to use (default: /).",
)


@click.group()
def device() -> None:
    """Show boards, and install services on them."""


device.add_command(deploy)
device.add_command(wheelhouse)


@device.command("list")
def list_boards() -> None:
    """List the boards, with their default service settings."""
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
    """Show the settings of the board NAME, and the reasons for them."""
    from edge_lstm.hardware.boards import board_text, read_board

    read_board(name)
    click.echo(board_text(name), nl=False)


@device.command()
@root_option
def detect(root: Path) -> None:
    """Print the name of this board, for a service config."""
    from edge_lstm.hardware.boards import board_names, detected
    from edge_lstm.hardware.machine import prepared_machine

    machine = prepared_machine(root)
    facts = [machine.model or "no device tree", machine.architecture or "unknown architecture"]
    if root.resolve() == Path("/"):
        facts += [f"Python {machine.python}", f"glibc {machine.glibc}" if machine.glibc else "no glibc"]
    facts.append("unknown memory" if machine.memory_mb is None else f"{machine.memory_mb} MB")
    click.echo(", ".join(facts), err=True)
    name = detected(machine)
    if name is None:
        raise EdgeLstmError(
            f"expected a board of {', '.join(board_names())}, "
            f"found {machine.model or machine.architecture or 'no information'}",
            "leave device out of the service's config, and set backend, threads and memory_max_mb there",
        )
    click.echo(name)


@device.command()
@click.argument("service", type=click.Path(path_type=Path))
@root_option
@click.option("--dry-run", is_flag=True, help="Check everything and print the unit, but write nothing.")
@click.option("--start", is_flag=True, help="Start or restart the service, and wait until it is ready.")
def install(service: Path, root: Path, dry_run: bool, start: bool) -> None:
    """Install a service under systemd.

    SERVICE is a service config (service.toml).
    """
    from edge_lstm.deploy.install import install as install_service
    from edge_lstm.deploy.install import plan, systemctl

    if start and root.resolve() != Path("/"):
        raise click.UsageError("expected --start only on the running system, found --root too")
    planned = plan(service, root)
    if dry_run:
        for name in planned.files:
            click.echo(f"would write {planned.folder / name}", err=True)
        click.echo(f"would write {planned.unit_path}:", err=True)
        click.echo(planned.unit, nl=False)
        return
    for line in install_service(planned):
        click.echo(line)
    if start:
        systemctl("restart", planned.unit_path.name)
        click.echo(f"{planned.name} is ready")
    elif root.resolve() == Path("/"):
        click.echo(f"start it: systemctl restart {planned.name}", err=True)
    elif not os.path.lexists(root / planned.python.relative_to("/")):
        click.echo(f"{root} has no {planned.python}, which the unit starts: install edge-lstm there too", err=True)


@device.command()
@click.argument("service")
@root_option
@click.option("--with-state", is_flag=True, help="Also remove the state of the service's streams.")
def uninstall(service: str, root: Path, with_state: bool) -> None:
    """Remove an installed service.

    SERVICE is the path of its config, the name of its unit, or its MQTT client id.
    """
    from edge_lstm.deploy.install import service_name
    from edge_lstm.deploy.install import uninstall as uninstall_service
    from edge_lstm.foundation.config import read_toml
    from edge_lstm.service.config import ServiceConfig

    if service.endswith(".toml"):
        service = read_toml(Path(service), ServiceConfig).mqtt.client_id
    service = service_name(service.removesuffix(".service"))
    for line in uninstall_service(service, root, with_state):
        click.echo(line)
