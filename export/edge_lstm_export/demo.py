"""The demo: every station from a recording to a subscriber's screen, with the real parts, judged by what was received.

It trains, exports, verifies, starts a broker and the service as processes of their own, publishes what the model has
never seen, listens as any MQTT client would, and fails unless every reading got exactly the prediction that a replay
of the same file gives.
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
from edge_lstm.backends.registry import refusal
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.files import write_file
from edge_lstm.foundation.progress import progress
from edge_lstm.messages.decoder import STREAM
from edge_lstm.messages.encoder import decode_prediction
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.embedded_broker import EmbeddedBroker
from edge_lstm.recordings.recording import Recording, recording_csv
from edge_lstm.recordings.simulator import simulate
from edge_lstm.streaming.reading import Prediction, Reading
from edge_lstm_export.assemble import export_bundle
from edge_lstm_train.evaluation.regression import Score, score, table_text, verdict
from edge_lstm_train.evaluation.report import Facts, Paragraph, Section, write_report
from edge_lstm_train.evaluation.report_sections import forecast_pictures, score_tables
from edge_lstm_train.recipe.recipe import read_recipe
from edge_lstm_train.run import REPORT, Run, train, training_sections

_READINGS_A_SECOND = 400  # slow enough that latency is the service's own and not a queue's
_SILENCE_S = 15.0  # without a prediction for so long, the demo has failed
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
class Streamed:
    """What went in and what came out, in numbers."""

    readings: int
    received: list[str]  # payloads, in the order of their arrival
    latencies_ms: list[float]  # from publish to prediction


def run_demo(folder: Path) -> None:
    """Run it in `folder`: progress on stderr, the table on stdout. Raises EdgeLstmError where a promise is broken."""
    begun = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    recipe = read_recipe("solar")
    with _station("1/6", f"training on {recipe.recording.name}"):
        run = train(recipe, folder / "run")
    bundle = folder / "solar.elstm"
    with _station("2/6", f"exporting {bundle}"):
        exported = export_bundle(run.checkpoint, bundle)
    with _station("3/6", "verifying the bundle on every backend that is installed"):
        for verdict in exported.verdicts:
            click.echo(f"      {verdict.backend} {verdict.scheme}: {verdict.finding}", err=True)
        for name in NAMES:
            if (missing := refusal(name)) is not None:
                click.echo(f"      {name}: not run; {missing.message}", err=True)
    unseen = _unseen(run)
    held_out = folder / f"{unseen.streams[0]}.csv"
    write_file(held_out, recording_csv(unseen))
    with _station("4/6", f"streaming {len(unseen)} readings through a broker and the service"):
        streamed = _stream(folder, bundle, unseen)
    with _station("5/6", "replaying the same file"):
        replayed = _replayed(bundle, held_out)
    predictions = [decode_prediction(payload) for payload in streamed.received]
    assert run.baselines is not None  # the demo forecasts
    scores = score(run.dataset, run.baselines, predictions)
    with _station("6/6", f"writing {folder / REPORT}"):
        _report(folder / REPORT, run, streamed, predictions, scores)
    _print(streamed, scores)
    _refuse_differences(streamed, replayed)
    click.echo(f"every prediction equals the replay's; {time.monotonic() - begun:.0f} s in all", err=True)


@contextmanager
def _station(number: str, what: str) -> Iterator[None]:
    click.echo(f"[{number}] {what}", err=True)
    begun = time.monotonic()
    yield
    click.echo(f"      {time.monotonic() - begun:.1f} s", err=True)


def _unseen(run: Run) -> Recording:
    """The rows of the test part."""
    recording = run.dataset.recording
    return recording.rows(recording.times >= run.dataset.starts["test"])


def _stream(folder: Path, bundle: Path, unseen: Recording) -> Streamed:
    """Publish the readings to a broker and collect what the service makes of them."""
    for leftover in folder.glob("state.db*"):  # of an earlier demo, whose clock has passed these readings
        leftover.unlink()
    config = folder / "service.toml"
    with EmbeddedBroker() as broker:
        write_file(
            config,
            _SERVICE.format(bundle=bundle.name, address=broker.address, client_id=_CLIENT_ID, output=_OUTPUT_TOPIC),
        )
        with _Subscriber(broker.address_311) as subscriber, _service(config, folder / "service.log") as process:
            subscriber.wait_online(process)
            interval_s = float(np.median(np.diff(unseen.times)))
            published: dict[tuple[str, float], float] = {}

            def note(reading: Reading) -> None:
                published[reading.stream, reading.time] = time.monotonic()
                tick("")

            with progress(len(unseen), "      readings") as tick:
                simulate(unseen, broker.address, "sensors/{stream}", _READINGS_A_SECOND * interval_s, note)
            subscriber.wait_for(len(unseen))
    arrivals = list(subscriber.arrivals)
    latencies = []
    for payload, arrived in arrivals:
        prediction = decode_prediction(payload)
        latencies.append(1000 * (arrived - published[prediction.stream, prediction.time]))
    return Streamed(len(unseen), [payload for payload, _ in arrivals], latencies)


class _Subscriber:
    """An ordinary MQTT 3.1.1 client, which keeps each payload with the moment of its arrival."""

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
        """Until the service says it is online. Raises EdgeLstmError where it ends instead."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: self._online or process.poll() is not None, _SILENCE_S)
        if not arrived or process.poll() is not None:
            raise EdgeLstmError("expected the service to come online, found that it did not", "see demo/service.log")

    def wait_for(self, count: int) -> None:
        """Until `count` predictions are here, or none comes any more."""
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
    """`edge-lstm run` as a process of its own; ended, and waited for, at the end of the block."""
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "edge_lstm", "run", str(config)], stderr=file)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def _replayed(bundle: Path, recording: Path) -> list[str]:
    """What `edge-lstm replay --json` prints."""
    command = [sys.executable, "-m", "edge_lstm", "replay", str(bundle), str(recording), "--json"]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        raise EdgeLstmError("expected the replay to run through, found that it failed", "its message stands above")
    return finished.stdout.splitlines()


def _print(streamed: Streamed, scores: list[Score]) -> None:
    click.echo(f"\nRMSE of the {len(streamed.received)} predictions received over MQTT, beside the baselines\n")
    click.echo(table_text(scores))
    click.echo("")
    for name, text in _facts(streamed).items():
        click.echo(f"{name:<17}{text}")


def _facts(streamed: Streamed) -> dict[str, str]:
    p50, p99 = np.percentile(streamed.latencies_ms, [50, 99]) if streamed.latencies_ms else (np.nan, np.nan)
    return {
        "readings in": f"{streamed.readings}",
        "predictions out": f"{len(streamed.received)}",
        "latency": f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, from publish to prediction",
    }


def _report(path: Path, run: Run, streamed: Streamed, predictions: list[Prediction], scores: list[Score]) -> None:
    """What was received, and how the model came about."""
    sections = [
        Section("", [Paragraph(f"{verdict(scores)} So say the predictions as a subscriber received them.", "lead")]),
        Section("Received over MQTT", [*score_tables(scores), Facts(_facts(streamed))]),
        Section("Truth and forecast, as received (times in UTC)", forecast_pictures(run.dataset, predictions)),
        *training_sections(run),
    ]
    write_report(path, "solar: a plant's output, forecast over MQTT", sections)


def _refuse_differences(streamed: Streamed, replayed: list[str]) -> None:
    """Every reading got exactly one prediction, and it is the replay's, to the last digit."""
    hint = "this is a bug in edge-lstm: please report it with the demo folder"
    steps = {(one.stream, one.time) for one in map(decode_prediction, streamed.received)}
    if not len(steps) == len(streamed.received) == streamed.readings:
        found = f"{len(streamed.received)} predictions for {len(steps)} of them"
        raise EdgeLstmError(f"expected one prediction for each of {streamed.readings} readings, found {found}", hint)
    if sorted(streamed.received) != sorted(replayed):
        pairs = zip(streamed.received, replayed, strict=False)
        first = next((f"{one} where replay gives {other}" for one, other in pairs if one != other), "another number")
        raise EdgeLstmError(f"expected the predictions of the replay, found {first}", hint)
