"""The command line: results on stdout, everything else on stderr.

Exit 0 good, 1 refused or failed, 2 wrong usage, 65 a bundle that fails its self-test here.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edge_lstm import __version__
from edge_lstm.backends import NAMES, preferred, refusal, runnable
from edge_lstm.bundle import Bundle
from edge_lstm.errors import EdgeLstmError
from edge_lstm.files import write_file

_REPLAY_REWIND = 1000  # of a history whose bundle is another: it holds readings in the order of their arrival

# Commands in files of their own, reached by name; the workshops': a device has neither torch nor what makes bundles.
_ELSEWHERE = {
    "train": "edge_lstm_train.cli",
    "tune": "edge_lstm_train.cli",
    "export": "edge_lstm_export.cli",
    "adopt": "edge_lstm_export.adopt_cli",
    "demo": "edge_lstm_export.demo_cli",
    "init": "edge_lstm_train.init_cli",
    "record": "edge_lstm.record_cli",
    "device": "edge_lstm.device_cli",
    "bench": "edge_lstm.bench_cli",
    "doctor": "edge_lstm.doctor_cli",
}
_ORDER = [
    "demo",
    "init",
    "record",
    "train",
    "tune",
    "export",
    "adopt",
    "keys",
    "sign",
    "inspect",
    "verify",
    "bench",
    "replay",
    "simulate",
    "doctor",
    "run",
    "status",
    "device",
    "broker",
]


class _Verbs(click.Group):
    """The verbs in the order of use; those of the workshops are loaded when they are named."""

    def list_commands(self, context: click.Context) -> list[str]:
        return _ORDER

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name in _ELSEWHERE:
            command: click.Command = getattr(importlib.import_module(_ELSEWHERE[name]), name)
            return command
        return super().get_command(context, name)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except EdgeLstmError as error:
            click.echo(f"error: {error}", err=True)
            context.exit(error.exit_code)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge-lstm")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def main(verbose: bool) -> None:
    """From a recording of your sensors to an LSTM on a small board that remembers."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("edge_lstm").setLevel(logging.DEBUG if verbose else logging.INFO)


_bundle_argument = click.argument("bundle", type=click.Path(path_type=Path))
_recording_argument = click.argument("recording", type=click.Path(path_type=Path))
_backend_option = click.option("--backend", type=click.Choice(NAMES), help="Who steps the network.")
_scheme_option = click.option("--scheme", metavar="SCHEME", help="How its weights are stored: float32, int8, ...")
_time_option = click.option("--time", "time_column", metavar="COLUMN", help="The column of times. Default: found.")
_stream_column_option = click.option("--stream-column", metavar="COLUMN", help="The column that names the stream.")
_stream_option = click.option("--stream", metavar="NAME", help="The only stream's name. Default: the file's.")


@main.command()
@_bundle_argument
@click.option("--json", "as_json", is_flag=True, help="All of it, for programs.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Draw the model card as a web page.")
def inspect(bundle: Path, as_json: bool, html: Path | None) -> None:
    """Show what a bundle takes, gives and carries."""
    from edge_lstm.data_sheet import data_sheet, facts

    opened = Bundle.open(bundle)
    if html is not None:
        from edge_lstm.model_page import model_page

        write_file(html, model_page(opened))
        click.echo(f"wrote {html}", err=True)
    click.echo(json.dumps(facts(opened), indent=2) if as_json else data_sheet(opened))


@main.command()
@_bundle_argument
@_backend_option
@_scheme_option
@click.option("--json", "as_json", is_flag=True, help="A list of verdicts, for programs.")
@click.option("--trust", type=click.Path(path_type=Path), metavar="PUBLIC_KEY", help="Who must have signed it.")
def verify(bundle: Path, backend: str | None, scheme: str | None, as_json: bool, trust: Path | None) -> None:
    """Replay a bundle's golden vectors on the backends that are installed here."""
    from edge_lstm.selftest import verify as verdicts_of

    opened = Bundle.open(bundle)
    if trust is not None:
        from edge_lstm.signing import refuse_untrusted

        refuse_untrusted(opened, trust)
        click.echo(f"signed by {trust}", err=True)
    if backend is not None and (error := refusal(backend)) is not None:
        raise error
    if scheme is not None and scheme not in opened.schemes:
        raise EdgeLstmError(
            f"{bundle}: expected a scheme of {', '.join(opened.schemes)}, found {scheme}", "choose one of them"
        )
    runs = [run for run in runnable(opened) if run[0] == (backend or run[0]) and run[1] == (scheme or run[1])]
    if not runs:
        from edge_lstm.backends import load

        load(opened, *preferred(opened, backend, scheme))  # says what is missing, or why that backend may not
        raise EdgeLstmError(f"{bundle}: expected a variant for {backend}, found none", "export again with --format")
    verdicts = verdicts_of(opened, runs)
    if as_json:
        click.echo(json.dumps([_verdict_facts(verdict) for verdict in verdicts], indent=2))
    else:
        for verdict in verdicts:
            mark = "ok" if verdict.passed else "FAILED"
            click.echo(f"{mark:<7}{verdict.backend:<15}{verdict.scheme:<9}{verdict.finding}")
        for name in NAMES:
            if backend is None and (error := refusal(name)) is not None:
                click.echo(f"not run {name}: {error.message}", err=True)
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if failed:
        names = ", ".join(f"{verdict.backend} {verdict.scheme}" for verdict in failed)
        raise EdgeLstmError(
            f"{bundle}: expected every backend to give the golden vectors, found {len(failed)} that does not: {names}",
            "do not run the bundle on these; another version of the backend may do",
        )


@main.group()
def keys() -> None:
    """Make the keys that bundles are signed with."""


@keys.command("new")
@click.argument("name", type=click.Path(path_type=Path))
def new_keys_command(name: Path) -> None:
    """Make a pair: NAME.key signs and stays secret, NAME.pub goes onto devices."""
    from edge_lstm.signing import new_keys

    private, public = new_keys(name)
    click.echo(f"wrote {private} (keep it secret) and {public} (put it on devices)")


@main.command()
@_bundle_argument
@click.option("--key", type=click.Path(path_type=Path), required=True, metavar="PRIVATE_KEY", help="From keys new.")
def sign(bundle: Path, key: Path) -> None:
    """Sign a bundle in its place; its id stays."""
    from edge_lstm.signing import signature

    opened = Bundle.open(bundle)
    write_file(bundle, opened.signed(signature(opened, key)))
    click.echo(f"signed {bundle}  id {opened.id}")


def _verdict_facts(verdict: Any) -> dict[str, Any]:
    import dataclasses

    return {**dataclasses.asdict(verdict), "passed": verdict.passed, "finding": verdict.finding}


@main.command()
@_bundle_argument
@click.argument("recording", type=click.Path(path_type=Path), required=False)
@click.option("--history", "store", type=click.Path(path_type=Path), metavar="STATE.db", help="What a device kept.")
@click.option("--at", metavar="TIME", help="Stop after this time, and show the streams' states.")
@_backend_option
@_scheme_option
@_time_option
@_stream_column_option
@_stream_option
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
    from edge_lstm.columns import Quantity
    from edge_lstm.dialect import dialect
    from edge_lstm.predictions import encode_prediction
    from edge_lstm.predictor import Predictor
    from edge_lstm.recording import Columns, read_recording
    from edge_lstm.replay import predictions_csv, states, until
    from edge_lstm.replay import replay as run_through
    from edge_lstm.store import Rules, history

    if (recording is None) == (store is None):
        raise click.UsageError("expected either a RECORDING or --history STATE.db")
    opened = Bundle.open(bundle)
    rules: Rules | None = Rules(0, 0)
    if recording is not None and recording.suffix.lower() == ".wav":
        from edge_lstm.sound import read_sound

        readings = list(read_sound(recording, [one.name for one in opened.contract.features], stream).readings())
    elif recording is not None:
        names = _renamed({feature.name: feature.name for feature in opened.contract.features}, columns)
        values = {one.name: Quantity(names[one.name], categories=one.categories) for one in opened.contract.features}
        found = dialect(recording, time_column)
        where = Columns(values, found.times, stream_column, stream, words=found.words)
        readings = list(read_recording(recording, where).readings())
    elif store is not None:
        readings, rules = history(store, opened.id)
    if at is not None:
        readings = list(until(readings, _time(at)))
    rules = rules or Rules(_REPLAY_REWIND, 0)
    predictor = Predictor.of(opened, backend, scheme, **rules._asdict())
    begun = time.perf_counter()
    predictions = list(run_through(predictor, readings))
    took = time.perf_counter() - begun
    if output is not None:
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
    from edge_lstm.times import parse_time

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


@main.command()
@_recording_argument
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
@_time_option
@_stream_column_option
@_stream_option
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
    from edge_lstm.address import parse_address
    from edge_lstm.dialect import dialect
    from edge_lstm.progress import progress
    from edge_lstm.recording import Columns, read_recording, value_columns
    from edge_lstm.simulate import simulate as play

    address = parse_address(url)
    found = dialect(recording, time_column)
    columns = Columns({}, found.times, stream_column, stream, words=found.words)
    read = read_recording(recording, replace(columns, values=value_columns(recording, columns)))
    with progress(len(read), "readings") as tick:
        published = play(read, address, topic, speed, lambda reading: tick(""))
    click.echo(f"{published} readings of {_streams(len(read.streams))} published to {address}")


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
def run(config: Path) -> None:
    """Serve: take readings from MQTT, carry each stream's state, publish predictions."""
    import faulthandler

    from edge_lstm.lean_imports import defer_seldom_used

    faulthandler.enable()  # a wheel made for another processor ends us with no word of ours: this says in which import
    defer_seldom_used()
    from edge_lstm.serving import serve

    serve(config)


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="All of it, for programs.")
def status(config: Path, as_json: bool) -> None:
    """Show what the service of a config says of itself, over its broker."""
    from edge_lstm.service_config import read_service_config
    from edge_lstm.status import read_status, status_text

    facts = read_status(read_service_config(config).mqtt, config.parent)
    click.echo(json.dumps(facts, indent=2) if as_json else status_text(facts))


@main.command()
@click.option("--port", type=click.IntRange(1, 65534), default=1883, show_default=True, help="MQTT 5; 3.1.1 one above.")
def broker(port: int) -> None:
    """Run a small MQTT broker on loopback, for a first try without mosquitto."""
    from edge_lstm.broker import EmbeddedBroker
    from edge_lstm.signals import ended_by_signals

    with ended_by_signals(lambda: None) as ended, EmbeddedBroker(port) as embedded:
        click.echo(f"MQTT 5 at {embedded.address}, MQTT 3.1.1 at {embedded.address_311}; end with Ctrl-C", err=True)
        while embedded.running and not ended:
            time.sleep(0.2)
    if not ended:
        raise EdgeLstmError("expected the broker to run until it is told to end, found that it died", "start it again")
