"""Forecasts in the service: kills, late and repeated messages change no bit, and the history replays without them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_lstm import Bundle, Predictor, Reading
from edge_lstm.bundle.contract import Contract, KnownAhead
from edge_lstm.cli.recordings import replay as replay_command
from edge_lstm.cli.recordings import simulate
from edge_lstm.diagnostics.trial_messages import forecasts
from edge_lstm.foundation.times.text import format_time
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.messages.encoder import decode_prediction
from edge_lstm.recordings.replay import replay
from edge_lstm.service.config import MqttConfig, ServiceConfig
from edge_lstm.service.database.history_reader import read_parts
from edge_lstm.streaming.forecasts import Forecast, ForecastFeatures
from tests.deadline import wait_until
from tests.flow.killed_service import BEFORE_ACKNOWLEDGE, BEFORE_COMMIT, BEFORE_PUBLISH
from tests.flow.test_exactly_once import Rig, last_revisions
from tests.networks import forecast_contract

Make = Callable[..., Any]

START = 1_700_000_000.0
OUTDOOR = KnownAhead("outdoor", "weather/{stream}/forecast", [1, 6])
TARIFF = KnownAhead("tariff", "tariff", [0, 3], between="previous")


def forecast_message(stream: str, first: float, values: Sequence[float]) -> tuple[str, str]:
    """A list of hourly points, as Home Assistant gives them."""
    points = [{"datetime": format_time(first + 3600 * index), "outdoor": v} for index, v in enumerate(values)]
    return f"weather/{stream}/forecast", json.dumps(points)


def expected_readings(contract: Contract, items: Sequence[Any]) -> list[Reading]:
    """The readings of a sequence of (stream or None, quantity, Forecast) and readings, filled in that order."""
    features = ForecastFeatures(contract)
    newest: dict[tuple[str | None, str], Forecast] = {}
    found = []
    for one in items:
        if isinstance(one, Reading):
            own = {name: [forecast] for (stream, name), forecast in newest.items() if stream in (None, one.stream)}
            found.append(features.filled(one, own))
        else:
            newest[one[0], one[1]] = one[2]
    return found


def traffic(steps: int, streams: int) -> tuple[list[Any], list[tuple[str, str]]]:
    """Readings and forecasts in the order of their arrival, and as messages: some come twice, late, or are missing."""
    rng = random.Random(5)
    items: list[Any] = []
    messages: list[tuple[str, str]] = []
    late: Reading | None = None
    for step in range(steps):
        time = START + 60 * step
        for number in range(streams):
            stream = f"tank-{number}"
            if number and rng.random() < 0.1:  # the stream tank-0 has no forecast
                values = [round(rng.gauss(10, 3), 2) for _ in range(6)]
                times = [time + 3600 * index for index in range(6)]
                items.append((stream, "outdoor", Forecast(times, values)))
                messages += [forecast_message(stream, time, values)] * (1 + (rng.random() < 0.2))
            reading = Reading(stream, time, {"level": round(rng.gauss(1, 2), 3)})
            if late is None and rng.random() < 0.05:
                late = reading
                continue
            for one in [reading] if late is None or late.stream != stream else [reading, late]:
                items.append(one)
                messages.append((f"sensors/{one.stream}", encode_reading(one)))
            late = None if late is not None and late.stream == stream else late
        if rng.random() < 0.05:
            values = [round(rng.random(), 2) for _ in range(3)]
            items.append((None, "tariff", Forecast([time + 120 * index for index in range(3)], values)))
            payload = {"time": format_time(time), "values": values, "interval": 120}
            messages.append(("tariff", json.dumps(payload)))
    return items, messages


@pytest.mark.timeout(300)
def test_forecasts_that_come_late_twice_or_never_change_no_bit_under_kills(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    network, contract = forecast_contract(OUTDOOR, TARIFF)
    bundle = tmp_path / "tank.elstm"
    make_bundle(bundle, network, contract)
    items, messages = traffic(steps=100, streams=4)
    kills = {BEFORE_COMMIT: 1, BEFORE_PUBLISH: 1, BEFORE_ACKNOWLEDGE: 2}
    extra = '[forecasts.outdoor]\ntime = "datetime"\n[forecasts.tariff]\ninterval_s = 120'
    rig = Rig(bundle, mosquitto, start_service, subscribe, kills, extra)
    rig.publish(messages, restarts=0)
    readings = expected_readings(contract, items)
    expected = last_revisions(Predictor.of(Bundle.open(bundle), "numpy", max_rewind=8).feed(readings))
    rig.wait_for(expected, last_revisions, "the predictions equal those of an undisturbed run")
    assert rig.hits == kills
    rig.close()
    degraded = {one.stream for one in map(_decoded, rig.subscriber.messages) if "outdoor" in one.degraded}
    assert degraded >= {"tank-0"}  # of which no forecast ever came
    assert any(not one.degraded for one in map(_decoded, rig.subscriber.messages))
    parts = read_parts(tmp_path / "state.db", Bundle.open(bundle).id, None, contract)
    replayed = [
        one
        for part in parts
        for one in replay(Predictor.of(Bundle.open(bundle), "numpy", max_rewind=8), part.readings, part.batches)
    ]
    assert last_revisions(replayed) == expected


def _decoded(message: Any) -> Any:
    return decode_prediction(message.payload.decode())


CONFIG = '[forecasts.outdoor]\ntime = "datetime"\nmost = 50'


@pytest.mark.timeout(120)
def test_predictions_are_degraded_until_a_forecast_comes_and_a_bad_one_is_reported(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    make_bundle(tmp_path / "tank.elstm", *forecast_contract(OUTDOOR))
    everything = subscribe(mosquitto.address, "#")
    service = start_service(tmp_path / "tank.elstm", mosquitto.address, f"stats_interval_s = 0.2\n{CONFIG}")
    service.wait_connected()

    def degraded_at(minute: int) -> Any:
        time = format_time(START + 60 * minute)
        everything.publish("sensors/attic", encode_reading(Reading("attic", START + 60 * minute, {"level": 1.0})))
        wait_until(lambda: time in payloads(everything, "predictions/attic", "time"), "the reading is predicted")
        return payloads(everything, "predictions/attic")[-1].get("degraded")

    assert degraded_at(0) == ["outdoor"]
    everything.publish("weather/attic/forecast", '[{"datetime": "soon", "value": 1}]')
    wait_until(lambda: payloads(everything, "edge-lstm/edge-lstm-test/errors"), "the refusal is reported")
    assert "soon" in payloads(everything, "edge-lstm/edge-lstm-test/errors", "error")[0]
    assert degraded_at(1) == ["outdoor"]
    everything.publish(*forecast_message("attic", START, [1.0, 2.0]))
    assert degraded_at(2) is None
    assert degraded_at(61) == ["outdoor"]  # the forecast has ended
    everything.publish(*forecast_message("attic", START, [1.0, 99.0, 3.0]))  # too large a value is missing
    assert degraded_at(62) == ["outdoor"]
    stats = payloads(everything, "edge-lstm/edge-lstm-test/stats")
    wait_until(lambda: payloads(everything, "edge-lstm/edge-lstm-test/stats", "forecasts")[-1] == 2, "two are counted")
    assert payloads(everything, "edge-lstm/edge-lstm-test/stats", "refused")[-1] == 1
    assert stats[-1]["names_refused"] == 0
    assert service.stop() == 0


def payloads(subscriber: Any, topic: str, key: str | None = None) -> list[Any]:
    """The payloads of a topic, or one key of each."""
    found = [json.loads(one.payload) for one in list(subscriber.messages) if one.topic == topic and one.payload]
    return found if key is None else [one.get(key) for one in found]


@pytest.mark.timeout(120)
def test_a_new_service_begins_with_the_retained_forecast_and_the_doctor_sees_it(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    make_bundle(tmp_path / "tank.elstm", *forecast_contract(OUTDOOR))
    subscriber = subscribe(mosquitto.address, "predictions/+")
    config = ServiceConfig("tank.elstm", MqttConfig(str(mosquitto.address)))
    contract = Bundle.open(tmp_path / "tank.elstm").contract
    (before,) = forecasts(config, tmp_path, contract)
    assert (before.light, "weather/+/forecast" in before.found) == ("amber", True)
    topic, payload = forecast_message("attic", START, [1.0, 2.0])
    subscriber.publish(topic, payload, retain=True)
    (after,) = forecasts(config, tmp_path, contract)
    assert (after.light, after.found) == ("green", "a forecast came on weather/attic/forecast")
    service = start_service(tmp_path / "tank.elstm", mosquitto.address, CONFIG)
    service.wait_connected()
    subscriber.publish("sensors/attic", encode_reading(Reading("attic", START, {"level": 1.0})))
    wait_until(lambda: len(subscriber.messages) == 1, "the reading is predicted")
    assert "degraded" not in subscriber.payloads()[0]
    assert service.stop() == 0


@pytest.mark.timeout(120)
def test_simulated_forecasts_give_what_a_replay_of_their_columns_gives(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    bundle = tmp_path / "tank.elstm"
    make_bundle(bundle, *forecast_contract(OUTDOOR))
    rng = random.Random(2)
    rows = [f"{format_time(START + 60 * row)},{rng.random()},{rng.random()},{rng.random()}" for row in range(40)]
    rows[7] = rows[7].rpartition(",")[0] + ","  # the forecast for six minutes later is missing once
    recording = tmp_path / "attic.csv"
    recording.write_text(
        "time,level,outdoor,outdoor+1min,outdoor+6\n"
        + "\n".join(row.replace(",", f",{rng.random()},", 1) for row in rows)
    )
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle, mosquitto.address)
    service.wait_connected()
    asked = ["--to", str(mosquitto.address), "--speed", "max", "--forecast", "outdoor=weather/{stream}/forecast"]
    assert CliRunner().invoke(simulate, [str(recording), *asked]).exit_code == 0
    wait_until(lambda: len(subscriber.messages) == 40, "every row is predicted")
    assert service.stop() == 0
    replayed = CliRunner().invoke(replay_command, [str(bundle), str(recording), "--json"])
    expected = [decode_prediction(line) for line in replayed.stdout.splitlines() if line.startswith("{")]
    assert list(map(_decoded, subscriber.messages)) == expected
    assert [one.step for one in expected if one.degraded] == [8]


@pytest.mark.timeout(120)
def test_a_recording_has_the_forecasts_that_were_known_at_each_row(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, subscribe: Make
) -> None:
    make_bundle(tmp_path / "tank.elstm", *forecast_contract(OUTDOOR))
    config = tmp_path / "service.toml"
    config.write_text(f'bundle = "tank.elstm"\n[mqtt]\nurl = "{mosquitto.address}"\n{CONFIG}\n')
    output = tmp_path / "out.csv"
    command = [sys.executable, "-m", "edge_lstm", "record", "--config", str(config), "-o", str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as recorder:
        assert recorder.stderr is not None
        assert any("recording from" in line for line in iter(recorder.stderr.readline, ""))
        device = subscribe(mosquitto.address, "nothing")
        device.publish("sensors/attic", encode_reading(Reading("attic", START, {"level": 1.5})))
        device.publish(*forecast_message("attic", START, [1.0, 41.0]))
        device.publish("sensors/attic", encode_reading(Reading("attic", START + 60, {"level": 2.5})))
        device.publish("weather/attic/forecast", "[]")
        wait_until(lambda: output.exists() and len(output.read_text().splitlines()) == 3, "two rows are written")
        recorder.terminate()
        assert recorder.stdout is not None
        assert recorder.stdout.read() == f"2 readings of 1 stream in {output} (1 refused)\n"
    assert output.read_text().splitlines() == [
        "time,stream,level,outdoor+1,outdoor+6",
        f"{format_time(START)},attic,1.5,,",
        f"{format_time(START + 60)},attic,2.5,{1 + 40 * 120 / 3600!r},{1 + 40 * 420 / 3600!r}",
    ]
