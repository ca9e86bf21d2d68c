"""The commands of `edge-lstm history`: the readings that a stopped service kept."""

from __future__ import annotations

from pathlib import Path

import click

from edge_lstm.cli.options import config_argument, exported_file_option, state_option, write_exported
from edge_lstm.cli.streams import database_of


@click.group()
def history() -> None:
    """Write the kept readings of a stopped service as a recording."""


@history.command()
@config_argument
@state_option
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    metavar="FILE.elstm",
    help="Bundle that stepped the readings (default: that of the config).",
)
@click.option("--stream", metavar="NAME", help="Write only the readings of this stream (default: all).")
@exported_file_option
def export(config: Path, state: Path | None, bundle: Path | None, stream: str | None, output: Path | None) -> None:
    """Write readings and labels as CSV, for the next training.

    CONFIG is the config of the service (service.toml), which must not run: the database has one owner. The columns are
    time, stream, the features of the bundle, and what operators said: 1 within false_alarm, missed and maintenance,
    0 elsewhere.
    """
    from edge_lstm.bundle.archive import Bundle
    from edge_lstm.foundation.config import read_toml
    from edge_lstm.service.config import ServiceConfig
    from edge_lstm.service.kept_recording import export_history

    opened = Bundle.open(bundle or config.parent / read_toml(config, ServiceConfig).bundle)
    write_exported(export_history(database_of(config, state), opened.id, opened.contract, stream), output)
