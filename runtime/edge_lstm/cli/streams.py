"""The commands of `edge-lstm streams`: the streams in the state database of a stopped service."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edge_lstm.cli.options import config_argument, state_option
from edge_lstm.foundation.text import escaped

_DAY_S = 86_400.0


@click.group()
def streams() -> None:
    """List or forget the streams of a stopped service."""


@streams.command("list")
@config_argument
@state_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def list_names(config: Path, state: Path | None, as_json: bool) -> None:
    """List the streams: readings, first and last reading, name.

    CONFIG is the config of the service (service.toml), which must not run: the database has one owner.
    """
    from edge_lstm.service.database.stored_streams import list_streams

    found = list_streams(database_of(config, state))
    if as_json:
        shown = [{**one._asdict(), "first": _time(one.first), "last": _time(one.last)} for one in found]
        click.echo(json.dumps(shown, indent=2))
        return
    click.echo(f"{'readings':>12}  {'first':<20}  {'last':<20}  stream")
    for one in found:
        first, last = (_time(moment) or "unknown" for moment in (one.first, one.last))
        click.echo(_on_one_line(f"{one.readings:>12,}  {first:<20}  {last:<20}  {one.name}"))


@streams.command()
@config_argument
@click.argument("names", nargs=-1, metavar="[NAME]...")
@state_option
@click.option(
    "--idle",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Forget all streams that had no reading for so many days (default: only those that are named).",
)
def forget(config: Path, names: tuple[str, ...], state: Path | None, idle: float | None) -> None:
    """Forget streams: their next reading is that of a new stream.

    CONFIG is the config of the service (service.toml), which must not run: the database has one owner.
    """
    from edge_lstm.service.database.stored_streams import forget_streams

    if bool(names) == (idle is not None):
        raise click.UsageError("expected either names of streams or --idle DAYS")
    gone = forget_streams(database_of(config, state), names, None if idle is None else _DAY_S * idle)
    for name in gone:
        click.echo(_on_one_line(name))
    click.echo(f"{len(gone)} stream{'' if len(gone) == 1 else 's'} forgotten", err=True)


def _time(moment: float | None) -> str | None:
    from edge_lstm.foundation.times.text import format_time

    return None if moment is None else format_time(moment)


def _on_one_line(text: str) -> str:
    """A name of an earlier release may have any sign."""
    return escaped(text).replace("\n", "\\n")


def database_of(config: Path, state: Path | None) -> Path:
    """The state database of a config, or the one that is named."""
    from edge_lstm.foundation.config import read_toml
    from edge_lstm.service.config import ServiceConfig
    from edge_lstm.service.opened_files import state_path

    return state or state_path(config.parent, read_toml(config, ServiceConfig).state)
