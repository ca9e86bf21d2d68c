"""The verb `bench`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_lstm.foundation.errors import EdgeLstmError

if TYPE_CHECKING:
    from edge_lstm.bundle.archive import Bundle


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--device", metavar="NAME", help="The board whose budget counts. Default: the one that this is.")
@click.option(
    "--seconds", type=click.FloatRange(0.01, 60), default=0.5, show_default=True, help="For each batch size of each."
)
@click.option("--json", "as_json", is_flag=True, help="All of it, for programs.")
@click.option(
    "--write", type=click.Path(path_type=Path), metavar="SERVICE.toml", help="Put the recommended ones into it."
)
@click.option("--root", type=click.Path(path_type=Path), default="/", hidden=True, help="Holds sys/.")
def bench(bundle: Path, device: str | None, seconds: float, as_json: bool, write: Path | None, root: Path) -> None:
    """Measure every backend and scheme that runs here, and recommend one."""
    from edge_lstm.backends.registry import runnable
    from edge_lstm.bundle.archive import Bundle
    from edge_lstm.diagnostics.bench import ANYWHERE, CpuLimits, facts, table
    from edge_lstm.diagnostics.bench import bench as measure
    from edge_lstm.foundation.progress import progress
    from edge_lstm.hardware.boards import detected, read_board
    from edge_lstm.hardware.machine import this_machine

    opened = Bundle.open(bundle)
    named = _board_of(write, opened) if write is not None else None
    machine = this_machine(root)
    board = device or named or detected(machine)
    budget, place = None, ANYWHERE
    if board is not None:
        known = read_board(board)
        budget = known.budget
        if refusals := known.refusals(machine):
            reasons = "; ".join(reason for reason, _ in refusals)
            click.echo(f"this machine is no {known.title}, and its figures are its own: {reasons}", err=True)
        else:
            place = CpuLimits(known.service.threads, known.service.cores)
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores / 2:
        click.echo(f"this machine is busy (load {load:.1f}, {cores} cores): p99 above all is too high", err=True)
    with progress(len(runnable(opened)), "measured") as tick:
        report = measure(opened, bundle, board, budget, place, seconds, root, tick)
    click.echo(json.dumps(facts(report), indent=2) if as_json else table(report, _bar(), _width()))
    for absent in report.absent:
        click.echo(f"not here {absent}", err=True)
    if write is None:
        return
    if report.choice is None:
        raise EdgeLstmError(f"{write}: expected something to recommend, found {report.reason}", "nothing was written")
    from edge_lstm.foundation.config import from_mapping
    from edge_lstm.service.config import ServiceConfig
    from edge_lstm.service.config_edit import set_keys

    chosen = {"backend": report.choice.backend, "scheme": report.choice.scheme}
    set_keys(write, chosen, lambda table: from_mapping(table, ServiceConfig, f"{write}, as it would be"))
    click.echo(f'wrote backend = "{report.choice.backend}", scheme = "{report.choice.scheme}" to {write}', err=True)


def _board_of(config: Path, measured: Bundle) -> str | None:
    """The board that the config names. Raises EdgeLstmError where it serves another bundle than was measured."""
    from edge_lstm.bundle.archive import Bundle
    from edge_lstm.service.config import read_service_config

    service = read_service_config(config)
    served = Bundle.open(config.parent / service.bundle)
    if served.id != measured.id:
        raise EdgeLstmError(
            f"{config}: expected a service of the bundle {measured.id} ({measured.source}), found {served.id} "
            f"({served.source})",
            "measure the bundle that it serves",
        )
    return service.device


def _width() -> int | None:
    """Of the terminal; None where it is none."""
    if not sys.stdout.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns


def _bar() -> str:
    """A block, where the terminal can show one."""
    try:
        "█".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "#"
    return "█"
