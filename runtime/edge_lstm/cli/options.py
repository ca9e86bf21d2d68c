"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from edge_lstm.backends.kinds import NAMES

bundle_argument = click.argument("bundle", type=click.Path(path_type=Path))
config_argument = click.argument("config", type=click.Path(path_type=Path))
recording_argument = click.argument("recording", type=click.Path(path_type=Path))
backend_option = click.option("--backend", type=click.Choice(NAMES), help="Who steps the network.")
scheme_option = click.option("--scheme", metavar="SCHEME", help="How its weights are stored: float32, int8, ...")
time_option = click.option("--time", "time_column", metavar="COLUMN", help="The column of times. Default: found.")
stream_column_option = click.option("--stream-column", metavar="COLUMN", help="The column that names the stream.")
stream_option = click.option("--stream", metavar="NAME", help="The only stream's name. Default: the file's.")
