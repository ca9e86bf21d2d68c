"""The command `init`, which needs no torch."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edge_lstm.cli.options import asked_layout, asked_times, layout_options, times_options
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import escaped

_SERVICE = "service.toml"


@click.command()
@click.argument("recording", type=click.Path(path_type=Path), required=False)
@click.option(
    "--task",
    type=click.Choice(["forecast", "anomaly", "classify", "regress"]),
    required=True,
    help="Task of the model.",
)
@click.option(
    "--target", metavar="COLUMN", help="Column to forecast, classify or estimate (default: detected from the data)."
)
@click.option(
    "--stream-column", metavar="COLUMN", help="Column that names the stream (default: detected from the data)."
)
@times_options
@layout_options
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(1e-6),
    metavar="SECONDS",
    help="Time between two rows, for a recording without times (default: 60).",
)
@click.option("--header", metavar="NAME,...", help="Names of the columns, for a file without a header row.")
@click.option(
    "--decimal",
    type=click.Choice(["point", "comma"]),
    help="Decimal separator of the numbers (default: detected from the data).",
)
@click.option("--name", metavar="NAME", help="Name of the model (default: name of the recording).")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Folder for both files (default: this folder).",
)
def init(
    recording: Path | None,
    task: str,
    target: str | None,
    stream_column: str | None,
    header: str | None,
    decimal: str | None,
    name: str | None,
    output: Path,
    interval_s: float | None,
    **how: Any,
) -> None:
    """Write a commented recipe and service config for your own data.

    RECORDING is a CSV or Parquet file, or a pattern in quotes for several files. With a RECORDING, the recipe
    names its columns.
    """
    from edge_lstm.foundation.files import write_file
    from edge_lstm.recordings.tables.table import is_database
    from edge_lstm_train.recipe.outline import feature_names, recipe_outline, relative, service_outline
    from edge_lstm_train.recipe.recipe import read_recipe
    from edge_lstm_train.recipe.survey import survey

    layout, missing = asked_layout(how)
    asked = replace(asked_times(**how), interval_s=interval_s)
    stem = "sensors" if recording is None else recording.name.split(".")[0]
    name = name or re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_") or "sensors"
    files = {output / f"{name}.toml", output / _SERVICE}
    for file in sorted(files):
        if file.exists():
            raise EdgeLstmError(f"expected no file at {file}, found one", "choose another --name or -o DIR")
    if not output.is_dir():
        raise EdgeLstmError(f"expected a folder at {output}, found none", "create it first, or choose another with -o")
    names = [] if header is None else [one.strip() for one in header.split(",")]
    comma = None if decimal is None else decimal == "comma"
    wanted = [target] if target else []
    found = (
        None if recording is None else survey(recording, stream_column, names, comma, asked, layout, missing, wanted)
    )
    path = None if recording is None else relative(recording, output)
    recipe = recipe_outline(task, name, path, found, target)  # type: ignore[arg-type]
    write_file(output / f"{name}.toml", recipe)
    write_file(output / _SERVICE, service_outline(name, found, feature_names(task, found, target)))  # type: ignore[arg-type]
    read_recipe(output / f"{name}.toml")  # the written recipe has to be valid
    if recording is not None and recording.is_file() and is_database(recording):
        _list_entities(recording)
    if found is not None:
        for note in found.notes:
            click.echo(f"note: {note}", err=True)
        streams = f"{found.streams} stream{'' if found.streams == 1 else 's'}"
        time = (
            f"times in {' and '.join(found.times.columns)}"
            if found.times and found.times.columns
            else "no column of times"
        )
        click.echo(
            escaped(f"found {found.rows} rows of {streams}, {time}, {len(found.numbers)} columns of numbers"), err=True
        )
        for sentence in found.kinds.sentences():
            click.echo(escaped(sentence), err=True)
    click.echo(f"wrote {output / f'{name}.toml'} and {output / _SERVICE}")
    click.echo(f"next: check the lines marked <-, then run edge-lstm train {output / f'{name}.toml'}", err=True)


def _list_entities(database: Path) -> None:
    """Print the entities of Home Assistant's recorder, with units and numbers of rows."""
    from edge_lstm.foundation.times.text import format_time
    from edge_lstm.recordings.tables.home_assistant import entities

    listed = [one for one in entities(database) if one.is_numeric]
    width = max([len(one.name) for one in listed], default=0)
    for one in listed:
        rows = f"{one.statistics} hourly statistics, {one.states} states"
        click.echo(f"{one.name:<{width}}  {one.unit:<6} {rows}, since {format_time(float(int(one.first)))}")
