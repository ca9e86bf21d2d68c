"""`discover` at a real mosquitto: devices, units and mappings; what it writes is a config for record and run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.messages.decoder import Decoder
from edge_lstm.service.config import read_service_config
from tests.deadline import wait_until
from tests.flow.conftest import starter

NOW = 1_790_000_000.0


class DiscoverProcess:
    """`edge-lstm discover` that listens until it is told to end."""

    def __init__(self, folder: Path, *options: object) -> None:
        self.log = folder / "discover.log"
        command = [sys.executable, "-m", "edge_lstm", "discover", *map(str, options)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        wait_until(lambda: b"listening" in self.log.read_bytes() or self.process.poll() is not None, "it listens")

    def end(self) -> str:
        """What it printed by its own end."""
        return self.process.communicate(timeout=60)[0]


@pytest.fixture
def discover(tmp_path: Path) -> Iterator[Callable[..., DiscoverProcess]]:
    """discover(*options): it runs and listens; ended after the test."""
    yield from starter(lambda *options: DiscoverProcess(tmp_path, *options))


def publish(client: Any, messages: Sequence[tuple[str, object]]) -> None:
    for topic, facts in messages:
        client.publish(topic, facts if isinstance(facts, str) else json.dumps(facts))


def test_discover_lists_devices_keys_rates_and_units(mosquitto: Any, discover: Any, subscribe: Any) -> None:
    client = subscribe(mosquitto.address, "nothing")
    exposes = [{"property": "temperature", "unit": "°C"}, {"property": "voltage", "unit": "mV"}]
    devices = [{"friendly_name": "attic", "definition": {"exposes": exposes}}, {"friendly_name": "Coordinator"}]
    client.publish("zigbee2mqtt/bridge/devices", json.dumps(devices), retain=True)
    entity = {"state_topic": "plant/pump-1/data", "unit_of_measurement": "bar"}
    announced = json.dumps({**entity, "value_template": "{{ value_json.pressure | float }}"})
    client.publish("homeassistant/sensor/pump_1/config", announced, retain=True)
    process = discover(mosquitto.address, "--for", "3", "--json")
    for step in range(4):
        publish(client, [(f"plant/pump-{n}/data", {"ts": NOW + step, "pressure": 4.5, "ok": True}) for n in (1, 2, 3)])
        publish(
            client, [(f"zigbee2mqtt/{n}", {"temperature": 21, "voltage": 2900}) for n in ("attic", "cellar/old sensor")]
        )
        publish(client, [("zigbee2mqtt/attic/availability", {"state": "online"}), ("edge-lstm/x/stats", {"queue": 3})])
        publish(client, [(f"home/{n}/{key}/state", "20.5") for n in ("hall", "bath") for key in ("temperature", "co2")])
        publish(client, [("tele/plug/SENSOR", {"Time": "2026-11-30T10:00:00", "DHT11": {"Temperature": 20.5}})])
        publish(client, [("lorry", {"device": "truck 7", "speed_kmh": 60, "note": "none"})])
    found = {json.dumps(group["input"]): group for group in json.loads(process.end())}
    plant = found['{"topic": "plant/{stream}/data", "time": "ts"}']
    assert plant["devices"] == ["pump-1", "pump-2", "pump-3"]
    assert (plant["topics"], plant["messages"]) == (3, 12)
    assert plant["keys"] == [
        {"name": "pressure", "unit": "bar", "example": 4.5, "devices": 3},
        {"name": "ok", "unit": "", "example": 1.0, "devices": 3},
    ]
    assert 0 < plant["interval_s"] < 3
    attic = found['{"preset": "zigbee2mqtt"}']
    assert attic["devices"] == ["attic", "cellar.old sensor"]
    assert [(key["name"], key["unit"]) for key in attic["keys"]] == [("temperature", "°C"), ("voltage", "mV")]
    home = found['{"topic": "home/{stream}/{value}/state", "format": "text", "time_from": "arrival"}']
    assert ([key["name"] for key in home["keys"]], home["devices"]) == (["co2", "temperature"], ["bath", "hall"])
    assert [key["name"] for key in found['{"preset": "tasmota"}']["keys"]] == ["DHT11.Temperature"]
    lorry = found['{"topic": "lorry", "stream": "device", "time_from": "arrival"}']
    assert (lorry["devices"], [key["name"] for key in lorry["keys"]]) == (["truck 7"], ["speed_kmh"])
    assert len(found) == 5


def test_the_written_config_reads_the_messages(mosquitto: Any, discover: Any, subscribe: Any, tmp_path: Path) -> None:
    output = tmp_path / "service.toml"
    client = subscribe(mosquitto.address, "nothing")
    process = discover(mosquitto.address, "--for", "2", "--topic", "tele/#", "-o", output)
    message = {"Time": "2026-11-30T10:00:00", "AM2301": {"Temperature": 20.5, "Humidity": 55}, "POWER": {"Total": 7}}
    publish(client, [("tele/plug/SENSOR", message), ("other/plug", {"x": 1})])
    said = process.end()
    assert "1 device in 1 group; 1 message on 1 topic in 2 s" in said
    assert f"next: edge-lstm record --config {output}" in process.log.read_text()
    config = read_service_config(output)
    decoder = Decoder(config.input, list(config.input.values))
    (reading,) = decoder.readings("tele/plug/SENSOR", json.dumps(message).encode(), {}, 0.0)
    assert (reading.stream, reading.values) == ("plug", {"Temperature": 20.5, "Humidity": 55.0, "Total": 7.0})


def test_a_wrong_request_is_refused_with_a_message(mosquitto: Any, discover: Any, tmp_path: Path) -> None:
    existing = tmp_path / "there.toml"
    existing.write_text("")
    for options, code, expected in (
        ([], 2, "expected the broker's address, like mqtt://localhost:1883, or --config"),
        ([mosquitto.address, "--config", "x"], 2, "a config has both"),
        ([mosquitto.address, "-o", existing], 1, f"expected a new file, found {existing}"),
        (
            [mosquitto.address, "--for", "0.3", "-o", tmp_path / "new.toml"],
            1,
            "expected messages with numbers, found none",
        ),
    ):
        process = discover(*options)
        process.end()
        assert process.process.returncode == code
        assert expected in process.log.read_text()
