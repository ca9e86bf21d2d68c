"""The commands of `edge-lstm device` for a workstation: they prepare a board over ssh."""

from __future__ import annotations

from pathlib import Path

import click

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import escaped


@click.command()
@click.argument("name")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Folder for the wheels; an existing wheelhouse there is replaced.",
)
@click.option(
    "--python",
    "pythons",
    multiple=True,
    metavar="X.Y",
    help="Python version on the board; repeatable (default: every version of the board's operating systems).",
)
@click.option(
    "--extra",
    "others",
    multiple=True,
    metavar="EXTRA",
    help="Additional extra of edge-lstm, such as signing or onnx; repeatable (default: only the board's extras).",
)
def wheelhouse(name: str, output: Path, pythons: tuple[str, ...], others: tuple[str, ...]) -> None:
    """Download all wheels that a board without internet needs.

    NAME is a board of `edge-lstm device list`.
    """
    from edge_lstm.deploy.own_wheel import extras
    from edge_lstm.deploy.wheel_target import Target
    from edge_lstm.deploy.wheelhouse import collect
    from edge_lstm.foundation.config import suggestion
    from edge_lstm.hardware.boards import read_board

    board = read_board(name)
    targets = {Target(image.runs, board.architecture, image.glibc) for image in board.images}
    chosen = sorted(
        (target for target in targets if not pythons or target.minor in pythons), key=lambda one: (one.minor, one.glibc)
    )
    unknown = sorted(set(pythons) - {target.minor for target in targets})
    if unknown:
        known = ", ".join(sorted({target.minor for target in targets}))
        raise EdgeLstmError(
            f"expected a Python of {board.title}: {known}, found {', '.join(unknown)}", "choose one of them"
        )
    if strange := sorted(set(others) - set(extras())):
        raise EdgeLstmError(
            f'expected an extra of edge-lstm, found "{strange[0]}"; {suggestion(strange[0], extras())}',
            "correct --extra",
        )
    wheels = collect(output, name, chosen, sorted({*board.extras, *others}))
    size = sum(path.stat().st_size for path in wheels)
    with_python = ", ".join(dict.fromkeys(target.minor for target in chosen))
    click.echo(f"{len(wheels)} wheels, {size / 1e6:.0f} MB, for {board.title} with Python {with_python}, in {output}")


@click.command()
@click.argument("destination", metavar="USER@HOST")
@click.argument("service", type=click.Path(path_type=Path), metavar="SERVICE.toml")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--wheelhouse",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Install from this folder, made by the command device wheelhouse (default: from the internet).",
)
@click.option("--python", default="python3", show_default=True, metavar="PROGRAM", help="Python program on the board.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest wait for a first prediction, in seconds.",
)
@click.option(
    "--ssh-config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Configuration file for ssh (default: your own, ~/.ssh/config).",
)
@click.option("--root", default="", hidden=True, help="Folder on the board that replaces its /.")
def deploy(
    destination: str,
    service: Path,
    bundle: Path,
    wheelhouse: Path | None,
    python: str,
    wait_s: float,
    ssh_config: Path | None,
    root: str,
) -> None:
    """Install and start a service on a board over ssh.

    The command copies the config and the bundle, verifies the bundle on the board's own backend, installs the systemd
    unit, starts the service and waits for a first prediction. It needs root on the board: root@HOST, or sudo without a
    password. A second run changes only what differs.
    """
    from edge_lstm.deploy.deployment import deploy as deploy_service
    from edge_lstm.deploy.deployment import deployment_files
    from edge_lstm.deploy.ssh import Ssh

    files = deployment_files(service, bundle)
    with Ssh(destination, ssh_config) as ssh:
        log = _tell
        outcome = deploy_service(ssh, files, log=log, wheelhouse=wheelhouse, python=python, root=root, wait_s=wait_s)
    if not outcome.changed:
        click.echo(f"{outcome.service} on {destination} is up to date; nothing was changed")
        return
    click.echo(f"{outcome.service} runs on {destination}; changed: {', '.join(outcome.changed)}")
    if outcome.prediction is not None:
        click.echo(escaped(f"first prediction: {outcome.prediction}"))
    elif outcome.not_received is not None:
        click.echo(escaped(f"its predictions could not be received: {outcome.not_received}"))
    else:
        click.echo(f"no prediction came within {wait_s:g} s")


def _tell(line: str) -> None:
    click.echo(escaped(line), err=True)
