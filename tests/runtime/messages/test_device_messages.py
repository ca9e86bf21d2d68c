"""Messages of devices: each gives its expected readings, is ignored, or is refused with a message."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge_lstm import Reading
from edge_lstm.foundation.times.text import format_time
from edge_lstm.messages.decoder import Decoder, PayloadError
from edge_lstm.messages.formats import payloads as payloads_room
from tests.device_messages import DeviceMessage, decoder, decoders, device_messages

ARRIVAL = 1_720_000_000.0


def outcome(decoder: Decoder, topic: str, payload: bytes, **properties: str) -> list[Reading] | str:
    try:
        return decoder.readings(topic, payload, properties, ARRIVAL) or "ignored"
    except PayloadError as error:
        return f"refused: {error}"


def described(readings: list[Reading] | str) -> Any:
    """Readings as fixtures/messages.jsonl writes them: NaN and the time of arrival are null, defaults are left out."""
    if isinstance(readings, str):
        return readings
    return [
        {
            "stream": reading.stream,
            "time": None if reading.time == ARRIVAL else format_time(reading.time),
            "values": {name: None if math.isnan(value) else value for name, value in reading.values.items()},
            **({"sequence": reading.sequence} if reading.sequence is not None else {}),
            **({"partial": True} if reading.partial else {}),
        }
        for reading in readings
    ]


def assert_as_expected(messages: Sequence[DeviceMessage]) -> None:
    by_name = decoders()
    for message in messages:
        found = described(outcome(by_name[message.mapping], message.topic, message.payload, **message.properties))
        if isinstance(message.expect, str) and message.expect.startswith("refused"):
            assert isinstance(found, str), message
            assert message.expect.removeprefix("refused: ") in found, message
        else:
            assert found == message.expect, message


def test_every_device_message_gives_its_expected_readings() -> None:
    messages = device_messages()
    assert len(messages) >= 40
    assert_as_expected(messages)
    assert_as_expected(messages[::-1])  # in any order


def test_every_device_message_gives_the_same_without_orjson(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads_room, "_fast_loads", None)
    assert_as_expected(device_messages())


@dataclass(frozen=True)
class Family:
    """Lines of the shared messages that one mapping reads, and where plain Python finds each feature in them."""

    mapping: dict[str, Any]
    keys: dict[str, tuple[str | int, ...]]  # by feature; () is the payload itself
    readings: Sequence[int] = ()
    missing: Sequence[int] = ()
    ignored: Sequence[int] = ()
    refused: Sequence[int] = ()


def tasmota(topic: str, keys: dict[str, tuple[str | int, ...]], **lines: Sequence[int]) -> Family:
    values = {feature: ".".join(map(str, path)) for feature, path in keys.items()}
    return Family({"preset": "tasmota", "topic": topic, "values": values}, keys, **lines)


def climate(*sensor: str) -> dict[str, tuple[str | int, ...]]:
    return {"temperature": (*sensor, "Temperature"), "humidity": (*sensor, "Humidity")}


FLEET = {name: ("data", name) for name in ("co", "humidity", "light", "lpg", "motion", "smoke", "temperature")}
FLEET_MAPPING = {"topic": "sensor/output", "stream": "device_id", "values": {name: f"data.{name}" for name in FLEET}}
ONE_METER = {"total": ("1-0:1.8.0",), "power": ("1-0:16.7.0",)}
TARIFFS: dict[str, tuple[str | int, ...]] = {"day": ("ENERGY", "TotalTariff", 0), "night": ("ENERGY", "TotalTariff", 1)}
FAMILIES = [
    tasmota("{stream}/SENSOR", climate("DHT11"), readings=[1, 3, 4], ignored=[2]),
    tasmota("tele/{stream}/TELEMETRY", climate("DHT"), readings=[5]),
    tasmota("tele/{stream}/SENSOR", climate("AM2301"), missing=[6], refused=[7, 8], ignored=[11]),
    tasmota("home/tele/tasmota/{stream}/SENSOR", {"power": ("ENERGY", "Power")}, readings=[9]),
    tasmota("tele/{stream}/SENSOR", {"temperature": ("DS18B20", "Temperature")}, readings=[10]),
    tasmota("tele/{stream}/SENSOR", {"temperature": ("DS18B20", "Id")}, refused=[10]),
    tasmota("stat/{stream}/STATUS10", climate("StatusSNS", "AM2301"), readings=[12]),
    tasmota("{stream}/tele/SENSOR", {"wind": ("TX23", "Speed", "Act")}, readings=[13]),
    tasmota("{stream}/tele/SENSOR", {"direction": ("TX23", "Dir", "Card")}, refused=[13]),
    tasmota("{stream}/tele/SENSOR", TARIFFS, readings=[14]),
    tasmota("{stream}/tele/SENSOR", {"total": ("ENERGY", "Total", "Phase1")}, readings=[15]),
    Family({"preset": "esphome"}, {"bedroom_gas": ()}, missing=[16], ignored=[17, 18]),
    Family(
        {"preset": "zigbee2mqtt"},
        {"temperature": ("temperature",), "humidity": ("humidity",), "pressure": ("pressure",)},
        readings=[19, 23, 24],
        ignored=[20, 21, 22, 25],
    ),
    Family({"preset": "zigbee2mqtt"}, {"linkquality": ("linkquality",)}, readings=[25]),
    Family(
        {"preset": "zigbee2mqtt", "topic": "zigbee/{stream}"},
        {"battery": ("battery",), "water_leak": ("water_leak",)},
        readings=[26],
    ),
    Family(FLEET_MAPPING, dict(FLEET), readings=[27, 28, 29]),
    Family(
        {"preset": "shelly"},
        {"temperature": ("params", "temperature:0", "tC"), "humidity": ("params", "humidity:0", "rh")},
        readings=[30],
    ),
    Family({"preset": "shelly-gen1"}, {"temperature": ()}, readings=[31], missing=[32]),
    Family(
        {"topic": "home/{stream}/{value}", "format": "text", "time_from": "arrival"},
        {"temperature": ()},
        readings=[40, 41],
        missing=[34, 35, 39],
        ignored=[36],
        refused=[37, 38, 42],
    ),
    Family(
        {"topic": "home/{stream}/{value}", "format": "text", "time_from": "arrival", "ignore": [85, -127]},
        {"temperature": ()},
        missing=[40, 41],
    ),
    Family(
        {
            "topic": "home/{stream}/{value}",
            "format": "text",
            "time_from": "arrival",
            "values": {"temperature": {"least": -55, "most": 80}},
        },
        {"temperature": ()},
        missing=[40, 41],
    ),
]


def found_by_python(payload: str, keys: dict[str, tuple[str | int, ...]]) -> dict[str, float]:
    values = {}
    for feature, path in keys.items():
        with contextlib.suppress(KeyError):  # an absent key is a missing value
            fact = json.loads(payload)
            for one in path:
                fact = fact[one]
            values[feature] = float(fact)
    return values


def test_every_shared_message_meets_its_expectation(data: Path) -> None:
    lines = (data / "mqtt_fixtures/messages.jsonl").read_text(encoding="utf-8").splitlines()
    rows = dict(enumerate(map(json.loads, lines), 1))
    for family in FAMILIES:
        one = decoder(family.mapping, list(family.keys))
        said = {
            number: outcome(one, row["topic"], b"\xff\xfe" if row["payload"] == "ÿþ" else row["payload"].encode())
            for number, row in rows.items()
        }
        for number in family.readings:
            (reading,) = said[number]
            assert isinstance(reading, Reading), (number, reading)
            assert reading.values == found_by_python(rows[number]["payload"], family.keys), number
        for number in family.missing:
            (reading,) = said[number]
            assert isinstance(reading, Reading), (number, reading)
            assert reading.values == {}, number
        assert [number for number in family.ignored if said[number] != "ignored"] == []
        assert [number for number in family.refused if not str(said[number]).startswith("refused: ")] == []
    spoken_of = {line for one in FAMILIES for line in (*one.readings, *one.missing, *one.ignored, *one.refused)}
    assert spoken_of | {33} == set(rows)


def test_the_shared_messages_give_their_streams_and_times(data: Path) -> None:
    lines = (data / "mqtt_fixtures/messages.jsonl").read_text(encoding="utf-8").splitlines()
    rows = dict(enumerate(map(json.loads, lines), 1))
    fleet = decoder(FLEET_MAPPING, list(FLEET))
    for number in (27, 28, 29):
        (reading,) = fleet.readings("sensor/output", rows[number]["payload"].encode(), {}, ARRIVAL)
        facts = json.loads(rows[number]["payload"])
        assert (reading.stream, format_time(reading.time)[:19]) == (
            facts["device_id"],
            facts["time"][:19].replace(" ", "T"),
        )
    mapping = {"topic": "smartmeter/mains/sensor", "readings": "sensors.sensor", "stream": "id", "time_from": "arrival"}
    values = {feature: f"'{path[0]}'" for feature, path in ONE_METER.items()}
    meters = decoder({**mapping, "values": values}, list(values))
    readings = meters.readings("smartmeter/mains/sensor", rows[33]["payload"].encode(), {}, ARRIVAL)
    facts = json.loads(rows[33]["payload"])["sensors"]["sensor"]
    assert [(one.stream, one.values) for one in readings] == [
        (meter["id"], found_by_python(json.dumps(meter), dict(ONE_METER))) for meter in facts
    ]
