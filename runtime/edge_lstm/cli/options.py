"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from edge_lstm.backends.kinds import NAMES

bundle_argument = click.argument("bundle", type=click.Path(path_type=Path))
config_argument = click.argument("config", type=click.Path(path_type=Path))
recording_argument = click.argument("recording", type=click.Path(path_type=Path))
backend_option = click.option(
    "--backend", type=click.Choice(NAMES), help="Inference backend (default: fastest installed)."
)
scheme_option = click.option(
    "--scheme",
    metavar="SCHEME",
    help="Storage of the weights: float32, int8, ... (default: int8 where the bundle has it).",
)
time_option = click.option(
    "--time", "time_column", metavar="COLUMN", help="Column of times (default: detected from the data)."
)
stream_column_option = click.option(
    "--stream-column", metavar="COLUMN", help="Column that names the stream (default: one stream per file)."
)
stream_option = click.option("--stream", metavar="NAME", help="Name of the only stream (default: name of the file).")
