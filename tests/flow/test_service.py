"""The service in its own process, with a real broker and an ordinary subscriber."""

from __future__ import annotations

import json
import math
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge_lstm import Bundle, Deduplicator, Predictor, Reading
from edge_lstm.bundle.contract import Decision
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.messages.encoder import decode_prediction, encode_prediction
from edge_lstm.mqtt.embedded_broker import EmbeddedBroker
from tests.deadline import DEADLINE_S, wait_until
from tests.flow.received import without_repeats
from tests.networks import contract_of, random_network
from tests.paths import PUMP

Make = Callable[..., Any]


def readings_of(streams: int, steps: int) -> list[Reading]:
    rng = random.Random(0)
    return [
        Reading(f"tank-{stream}", 1_700_000_000.0 + 60 * step, {"level": round(rng.gauss(1, 2), 3)})
        for step in range(steps)
        for stream in range(streams)
    ]


def undisturbed(bundle: Path, readings: list[Reading]) -> dict[str, list[str]]:
    """What a service that nothing ever happens to publishes, by stream."""
    opened = Bundle.open(bundle)
    published: dict[str, list[str]] = {}
    for prediction in Predictor.of(opened, "numpy").feed(readings):
        published.setdefault(prediction.stream, []).append(encode_prediction(prediction, opened.id))
    return published


def by_stream_without_repeats(messages: list[Any]) -> dict[str, list[str]]:
    """The payloads that a subscriber uses, by stream."""
    payloads = {one: decode_prediction(one) for one in (message.payload.decode() for message in messages)}
    used = set(map(id, without_repeats(list(payloads.values()))))
    published: dict[str, list[str]] = {}
    for payload, prediction in payloads.items():
        if id(prediction) in used:
            published.setdefault(prediction.stream, []).append(payload)
    return published


def test_every_reading_gets_the_prediction_that_replay_gives(
    bundle_path: Path, start_service: Make, subscribe: Make
) -> None:
    readings = readings_of(streams=3, steps=100)
    with EmbeddedBroker() as broker:
        subscriber = subscribe(broker.address_311, "predictions/+")
        service = start_service(bundle_path, broker.address)
        service.wait_connected()
        for reading in readings:
            subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))
        wait_until(lambda: len(subscriber.messages) >= 300, "300 predictions arrive")
        assert service.stop() == 0
        assert by_stream_without_repeats(subscriber.messages) == undisturbed(bundle_path, readings)
        assert len(subscriber.messages) == 300
        subscriber.close()


@pytest.mark.timeout(180)
def test_kills_and_a_broker_restart_change_no_prediction(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    readings = readings_of(streams=5, steps=120)
    rng = random.Random(1)
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address)
    service.wait_connected()
    kills: list[bool] = []  # whether each hit a connected service
    connected = [100 * kill + 70 - rng.randrange(1, 20) for kill in (0, 2, 4, 5)]
    for index, reading in enumerate(readings):
        subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))
        if index in connected:
            service.wait_connected()
        if index % 100 == 70:
            service.kill()
            kills.append(service.was_connected)
            service = start_service(bundle_path, mosquitto.address)
        if index == 300:
            mosquitto.stop()
            mosquitto.start()
            wait_until(subscriber.client.is_connected, "the subscriber is back")
    expected = undisturbed(bundle_path, readings)
    wait_until(
        lambda: by_stream_without_repeats(subscriber.messages) == expected, "every step is predicted, as undisturbed"
    )
    assert len(kills) == 6
    assert sum(kills) >= 4
    assert service.stop() == 0


def test_a_restart_continues_the_state_and_the_step_count(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    readings = readings_of(streams=1, steps=20)
    subscriber = subscribe(mosquitto.address, "predictions/+")
    for part in (readings[:10], readings[10:]):
        service = start_service(bundle_path, mosquitto.address)
        service.wait_connected()
        before = len(subscriber.messages)
        for reading in part:
            subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))
        wait_until(lambda before=before: len(subscriber.messages) >= before + 10, "ten predictions arrive")
        assert service.stop() == 0
    assert [facts["step"] for facts in subscriber.payloads()] == list(range(1, 21))
    assert by_stream_without_repeats(subscriber.messages) == undisturbed(bundle_path, readings)


def test_an_unreadable_payload_is_counted_and_logged_once(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address)
    service.wait_connected()
    bad = [b"21.5", b"\xff\xfe", b'{"level": "warm", "time": 1}', b'{"level": 1}', b"[" * 9000]
    for payload in [*bad, b"", b'{"time": 5}']:  # the last two are not refused but not for this service
        subscriber.publish("sensors/tank-0", payload)
    (reading,) = readings_of(1, 1)
    subscriber.publish("sensors/tank-0", encode_reading(reading))
    wait_until(lambda: len(subscriber.messages) == 1, "the good reading is predicted")
    assert service.stop() == 0
    log = service.log.read_text()
    assert log.count("payload refused") == 1
    assert "refused=5" in log
    assert log.count("message ignored, it has no key of [input]") == 1
    assert "ignored=2" in log
    assert "Traceback" not in log


def test_a_retained_reading_does_not_step_the_stream(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    old, fresh = readings_of(1, 2)
    subscriber = subscribe(mosquitto.address, "predictions/+")
    subscriber.publish("sensors/tank-0", encode_reading(old), retain=True)
    service = start_service(bundle_path, mosquitto.address)
    service.wait_connected()
    subscriber.publish("sensors/tank-0", encode_reading(fresh))
    wait_until(lambda: len(subscriber.messages) >= 1, "the fresh reading is predicted")
    assert service.stop() == 0
    assert [facts["step"] for facts in subscriber.payloads()] == [1]
    assert "retained=1" in service.log.read_text()


def test_a_huge_payload_is_refused_and_the_next_one_is_predicted(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address, mqtt="keepalive_s = 600")
    service.wait_connected()
    (reading,) = readings_of(1, 1)
    for _ in range(20):
        subscriber.publish("sensors/tank-0", encode_reading(reading).ljust(1_000_000))
    subscriber.publish("sensors/tank-0", encode_reading(reading))
    wait_until(lambda: len(subscriber.messages) == 1, "the good reading is predicted")
    assert service.stop() == 0
    log = service.log.read_text()
    assert "expected at most 262144 bytes (max_bytes), found 1000000" in log
    assert "refused=20" in log


def test_mqtt_5_properties_and_retained_predictions_arrive(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    beside = 'expiry_s = 60, content_type = "application/json", user_properties = {site = "north"}'
    service = start_service(bundle_path, mosquitto.address, f"output = {{retain = true, {beside}}}")
    service.wait_connected()
    source = subscribe(mosquitto.address, "predictions/+")
    for reading in readings_of(1, 2):
        source.publish(f"sensors/{reading.stream}", encode_reading(reading))
    wait_until(lambda: len(source.messages) == 2, "two predictions arrive")
    service.kill()
    heard: list[Any] = []
    late = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    late.on_message = lambda client, userdata, message: heard.append(message)
    late.on_connect = lambda client, *_: client.subscribe("predictions/+", 1)
    late.connect(mosquitto.address.host, mosquitto.address.port)
    late.loop_start()
    try:
        wait_until(lambda: len(heard) == 1, "the last prediction arrives")
    finally:
        late.disconnect()
        late.loop_stop()
    predicted = heard[0].properties
    assert heard[0].retain
    assert json.loads(heard[0].payload)["step"] == 2
    assert 0 < predicted.MessageExpiryInterval <= 60
    assert (predicted.ContentType, predicted.UserProperty) == ("application/json", [("site", "north")])


def test_a_preset_reads_its_device_and_ignores_other_messages(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    mapping = '[input]\npreset = "tasmota"\ntimezone = "Europe/Berlin"\nvalues = { level = "SR04.Distance" }'
    service = start_service(bundle_path, mosquitto.address, mapping)
    service.wait_connected()
    subscriber.publish("tele/cistern/LWT", "Online", retain=True)
    subscriber.publish("tele/cistern/STATE", '{"Time":"2024-07-01T14:00:00","Uptime":"0T00:05:00"}')
    subscriber.publish("tele/cistern/SENSOR", '{"Time":"2024-07-01T14:00:00","SR04":{"Distance":"1.25"}}')
    subscriber.publish("tele/cistern/SENSOR", '{"Time":"2024-07-01T14:01:00","SR04":{"Distance":nan}}')
    subscriber.publish("tele/cistern/SENSOR", '{"Time":"2024-07-01T14:02:00","SR04":{"Distance":1.5}}')
    wait_until(lambda: len(subscriber.messages) >= 2, "two predictions arrive")
    assert service.stop() == 0
    predicted = [(facts["stream"], facts["time"], facts["step"]) for facts in subscriber.payloads()]
    assert predicted == [("cistern", "2024-07-01T12:00:00Z", 1), ("cistern", "2024-07-01T12:02:00Z", 2)]
    assert "refused=1" in service.log.read_text()


def test_named_values_with_units_become_one_step_and_an_uptime_none(
    mosquitto: Any, start_service: Make, subscribe: Make, tmp_path: Path
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    bundle = Path(shutil.copy(PUMP, tmp_path))
    mapping = '[input]\npreset = "kepware"\n[input.values]\npressure = "PT"\nflow = "FT"'
    service = start_service(bundle, mosquitto.address, mapping)
    service.wait_connected()
    for milliseconds in (90_000, 1_719_835_200_000, 1_719_835_260_000):
        tags = [{"id": f"L1.P1.{tag}", "v": value} for tag, value in (("PT", "4.1 bar"), ("FT", "12 m\u00b3/h"))]
        payload = json.dumps({"values": [{**tag, "q": True, "t": milliseconds} for tag in tags]})
        subscriber.publish("iotgateway", payload + "\0")
    wait_until(lambda: len(subscriber.messages) >= 2, "two predictions arrive")
    assert service.stop() == 0
    predicted = [(facts["stream"], facts["time"], facts["warm_steps"]) for facts in subscriber.payloads()]
    assert predicted == [("L1.P1", "2024-07-01T12:00:00Z", 1), ("L1.P1", "2024-07-01T12:01:00Z", 2)]
    assert 'set time_from = "arrival" and sequence = "t"' in service.log.read_text()


def test_each_reading_of_one_message_without_times_is_a_step(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address, '[input]\ntime_from = "arrival"')
    service.wait_connected()
    subscriber.publish("sensors/tank", '[{"level": 1.0}, {"level": 1.5}, {"level": 2.0}]')
    subscriber.publish("sensors/tank", '{"level": 2.5}')
    wait_until(lambda: any(one["step"] == 4 for one in subscriber.payloads()), "the fourth prediction arrives")
    assert service.stop() == 0
    assert [facts["step"] for facts in subscriber.payloads()] == [1, 2, 3, 4]


def test_the_service_waits_for_its_broker_and_leaves_a_last_will(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    mosquitto.stop()
    service = start_service(bundle_path, mosquitto.address)
    wait_until(lambda: "broker unreachable" in service.log.read_text(), "the log names the missing broker")
    mosquitto.start()
    service.wait_connected()
    status = subscribe(mosquitto.address, "edge-lstm/edge-lstm-test/status")
    wait_until(lambda: [m.payload for m in status.messages] == [b"online"], "the status is online")
    service.kill()
    wait_until(lambda: [m.payload for m in status.messages] == [b"online", b"offline"], "the last will is heard")


def test_sigterm_ends_the_service_while_it_waits(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address, mqtt="keepalive_s = 600")
    service.wait_connected()
    (reading,) = readings_of(1, 1)
    subscriber.publish("sensors/tank-0", encode_reading(reading))
    wait_until(lambda: len(subscriber.messages) == 1, "a prediction arrives")
    assert service.stop() == 0
    assert "stopped samples=1" in service.log.read_text()


def test_sighup_reloads_the_config_and_refuses_a_bad_one(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    readings = readings_of(streams=1, steps=6)
    subscriber = subscribe(mosquitto.address, "+/tank-0")
    service = start_service(bundle_path, mosquitto.address)
    service.wait_connected()
    config = bundle_path.parent / "service.toml"
    whole = config.read_text()

    def publish(some: list[Reading], count: int) -> None:
        for reading in some:
            subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))
        wait_until(lambda: len(predicted()) == count, f"{count} predictions arrive")

    def predicted() -> list[tuple[str, int]]:
        heard = [message for message in subscriber.messages if not message.topic.startswith("sensors")]
        return [(message.topic, json.loads(message.payload)["step"]) for message in heard]

    publish(readings[:2], 2)
    config.write_text(whole + "[output]\ntopic = 'forecasts/{stream}'\n")
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: service.log.read_text().count("connected") == 2, "the service is back")
    publish(readings[2:4], 4)
    config.write_text("bundel = 1")
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: service.log.read_text().count("connected") == 3, "the service is back")
    publish(readings[4:], 6)
    topics = ["predictions/tank-0"] * 2 + ["forecasts/tank-0"] * 4
    assert predicted() == list(zip(topics, range(1, 7), strict=True))
    assert "reload refused, going on as before" in service.log.read_text()
    assert service.stop() == 0


def test_shuffled_repeated_readings_and_kills_end_as_ordered_ones(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    rng = random.Random(2)
    readings = readings_of(streams=4, steps=100)
    place = [index + rng.uniform(0, 20) for index in range(len(readings))]
    shuffled = [readings[index] for index in sorted(range(len(readings)), key=place.__getitem__)]
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address)
    service.wait_connected()
    for index, reading in enumerate(shuffled):
        subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))
        if index % 7 == 0:
            again = shuffled[max(0, index - rng.randrange(10))]
            subscriber.publish(f"sensors/{again.stream}", encode_reading(again))
        if index % 90 == 70:
            service.wait_connected()
        if index % 90 == 80:
            service.kill()
            service = start_service(bundle_path, mosquitto.address)

    def latest() -> dict[str, list[str]]:
        deduplicator = Deduplicator()
        used = [facts for facts in subscriber.payloads() if deduplicator.is_new(facts)]
        known = {(facts["stream"], facts["time"]): facts for facts in used}  # the last one is the highest revision
        published: dict[str, list[str]] = {}
        for (stream, _), facts in sorted(known.items()):
            del facts["revision"]
            published.setdefault(stream, []).append(json.dumps(facts, separators=(",", ":")))
        return published

    expected = {
        stream: [one.replace('"revision":0,', "") for one in payloads]
        for stream, payloads in undisturbed(bundle_path, readings).items()
    }
    wait_until(lambda: latest() == expected, "the last revisions are those of the ordered readings")
    assert service.stop() == 0
    assert "late=0" in service.log.read_text()


def test_a_full_disk_stops_acknowledging_and_loses_nothing(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make, small_disk: Path
) -> None:
    readings = readings_of(streams=3, steps=60)
    subscriber = subscribe(mosquitto.address, "predictions/+")
    watcher = subscribe(mosquitto.address, "edge-lstm/+/errors")
    service = start_service(bundle_path, mosquitto.address, extra=f'state = "{small_disk}/state.db"')
    service.wait_connected()
    for reading in readings[:30]:
        subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))
    wait_until(lambda: len(subscriber.messages) == 30, "30 predictions arrive")
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    for reading in readings[30:]:
        subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))
    wait_until(lambda: "commit refused" in service.log.read_text(), "the log says that the disk refuses")
    assert len(subscriber.messages) < 180
    wait_until(lambda: watcher.messages, "watchers of the broker hear of it while it lasts")
    assert "expected to commit states to" in watcher.payloads()[0]["error"]
    (small_disk / "ballast").unlink()
    wait_until(lambda: len(subscriber.messages) >= 180, "every reading is predicted")
    assert by_stream_without_repeats(subscriber.messages) == undisturbed(bundle_path, readings)
    assert "commit taken, going on" in service.log.read_text()
    assert service.stop() == 0


def test_status_shows_the_stats_and_the_connection(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address, extra="stats_interval_s = 0.2")
    service.wait_connected()
    for reading in readings_of(2, 5):
        subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))
    command = [sys.executable, "-m", "edge_lstm", "status", str(bundle_path.parent / "service.toml")]

    def facts() -> dict[str, Any]:
        return dict(json.loads(subprocess.run([*command, "--json"], capture_output=True, check=True).stdout))

    wait_until(lambda: facts().get("samples") == 10, "the stats count ten samples")
    told = facts()
    assert (told["status"], told["streams"], told["predictions"], told["late"]) == ("online", 2, 10, 0)
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.startswith("status    online\nreadings  10 readings, 10 predictions in ")
    assert "\nqueue     0 readings waiting, 0 predictions unconfirmed, 0 of refused topics\nlag       " in shown
    assert "\nlimits    0 too large for the broker, 0 of refused topics dropped\n" in shown
    assert service.stop() == 0
    assert facts()["status"] == "offline"


def test_streams_beyond_memory_are_evicted_and_come_back_exactly(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    readings = readings_of(streams=40, steps=6)
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address, extra="max_streams = 10")
    service.wait_connected()
    for reading in readings:
        subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))
    expected = undisturbed(bundle_path, readings)
    wait_until(lambda: by_stream_without_repeats(subscriber.messages) == expected, "every step is as undisturbed")
    assert service.stop() == 0


def test_the_kept_history_replays_to_the_published_predictions(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    readings = readings_of(streams=2, steps=30)
    readings[20], readings[24] = readings[24], readings[20]  # one comes late
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address)
    service.wait_connected()

    def predicted() -> set[tuple[str, float]]:
        found = [decode_prediction(message.payload.decode()) for message in list(subscriber.messages)]
        return {(one.stream, one.time) for one in found}

    for number, reading in enumerate(readings):
        subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))
        if 20 <= number <= 24:  # alone in their batches: in one batch, they would be put in order
            wait_until(lambda one=reading: (one.stream, one.time) in predicted(), "its prediction arrives")
    wait_until(lambda: len(subscriber.messages) == 63, "every prediction and three corrections arrive")
    assert service.stop() == 0
    kept = bundle_path.parent / "state.db"
    command = [sys.executable, "-m", "edge_lstm", "replay", str(bundle_path), "--history", str(kept)]
    replayed = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert sorted(replayed) == sorted(message.payload.decode() for message in subscriber.messages)
    stopped = subprocess.run([*command, "--at", "1700000540"], capture_output=True, text=True, check=True).stdout
    present = json.loads(stopped)["tank-0"]
    assert (present["step"], present["time"]) == (10, "2023-11-14T22:22:20Z")
    assert len(present["states"]["hidden_state_0"]) == 8


def test_two_services_cannot_share_a_state(bundle_path: Path, mosquitto: Any, start_service: Make) -> None:
    first = start_service(bundle_path, mosquitto.address)
    first.wait_connected()
    second = start_service(bundle_path, mosquitto.address)
    assert second.process.wait(DEADLINE_S) == 1
    assert "end the other service that uses it" in second.log.read_text()


def test_publish_when_alarm_publishes_only_changed_labels(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    network = random_network()
    decision = {"task": "classify", "targets": ["low", "high"], "horizons": [0], "decision": Decision("level", 3)}
    bundle = make_bundle(tmp_path / "tank.elstm", network, contract_of(network, **decision))
    readings = [
        Reading("tank-0", 1_700_000_000.0 + 60 * index, {"level": 30 * math.sin(index / 9)}) for index in range(200)
    ]
    expected = [one for one in Predictor.of(bundle, "numpy").feed(readings) if one.turned]
    assert 2 < len(expected) < 60
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(tmp_path / "tank.elstm", mosquitto.address, '[output]\npublish_when = "alarm"')
    service.wait_connected()
    for one in readings:
        subscriber.publish("sensors/tank-0", encode_reading(one))
    wait_until(lambda: len(subscriber.messages) >= len(expected), "each label that turned")
    assert service.stop() == 0
    predicted = [(one["label"], one["step"]) for one in subscriber.payloads()]
    assert predicted == [(one.label, one.step) for one in expected]


def test_publish_when_alarm_is_refused_for_a_bundle_without_alarms(
    bundle_path: Path, mosquitto: Any, start_service: Make
) -> None:
    service = start_service(bundle_path, mosquitto.address, '[output]\npublish_when = "alarm"')
    assert service.process.wait(DEADLINE_S) == 1
    assert 'expected a bundle with labels or alarms for publish_when = "alarm"' in service.log.read_text()
