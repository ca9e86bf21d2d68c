"""The verbs under `edge-lstm device` that work from a workstation: they bring what a board needs to it."""

from __future__ import annotations

import functools
from pathlib import Path

import click

from edge_lstm.foundation.errors import EdgeLstmError


@click.command()
@click.argument("name")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="The folder of wheels."
)
@click.option("--python", "pythons", multiple=True, metavar="X.Y", help="Default: those of the board's systems.")
@click.option("--extra", "others", multiple=True, metavar="EXTRA", help="More than the board's own: signing, onnx, ...")
def wheelhouse(name: str, output: Path, pythons: tuple[str, ...], others: tuple[str, ...]) -> None:
    """Collect the wheels that a board NAME without a way to the internet installs from."""
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
            f'expected an extra of edge-lstm, found "{strange[0]}"; {suggestion(strange[0], extras())}', "mend --extra"
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
    help="For a board without internet: what device wheelhouse collected.",
)
@click.option("--python", default="python3", show_default=True, metavar="PROGRAM", help="The Python to use there.")
@click.option("--wait", "wait_s", type=click.FloatRange(0), default=30.0, show_default=True, metavar="SECONDS")
@click.option("--ssh-config", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE")
@click.option("--root", default="", hidden=True, help="A folder of the board instead of its /.")
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
    """Bring a service and its bundle to a board over ssh, prove the bundle there, start, and wait for a prediction.

    Needs root there: root@HOST, or sudo without a password. Run again, it changes only what differs.
    """
    from edge_lstm.deploy.deployment import deploy as bring
    from edge_lstm.deploy.deployment import deployment_files
    from edge_lstm.deploy.ssh import Ssh

    goods = deployment_files(service, bundle)
    with Ssh(destination, ssh_config) as ssh:
        say = functools.partial(click.echo, err=True)
        outcome = bring(ssh, goods, say=say, wheelhouse=wheelhouse, python=python, root=root, wait_s=wait_s)
    if not outcome.changed:
        click.echo(f"{outcome.service} runs on {destination} as it is here; nothing was changed")
        return
    click.echo(f"{outcome.service} serves on {destination}; changed: {', '.join(outcome.changed)}")
    if outcome.prediction is not None:
        click.echo(f"first prediction: {outcome.prediction}")
    elif outcome.unheard is not None:
        click.echo(f"its predictions could not be heard: {outcome.unheard}")
    else:
        click.echo(f"no reading came within {wait_s:g} s")
