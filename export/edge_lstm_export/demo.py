"""The demo: train, export, verify, serve and compare, from a recording to the predictions that a subscriber receives.

It starts a broker and the service as separate processes and publishes the test part, which the model has never seen. It
fails unless every reading gets exactly the prediction that a replay of the same file gives.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge_lstm.backends.kinds import NAMES
from edge_lstm.backends.registry import why_unavailable
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.files import write_file
from edge_lstm.foundation.progress import progress
from edge_lstm.messages.decoder import STREAM
from edge_lstm.messages.encoder import decode_prediction
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.embedded_broker import EmbeddedBroker
from edge_lstm.recordings.live.simulator import simulate
from edge_lstm.recordings.recording import Recording, recording_csv
from edge_lstm.streaming.reading import Prediction, Reading
from edge_lstm_export.assemble import export_bundle
from edge_lstm_train.evaluation.regression import Score, score, table_text, verdict
from edge_lstm_train.evaluation.report import Facts, Paragraph, Section, write_report
from edge_lstm_train.evaluation.report_sections import forecast_pictures, score_tables
from edge_lstm_train.recipe.recipe import read_recipe
from edge_lstm_train.run import REPORT, Run, train, training_sections

_READINGS_A_SECOND = 400  # slow enough to measure the service's latency and not that of a queue
_SILENCE_S = 15.0  # the demo fails after this time without a prediction
_OUTPUT_TOPIC = f"predictions/{STREAM}"
_CLIENT_ID = "edge-lstm-demo"

_SERVICE = """\
bundle = "{bundle}"
state = "state.db"

[mqtt]
url = "{address}"
client_id = "{client_id}"

[input]
topic = "sensors/{{stream}}"

[output]
topic = "{output}"
"""


@dataclass(frozen=True)
class StreamedRun:
    """The readings sent, the predictions received and their latencies."""

    readings: int
    received: list[str]  # payloads, in the order of their arrival
    latencies_ms: list[float]  # from publish to prediction


def run_demo(folder: Path) -> None:
    """Run the demo in `folder`: progress on stderr, the table on stdout.

    Raises EdgeLstmError if a prediction is missing, or differs from the replay.
    """
    begun = time.monotonic()
    recipe = read_recipe("solar")
    with _stage("1/6", f"training on {recipe.recording.name}"):
        run = train(recipe, folder / "run")
    bundle = folder / "solar.elstm"
    with _stage("2/6", f"exporting {bundle}"):
        exported = export_bundle(run.checkpoint, bundle)
    with _stage("3/6", "verifying the bundle on every backend that is installed"):
        for verdict in exported.verdicts:
            click.echo(f"      {verdict.backend} {verdict.scheme}: {verdict.finding}", err=True)
        for name in NAMES:
            if (missing := why_unavailable(name)) is not None:
                click.echo(f"      {name}: not run; {missing.message}", err=True)
    test_part = _test_part(run)
    held_out = folder / f"{test_part.streams[0]}.csv"
    write_file(held_out, recording_csv(test_part))
    with _stage("4/6", f"streaming {len(test_part)} readings through a broker and the service"):
        streamed = _stream(folder, bundle, test_part)
    with _stage("5/6", "replaying the same file"):
        replayed = _replay_output(bundle, held_out)
    predictions = [decode_prediction(payload) for payload in streamed.received]
    assert run.baselines is not None  # the demo forecasts
    scores = score(run.dataset, run.baselines, predictions)
    with _stage("6/6", f"writing {folder / REPORT}"):
        _report(folder / REPORT, run, streamed, predictions, scores)
    _print(streamed, scores)
    _refuse_differences(streamed, replayed)
    click.echo(f"every prediction equals the replay's; {time.monotonic() - begun:.0f} s in all", err=True)


@contextmanager
def _stage(number: str, what: str) -> Iterator[None]:
    click.echo(f"[{number}] {what}", err=True)
    begun = time.monotonic()
    yield
    click.echo(f"      {time.monotonic() - begun:.1f} s", err=True)


def _test_part(run: Run) -> Recording:
    """The rows of the test part."""
    recording = run.dataset.recording
    return recording.rows(recording.times >= run.dataset.starts["test"])


def _stream(folder: Path, bundle: Path, test_part: Recording) -> StreamedRun:
    """Publish the readings to a broker and collect the service's predictions."""
    for leftover in folder.glob("state.db*"):  # from an earlier demo, for which these readings would be old
        leftover.unlink()
    config = folder / "service.toml"
    with EmbeddedBroker() as broker:
        write_file(
            config,
            _SERVICE.format(bundle=bundle.name, address=broker.address, client_id=_CLIENT_ID, output=_OUTPUT_TOPIC),
        )
        with _Subscriber(broker.address_311) as subscriber, _service(config, folder / "service.log") as process:
            subscriber.wait_online(process)
            interval_s = float(np.median(np.diff(test_part.times)))
            published: dict[tuple[str, float], float] = {}

            def note(reading: Reading) -> None:
                published[reading.stream, reading.time] = time.monotonic()
                tick("")

            with progress(len(test_part), "      readings") as tick:
                simulate(test_part, broker.address, "sensors/{stream}", _READINGS_A_SECOND * interval_s, note)
            subscriber.wait_for(len(test_part))
    arrivals = list(subscriber.arrivals)
    latencies = []
    for payload, arrived in arrivals:
        prediction = decode_prediction(payload)
        latencies.append(1000 * (arrived - published[prediction.stream, prediction.time]))
    return StreamedRun(len(test_part), [payload for payload, _ in arrivals], latencies)


class _Subscriber:
    """An ordinary MQTT 3.1.1 client, which keeps each payload with its arrival time."""

    def __init__(self, address: Address) -> None:
        self.arrivals: list[tuple[str, float]] = []
        self._changed = threading.Condition()
        self._online = False
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(_OUTPUT_TOPIC.replace(STREAM, "+"), 1), (f"edge-lstm/{_CLIENT_ID}/status", 1)]
        )
        self._client.connect(address.host, address.port)

    def __enter__(self) -> _Subscriber:
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def wait_online(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the service reports that it is online. Raises EdgeLstmError if it ends or stays silent."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: self._online or process.poll() is not None, _SILENCE_S)
        if not arrived or process.poll() is not None:
            raise EdgeLstmError("expected the service to come online, found that it did not", "see demo/service.log")

    def wait_for(self, count: int) -> None:
        """Wait for `count` predictions, or until none arrives for a while."""
        with self._changed:
            while len(self.arrivals) < count:
                if not self._changed.wait(_SILENCE_S):
                    return

    def _on_message(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        arrived = time.monotonic()
        with self._changed:
            if message.topic.startswith("edge-lstm/"):
                self._online = message.payload == b"online"
            else:
                self.arrivals.append((bytes(message.payload).decode(), arrived))
            self._changed.notify_all()


@contextmanager
def _service(config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`edge-lstm run` as a separate process, which ends with the block."""
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "edge_lstm", "run", str(config)], stderr=file)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def _replay_output(bundle: Path, recording: Path) -> list[str]:
    """The output of `edge-lstm replay --json`."""
    command = [sys.executable, "-m", "edge_lstm", "replay", str(bundle), str(recording), "--json"]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        raise EdgeLstmError("expected the replay to succeed, found that it failed", "see its message above")
    return finished.stdout.splitlines()


def _print(streamed: StreamedRun, scores: list[Score]) -> None:
    click.echo(f"\nRMSE of the {len(streamed.received)} predictions received over MQTT, and of the baselines\n")
    click.echo(table_text(scores))
    click.echo("")
    for name, text in _facts(streamed).items():
        click.echo(f"{name:<17}{text}")


def _facts(streamed: StreamedRun) -> dict[str, str]:
    p50, p99 = np.percentile(streamed.latencies_ms, [50, 99]) if streamed.latencies_ms else (np.nan, np.nan)
    return {
        "readings in": f"{streamed.readings}",
        "predictions out": f"{len(streamed.received)}",
        "latency": f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, from publish to prediction",
    }


def _report(path: Path, run: Run, streamed: StreamedRun, predictions: list[Prediction], scores: list[Score]) -> None:
    """The report on the received predictions and on the training."""
    sections = [
        Section("", [Paragraph(f"{verdict(scores)} Evaluated on predictions that a subscriber received.", "lead")]),
        Section("Received over MQTT", [*score_tables(scores), Facts(_facts(streamed))]),
        Section("Truth and forecast, as received (times in UTC)", forecast_pictures(run.dataset, predictions)),
        *training_sections(run),
    ]
    write_report(path, "solar: a plant's output, forecast over MQTT", sections)


def _refuse_differences(streamed: StreamedRun, replayed: list[str]) -> None:
    """Require exactly one prediction per reading, equal to the replay's in every digit."""
    hint = "this is a bug in edge-lstm: please report it with the demo folder"
    steps = {(one.stream, one.time) for one in map(decode_prediction, streamed.received)}
    if not len(steps) == len(streamed.received) == streamed.readings:
        found = f"{len(streamed.received)} predictions for {len(steps)} of them"
        raise EdgeLstmError(f"expected one prediction for each of {streamed.readings} readings, found {found}", hint)
    if sorted(streamed.received) != sorted(replayed):
        pairs = zip(streamed.received, replayed, strict=False)
        first = next((f"{one} where replay gives {other}" for one, other in pairs if one != other), "another number")
        raise EdgeLstmError(f"expected the predictions of the replay, found {first}", hint)
