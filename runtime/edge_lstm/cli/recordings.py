"""The commands that play a recording: `replay` runs it through a bundle, `simulate` publishes it to a broker."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from edge_lstm.cli.options import (
    asked_layout,
    asked_times,
    backend_option,
    bundle_argument,
    layout_options,
    recording_argument,
    scheme_option,
    stream_column_option,
    stream_option,
    times_options,
)
from edge_lstm.foundation.text import escaped

if TYPE_CHECKING:
    from edge_lstm.bundle.archive import Bundle
    from edge_lstm.recordings.columns import TimeColumns, ValueColumn
    from edge_lstm.recordings.recording import Columns, Recording
    from edge_lstm.recordings.tables.table import Layout
    from edge_lstm.service.database.history_reader import Part
    from edge_lstm.streaming.predictor import Predictor
    from edge_lstm.streaming.reading import Prediction

_REPLAY_REWIND = 1000  # readings; for a history of another bundle, which is in the order of arrival


@click.command()
@bundle_argument
@click.argument("recording", type=click.Path(path_type=Path), required=False)
@click.option(
    "--history",
    "store",
    type=click.Path(path_type=Path),
    metavar="STATE.db",
    help="Replay the readings that a device kept in its state database, instead of a recording.",
)
@click.option(
    "--at", metavar="TIME", help="Stop after this time, and print the states of the streams (default: the end)."
)
@backend_option
@scheme_option
@times_options
@layout_options
@stream_column_option
@click.option(
    "--stream",
    metavar="NAME",
    help="Name of the only stream (default: name of the file). With --history, the stream to replay (default: all).",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="FEATURE=COLUMN",
    help="Column of a feature; repeatable (default: the column with the name of the feature).",
)
@click.option(
    "--learn/--no-learn",
    default=None,
    help="Correct forecasts as with [learn] in a service config (default: as the service did; not for a recording).",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE.csv", help="Write the predictions to this file."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print each prediction as the JSON that the service would publish."
)
def replay(
    bundle: Path,
    recording: Path | None,
    store: Path | None,
    at: str | None,
    backend: str | None,
    scheme: str | None,
    stream_column: str | None,
    stream: str | None,
    columns: tuple[str, ...],
    learn: bool | None,
    output: Path | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Run a recording through the service's own code, at full speed."""
    from edge_lstm.bundle.archive import Bundle
    from edge_lstm.messages.encoder import encode_prediction
    from edge_lstm.recordings.replay import predictions_csv, states
    from edge_lstm.service.database.history_reader import Part, read_parts
    from edge_lstm.service.database.spans import SteppingRules

    opened = Bundle.open(bundle)
    if recording is not None and store is None:
        layout, missing = asked_layout(how)
        source = Source(recording, asked_times(**how), layout, missing, stream_column, stream)
        parts = [Part(list(_read(opened, source, columns).readings()), SteppingRules(0, 0))]
    elif store is not None and recording is None:
        parts = read_parts(store, opened.id, stream, opened.contract)
    else:
        raise click.UsageError("expected either a RECORDING or --history STATE.db")
    if at is not None:
        stop = _time(at)
        parts = [part.until(stop) for part in parts]
    replayed = _replayed(parts, opened, backend, scheme, learn)
    predictions = replayed.predictions
    if output is not None:
        from edge_lstm.foundation.files import write_file

        write_file(output, predictions_csv(predictions, opened.contract))
    if as_json:
        for prediction in predictions:
            click.echo(encode_prediction(prediction, opened.id))
    if at is not None:
        click.echo(json.dumps(states(replayed.predictor), indent=None if as_json else 2))
    summary = _summary(replayed, sum(len(part.readings) for part in parts))
    click.echo(escaped(summary), err=as_json or at is not None)
    if output is not None:
        click.echo(f"wrote {output}", err=True)


def _read(bundle: Bundle, source: Source, columns: tuple[str, ...]) -> Recording:
    """The recording with the features of the bundle."""
    from edge_lstm.recordings.ahead_columns import ahead_of, columns_to_read, with_actual_values
    from edge_lstm.recordings.columns import ValueColumn
    from edge_lstm.recordings.pace import pace_warning
    from edge_lstm.recordings.tables.table import open_table, recording_files
    from edge_lstm.recordings.wav import read_wav

    features, sampling = bundle.contract.features, bundle.contract.sampling
    if source.path.suffix.lower() == ".wav":
        if sampling.interval_s is None:
            click.echo("note: the bundle does not say how long a step is, so any sample rate is taken", err=True)
        return read_wav(source.path, [feature.name for feature in features], source.stream, sampling.interval_s)
    quantities = {one.name: one.name for one in bundle.contract.known_ahead}
    names = _renamed({**quantities, **{feature.name: feature.name for feature in features}}, columns)
    values: dict[str, str | ValueColumn] = {
        one.name: ValueColumn(names[one.name], categories=one.categories, unit=one.unit) for one in features
    }
    ahead = ahead_of(bundle.contract, names)
    if ahead:
        header = open_table(recording_files(source.path)[0], source.layout).header
        values = columns_to_read(header, values, ahead, sampling.interval_s or 1.0)
    read = [one.column for one in values.values() if isinstance(one, ValueColumn)]
    recording = _recording(source, lambda columns: values, read, sampling.grid)
    if ahead:
        notes = recording.notes
        recording = with_actual_values(recording, [feature.name for feature in features], ahead, sampling, noisy=False)
        for note in recording.notes[len(notes) :]:
            click.echo(escaped(f"warning: {note}"), err=True)
    if (warning := pace_warning(recording, sampling)) is not None:
        click.echo(escaped(f"warning: {warning}"), err=True)
    return recording


@dataclass(frozen=True)
class Source:
    """A recording, and what the options say about it."""

    path: Path
    times: TimeColumns
    layout: Layout
    missing: Sequence[str]
    stream_column: str | None
    stream: str | None


def _recording(
    source: Source,
    values: Callable[[Columns], Mapping[str, str | ValueColumn]],
    names: Sequence[str] = (),
    grid: bool = False,
) -> Recording:
    """The recording with these values, in the format that is found; with notes about it on stderr.

    `names`: the columns of the values. Where a file has all of them, it is not of one row a value. `grid`: whether
    readings of one time are aggregated.
    """
    from edge_lstm.recordings.dialect import dialect
    from edge_lstm.recordings.long_search import long_layout
    from edge_lstm.recordings.recording import Columns
    from edge_lstm.recordings.tables.name_pattern import STREAM

    found = dialect(source.path, source.times, source.layout, missing=source.missing)
    layout, notes = long_layout(source.path, source.layout, source.stream_column, names)
    stream_column = STREAM if STREAM in (layout.name_pattern or "") else source.stream_column
    columns = Columns({}, found.times, stream_column, source.stream, layout=layout, words=found.words)
    columns = replace(columns, values=values(columns))
    if layout.name_column is not None:
        from edge_lstm.recordings.long_search import found_joining
        from edge_lstm.recordings.recording import read_recording

        columns = replace(columns, join_within_s=found_joining(read_recording(source.path, columns)).within_s)
    return _in_local_zone(source.path, columns, [*notes, *found.notes], grid)


def _in_local_zone(path: Path, columns: Columns, notes: Sequence[str], grid: bool) -> Recording:
    """The recording, with notes about its times on stderr."""
    from edge_lstm.recordings.local_zone import in_local_zone
    from edge_lstm.recordings.same_times import with_same_times

    for note in notes:
        click.echo(f"note: {note}", err=True)
    found = in_local_zone(path, columns)
    recording = with_same_times(found.recording, grid)
    for note in [*found.notes, *recording.notes]:
        click.echo(f"note: {note}", err=True)
    return recording


class _Replayed(NamedTuple):
    """The result of a replay."""

    predictor: Predictor  # of the last part
    totals: Counter[str]  # of all parts
    predictions: list[Prediction]
    took_s: float


def _replayed(
    parts: Sequence[Part], bundle: Bundle, backend: str | None, scheme: str | None, learn: bool | None
) -> _Replayed:
    """Replay parts, each by its own rules. The streams go on from one part to the next.

    `learn`: whether forecasts are corrected; None: as the rules say.
    """
    from edge_lstm.recordings.replay import hand_over, replay
    from edge_lstm.service.database.spans import SteppingRules
    from edge_lstm.service.feedback.replaying import ReplayedCommands
    from edge_lstm.streaming.predictor import Predictor

    commands = ReplayedCommands(parts)
    totals: Counter[str] = Counter()
    predictions: list[Prediction] = []
    predictor: Predictor | None = None
    former_rules, took_s = None, 0.0
    for part in parts:
        rules = part.rules or SteppingRules(_REPLAY_REWIND, 0)
        if learn is not None:
            rules = rules._replace(decision_rules=rules.decision_rules._replace(learn=learn))
        if predictor is None or rules != former_rules:
            former, former_rules = predictor, rules
            predictor = Predictor.of(bundle, backend, scheme, **rules._asdict())
            if former is not None:
                totals.update(former.totals)
                hand_over(former, predictor)
        commands.begin(part, predictor)
        begun = time.perf_counter()
        predictions += replay(predictor, part.readings, part.batches)
        took_s += time.perf_counter() - begun
    assert predictor is not None, "expected at least a part"
    totals.update(predictor.totals)
    return _Replayed(predictor, totals, predictions, took_s)


def _summary(replayed: _Replayed, readings: int) -> str:
    """Two lines: how many readings, streams and predictions; on which backend, and how fast."""
    predictor, totals, predictions = replayed.predictor, replayed.totals, len(replayed.predictions)
    counts = ", ".join(f"{count} {name}" for name, count in totals.items() if name != "samples" and count)
    return (
        f"{readings} readings of {_streams(len(predictor.table))}, {predictions} predictions"
        f"{f' ({counts})' if counts else ''}\n"
        f"{predictor.backend.name} {predictor.backend.scheme}, "
        f"{predictions / max(replayed.took_s, 1e-9):,.0f} predictions/s"
    )


def _time(text: str) -> float:
    from edge_lstm.foundation.times.text import parse_time

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
    """Speed relative to the recording; None: without pauses."""
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
@click.option("--to", "url", required=True, metavar="mqtt://HOST:PORT", help="Broker to publish to.")
@click.option(
    "--topic",
    default="sensors/{stream}",
    show_default=True,
    metavar="TOPIC",
    help="Topic for the readings of each stream.",
)
@click.option(
    "--speed",
    callback=_speed,
    default="1",
    show_default=True,
    metavar="N|max",
    help="Speed relative to the recording, or max: without pauses.",
)
@click.option(
    "--forecast",
    "forecasts",
    multiple=True,
    metavar="COLUMN=TOPIC",
    help="Publish columns like COLUMN+6h as forecasts of COLUMN; repeatable (default: as values of the readings).",
)
@times_options
@layout_options
@stream_column_option
@stream_option
def simulate(
    recording: Path,
    url: str,
    topic: str,
    forecasts: tuple[str, ...],
    speed: float | None,
    stream_column: str | None,
    stream: str | None,
    **how: Any,
) -> None:
    """Publish a recording to a broker, as its sensors would."""
    from edge_lstm.foundation.progress import progress
    from edge_lstm.mqtt.address import parse_address
    from edge_lstm.recordings.live.archived_forecasts import archived_forecasts
    from edge_lstm.recordings.live.simulator import simulate as play
    from edge_lstm.recordings.recording import value_columns

    address = parse_address(url)
    layout, missing = asked_layout(how)
    source = Source(recording, asked_times(**how), layout, missing, stream_column, stream)
    read = _recording(source, lambda columns: value_columns(recording, columns))
    archived, notes = archived_forecasts(read, forecasts)
    for note in notes:
        click.echo(escaped(f"note: {note}"), err=True)
    with progress(len(read), "readings") as tick:
        published = play(read, address, topic, speed, lambda reading: tick(""), archived)
    click.echo(f"{published} readings of {_streams(len(read.streams))} published to {address}")
