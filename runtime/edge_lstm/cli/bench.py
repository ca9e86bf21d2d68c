"""The command `bench`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import escaped

if TYPE_CHECKING:
    from edge_lstm.bundle.archive import Bundle


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--device", metavar="NAME", help="Board whose limits of time and memory apply (default: detected).")
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 60),
    metavar="SECONDS",
    default=0.5,
    show_default=True,
    help="Time to measure each batch size and variant, in seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option(
    "--write",
    type=click.Path(path_type=Path),
    metavar="SERVICE.toml",
    help="Write the recommended backend and scheme into this service config.",
)
@click.option(
    "--root", type=click.Path(path_type=Path), default="/", hidden=True, help="Root of the file tree that holds sys/."
)
def bench(bundle: Path, device: str | None, seconds: float, as_json: bool, write: Path | None, root: Path) -> None:
    """Measure all backends and schemes here, and recommend the best.

    For each variant, the command prints the time of a step (p50 and p99, in microseconds), steps per second for several
    batch sizes, memory in MB, load time, and energy per step if the board measures its power.
    """
    from edge_lstm.backends.registry import runnable
    from edge_lstm.bundle.archive import Bundle
    from edge_lstm.diagnostics.bench import DEFAULT_LIMITS, CpuLimits, facts, table
    from edge_lstm.diagnostics.bench import bench as measure
    from edge_lstm.foundation.progress import progress
    from edge_lstm.hardware.boards import detected, read_board
    from edge_lstm.hardware.machine import this_machine

    opened = Bundle.open(bundle)
    named = _board_of(write, opened) if write is not None else None
    machine = this_machine(root)
    board = device or named or detected(machine)
    budget, limits = None, DEFAULT_LIMITS
    if board is not None:
        known = read_board(board)
        budget = known.budget
        if refusals := known.refusals(machine):
            reasons = "; ".join(reason for reason, _ in refusals)
            click.echo(
                f"this machine is not a {known.title}, so its figures do not hold for that board: {reasons}", err=True
            )
        else:
            limits = CpuLimits(known.service.threads, known.service.cores)
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores / 2:
        click.echo(
            f"this machine is busy (load {load:.1f}, {cores} cores): times are too high, above all p99", err=True
        )
    with progress(len(runnable(opened)), "measured") as tick:
        report = measure(opened, bundle, board, budget, limits, seconds, root, tick)
    click.echo(json.dumps(facts(report), indent=2) if as_json else escaped(table(report, _bar(), _width())))
    for absent in report.absent:
        click.echo(escaped(f"not run {absent}"), err=True)
    if write is None:
        return
    if report.choice is None:
        raise EdgeLstmError(f"{write}: expected a variant to recommend, found {report.reason}", "nothing was written")
    from edge_lstm.foundation.config import from_mapping
    from edge_lstm.service.config import ServiceConfig
    from edge_lstm.service.config_edit import set_keys

    chosen = {"backend": report.choice.backend, "scheme": report.choice.scheme}
    set_keys(write, chosen, lambda table: from_mapping(table, ServiceConfig, f"{write}, after the change"))
    click.echo(f'wrote backend = "{report.choice.backend}", scheme = "{report.choice.scheme}" to {write}', err=True)


def _board_of(config: Path, measured: Bundle) -> str | None:
    """The board that the config names. Raises EdgeLstmError where the config serves another bundle."""
    from edge_lstm.bundle.archive import Bundle
    from edge_lstm.service.config import read_service_config

    service = read_service_config(config)
    served = Bundle.open(config.parent / service.bundle)
    if served.id != measured.id:
        raise EdgeLstmError(
            f"{config}: expected a service of the bundle {measured.id} ({measured.source}), found {served.id} "
            f"({served.source})",
            "measure the bundle of that config",
        )
    return service.device


def _width() -> int | None:
    """The width of the terminal; None where stdout is not a terminal."""
    if not sys.stdout.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns


def _bar() -> str:
    """The character for bars: a block, where the terminal can show it."""
    try:
        "█".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "#"
    return "█"
