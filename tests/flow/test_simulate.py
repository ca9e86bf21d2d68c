"""`simulate` publishes what a service with the recipe of the recording reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

from edge_lstm.cli.main import main
from edge_lstm.messages.decoder import Decoder, InputMapping
from edge_lstm.recordings.columns import NumberWords, TimeColumns, ValueColumn
from edge_lstm.recordings.recording import Columns, read_recording
from tests.conftest import Mosquitto
from tests.deadline import wait_until
from tests.flow.conftest import Subscriber

ROWS = """Datum;Uhrzeit;state;pressure;stage
31.12.2024;23.30.00;idle;4,31;1
31.12.2024;23.40.00;busy;-0,5;2
31.12.2024;23.50.00;NA;;2
01.01.2025;00.00.00;idle;5;1
"""


def test_simulate_reads_texts_and_decimal_commas_as_training_does(
    tmp_path: Path, start_mosquitto: Callable[..., Mosquitto], subscribe: Callable[..., Subscriber]
) -> None:
    path = tmp_path / "pump.csv"
    path.write_text(ROWS)
    address = start_mosquitto().address
    subscriber = subscribe(address, "sensors/#")
    done = CliRunner().invoke(main, ["simulate", str(path), "--to", str(address), "--speed", "max"])
    assert (done.exit_code, done.stdout) == (0, f"4 readings of 1 stream published to {address}\n")
    wait_until(lambda: len(subscriber.messages) == 4, "all readings have come")
    assert subscriber.payloads() == [
        {"time": "2024-12-31T23:30:00Z", "state": "idle", "pressure": 4.31, "stage": 1.0},
        {"time": "2024-12-31T23:40:00Z", "state": "busy", "pressure": -0.5, "stage": 2.0},
        {"time": "2024-12-31T23:50:00Z", "stage": 2.0},
        {"time": "2025-01-01T00:00:00Z", "state": "idle", "pressure": 5.0, "stage": 1.0},
    ]
    categories = {"state": ["busy", "idle"], "stage": ["1", "2"]}
    values = {
        "pressure": ValueColumn("pressure"),
        **{name: ValueColumn(name, categories=texts) for name, texts in categories.items()},
    }
    times = TimeColumns(["Datum", "Uhrzeit"], "%d.%m.%Y %H.%M.%S")
    trained_on = list(read_recording(path, Columns(values, times, words=NumberWords(decimal_comma=True))).readings())
    decoder = Decoder(InputMapping(topic="sensors/{stream}"), list(values), categories)
    heard = [one for m in subscriber.messages for one in decoder.readings(m.topic, m.payload, {}, 0.0)]
    assert [(one.stream, one.time, dict(one.values)) for one in heard] == [
        (one.stream, one.time, dict(one.values)) for one in trained_on
    ]
    assert heard[1].values == {"pressure": -0.5, "state": 0.0, "stage": 1.0}


def test_simulate_fails_where_the_broker_refuses_readings(
    tmp_path: Path, start_mosquitto: Callable[..., Mosquitto]
) -> None:
    path, rules = tmp_path / "pump.csv", tmp_path / "acl"
    path.write_text(ROWS)
    rules.write_text("topic read #\n")
    address = start_mosquitto(f"allow_anonymous true\nacl_file {rules}").address
    done = CliRunner().invoke(main, ["simulate", str(path), "--to", str(address), "--speed", "max"])
    assert done.exit_code == 1
    assert "to take every reading, found 4 refused and 0 too large" in done.stderr
    assert "broker refuses what we publish: Not authorized" in done.stderr
