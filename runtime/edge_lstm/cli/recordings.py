"""The commands that play a recording: `replay` through a bundle, `simulate` into a broker."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import click

from edge_lstm.cli.options import (
    backend_option,
    bundle_argument,
    recording_argument,
    scheme_option,
    stream_column_option,
    stream_option,
    time_option,
)

_REPLAY_REWIND = 1000  # of a history whose bundle is another: it holds readings in the order of their arrival


@click.command()
@bundle_argument
@click.argument("recording", type=click.Path(path_type=Path), required=False)
@click.option("--history", "store", type=click.Path(path_type=Path), metavar="STATE.db", help="What a device kept.")
@click.option("--at", metavar="TIME", help="Stop after this time, and show the streams' states.")
@backend_option
@scheme_option
@time_option
@stream_column_option
@stream_option
@click.option("--column", "columns", multiple=True, metavar="FEATURE=COLUMN", help="Where a feature has another name.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the predictions to a CSV file.")
@click.option("--json", "as_json", is_flag=True, help="Print each prediction as the service would publish it.")
def replay(
    bundle: Path,
    recording: Path | None,
    store: Path | None,
    at: str | None,
    backend: str | None,
    scheme: str | None,
    time_column: str | None,
    stream_column: str | None,
    stream: str | None,
    columns: tuple[str, ...],
    output: Path | None,
    as_json: bool,
) -> None:
    """Run a recording, or what a device kept (--history), through the service's own core, at full speed."""
    from edge_lstm.bundle.archive import Bundle
    from edge_lstm.messages.encoder import encode_prediction
    from edge_lstm.recordings.columns import ValueColumn
    from edge_lstm.recordings.dialect import dialect
    from edge_lstm.recordings.recording import Columns, read_recording
    from edge_lstm.recordings.replay import predictions_csv, states, until
    from edge_lstm.recordings.replay import replay as run_through
    from edge_lstm.service.store import SteppingRules, history
    from edge_lstm.streaming.predictor import Predictor

    if (recording is None) == (store is None):
        raise click.UsageError("expected either a RECORDING or --history STATE.db")
    opened = Bundle.open(bundle)
    rules: SteppingRules | None = SteppingRules(0, 0)
    if recording is not None and recording.suffix.lower() == ".wav":
        from edge_lstm.recordings.wav import read_wav

        readings = list(read_wav(recording, [one.name for one in opened.contract.features], stream).readings())
    elif recording is not None:
        names = _renamed({feature.name: feature.name for feature in opened.contract.features}, columns)
        values = {one.name: ValueColumn(names[one.name], categories=one.categories) for one in opened.contract.features}
        found = dialect(recording, time_column)
        where = Columns(values, found.times, stream_column, stream, words=found.words)
        readings = list(read_recording(recording, where).readings())
    elif store is not None:
        readings, rules = history(store, opened.id)
    if at is not None:
        readings = list(until(readings, _time(at)))
    rules = rules or SteppingRules(_REPLAY_REWIND, 0)
    predictor = Predictor.of(opened, backend, scheme, **rules._asdict())
    begun = time.perf_counter()
    predictions = list(run_through(predictor, readings))
    took = time.perf_counter() - begun
    if output is not None:
        from edge_lstm.foundation.files import write_file

        write_file(output, predictions_csv(predictions, opened.contract))
    if as_json:
        for prediction in predictions:
            click.echo(encode_prediction(prediction, opened.id))
    if at is not None:
        click.echo(json.dumps(states(predictor), indent=None if as_json else 2))
    counts = ", ".join(f"{count} {name}" for name, count in predictor.totals.items() if name != "samples" and count)
    summary = (
        f"{len(readings)} readings of {_streams(len(predictor.table))}, {len(predictions)} predictions"
        f"{f' ({counts})' if counts else ''}\n"
        f"{predictor.backend.name} {predictor.backend.scheme}, {len(predictions) / max(took, 1e-9):,.0f} predictions/s"
    )
    click.echo(summary, err=as_json or at is not None)
    if output is not None:
        click.echo(f"wrote {output}", err=True)


def _time(text: str) -> float:
    from edge_lstm.foundation.times import parse_time

    try:
        return parse_time(text)
    except ValueError as error:
        raise click.UsageError(f"--at: {error}") from None


def _streams(count: int) -> str:
    return f"{count} stream{'s' if count > 1 else ''}"


def _renamed(names: dict[str, str], columns: tuple[str, ...]) -> dict[str, str]:
    for text in columns:
        feature, equals, column = text.partition("=")
        if not equals or feature not in names:
            known = ", ".join(names)
            raise click.UsageError(f"--column: expected FEATURE=COLUMN with a feature of {known}, found {text!r}")
        names[feature] = column
    return names


def _speed(context: click.Context, parameter: click.Parameter, text: str) -> float | None:
    """How much faster than the recording; None: as fast as it goes."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not 0 < speed < math.inf:
        raise click.BadParameter(f"expected a number over 0, or max, found {text!r}")
    return speed


@click.command()
@recording_argument
@click.option("--to", "url", required=True, metavar="mqtt://HOST:PORT", help="The broker.")
@click.option("--topic", default="sensors/{stream}", show_default=True, help="Where each stream's readings go.")
@click.option(
    "--speed",
    callback=_speed,
    default="1",
    show_default=True,
    metavar="N|max",
    help="Times as fast as recorded, or max.",
)
@time_option
@stream_column_option
@stream_option
def simulate(
    recording: Path,
    url: str,
    topic: str,
    speed: float | None,
    time_column: str | None,
    stream_column: str | None,
    stream: str | None,
) -> None:
    """Play a recording into a broker, as if its sensors were there."""
    from edge_lstm.foundation.progress import progress
    from edge_lstm.mqtt.address import parse_address
    from edge_lstm.recordings.dialect import dialect
    from edge_lstm.recordings.recording import Columns, read_recording, value_columns
    from edge_lstm.recordings.simulator import simulate as play

    address = parse_address(url)
    found = dialect(recording, time_column)
    columns = Columns({}, found.times, stream_column, stream, words=found.words)
    read = read_recording(recording, replace(columns, values=value_columns(recording, columns)))
    with progress(len(read), "readings") as tick:
        published = play(read, address, topic, speed, lambda reading: tick(""))
    click.echo(f"{published} readings of {_streams(len(read.streams))} published to {address}")
