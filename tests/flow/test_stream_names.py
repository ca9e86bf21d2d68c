"""Invented stream names and lost states against a real service: known devices notice nothing, losses are reported."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_lstm import Bundle, Reading
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.mqtt.embedded_broker import EmbeddedBroker
from edge_lstm.service.database.stored_streams import forget_streams, list_streams
from tests.deadline import wait_until
from tests.flow.killed_service import BEFORE_ACKNOWLEDGE, BEFORE_COMMIT, BEFORE_PUBLISH
from tests.flow.test_exactly_once import CONNECTED, Rig, last_revisions
from tests.hostile.name_flood import flood, small_disk
from tests.runtime.service.test_name_limit import Small

Make = Callable[..., Any]


@pytest.mark.timeout(300)
def test_invented_names_leave_a_known_device_and_a_small_disk_alone(
    bundle_path: Path, tmp_path: Path, mosquitto: Any
) -> None:
    with small_disk(tmp_path / "disk", 12) as disk:
        if disk is None:
            pytest.skip("a small file system cannot be mounted here (needs root)")
        found = flood(bundle_path, mosquitto.address, disk, names=6000, honest_every=100)
    assert found.alive, found.log[-3000:]
    assert found.equal
    assert found.found == 20 + 2 * 60
    assert found.memory_mb <= 40
    assert found.log.count("stream names") == 1  # told once
    assert "since the disk has little space left" in found.log
    assert len(found.log.splitlines()) <= 8


@pytest.mark.timeout(300)
def test_kills_change_no_prediction_while_names_are_forgotten(
    bundle_path: Path, tmp_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    rng = random.Random(5)
    counts = dict.fromkeys([f"pump-{number}" for number in range(20)], 0)
    readings = []
    for number in range(2000):
        name = rng.choice(list(counts)[:20]) if rng.random() < 0.5 else f"x{rng.randrange(400)}"
        at = counts[name] = counts.get(name, 0) + 1
        readings.append(Reading(name, 1.7e9 + 60 * at, {"level": round(math.sin(number), 4)}))
    folder = tmp_path / "undisturbed"
    folder.mkdir()
    whole = Small(Bundle.open(bundle_path), folder, most=40)
    expected = last_revisions(whole.feed(readings))
    assert whole.names.forgotten > 300
    kills = {CONNECTED: 1, BEFORE_COMMIT: 1, BEFORE_PUBLISH: 1, BEFORE_ACKNOWLEDGE: 2}
    rig = Rig(bundle_path, mosquitto, start_service, subscribe, kills, "max_stream_names = 40\nhistory = 100000")
    rig.publish([(f"sensors/{one.stream}", encode_reading(one)) for one in readings], restarts=0)
    rig.wait_for(expected, last_revisions, "the predictions equal those of an undisturbed run")
    assert rig.hits == kills
    rig.close()
    kept = list_streams(tmp_path / "state.db")
    assert {one.name for one in kept} == whole.stored()


@pytest.fixture(params=["embedded", "mosquitto"])
def broker(request: pytest.FixtureRequest) -> Any:
    if request.param == "mosquitto":
        address = request.getfixturevalue("mosquitto").address
        yield address, address
        return
    with EmbeddedBroker() as embedded:
        yield embedded.address, embedded.address_311


class Plant:
    """A service, a device, and whoever listens to predictions and errors."""

    def __init__(self, bundle: Path, broker: Any, start_service: Make, subscribe: Make) -> None:
        self.state = bundle.parent / "state.db"
        self._start = lambda: start_service(bundle, broker[0], "stats_interval_s = 0.1")
        self.predictions = subscribe(broker[1], "predictions/+")
        self._own = subscribe(broker[1], "edge-lstm/+/+")
        self.sent = 0

    def start(self) -> Any:
        service = self._start()
        service.wait_connected()
        return service

    def send(self, count: int) -> None:
        for _ in range(count):
            one = Reading("tank-1", 1.7e9 + 60 * self.sent, {"level": 1.0})
            self.predictions.publish("sensors/tank-1", encode_reading(one))
            self.sent += 1
        wait_until(lambda: len(self.predictions.messages) >= self.sent, "the predictions arrive")

    def published(self, name: str) -> list[dict[str, Any]]:
        """What the service published of itself: stats or errors."""
        return [json.loads(one.payload) for one in list(self._own.messages) if one.topic.endswith(f"/{name}")]

    def said(self, text: str) -> None:
        wait_until(lambda: any(text in one["error"] for one in self.published("errors")), f"an error says: {text}")


def put_back(state: Path, copy: Path) -> None:
    for ending in ("-wal", "-shm", "-journal"):
        state.with_name(state.name + ending).unlink(missing_ok=True)
    shutil.copy(copy, state)


@pytest.mark.timeout(120)
def test_an_older_copy_of_the_database_is_reported(
    bundle_path: Path, broker: Any, start_service: Make, subscribe: Make, tmp_path: Path
) -> None:
    plant = Plant(bundle_path, broker, start_service, subscribe)
    service = plant.start()
    plant.send(3)
    assert service.stop() == 0
    shutil.copy(plant.state, tmp_path / "copy.db")
    service = plant.start()
    plant.send(4)
    assert service.stop() == 0
    put_back(plant.state, tmp_path / "copy.db")
    service = plant.start()
    plant.said("the state database was rolled back")
    wait_until(lambda: plant.published("stats")[-1]["rolled_back"] > 0, "the statistics say so")
    assert service.stop() == 0
    assert "ERROR the state database was rolled back" in service.log.read_text()
    service = plant.start()  # it is said once
    assert service.stop() == 0
    assert "rolled back" not in service.log.read_text()


@pytest.mark.timeout(120)
def test_a_lost_write_ahead_log_is_reported(
    bundle_path: Path, broker: Any, start_service: Make, subscribe: Make
) -> None:
    plant = Plant(bundle_path, broker, start_service, subscribe)
    service = plant.start()
    plant.send(3)
    assert service.stop() == 0
    wait_until(lambda: bool(plant.published("stats")), "the statistics arrive")
    former = plant.published("stats")[-1]["batch"]
    service = plant.start()
    plant.send(5)
    wait_until(lambda: plant.published("stats")[-1]["batch"] > former, "the statistics have a later batch")
    service.kill()
    os.truncate(plant.state.with_name("state.db-wal"), 0)
    service = plant.start()
    plant.said("the state database was rolled back")
    assert service.stop() == 0


@pytest.mark.timeout(120)
def test_a_lost_database_is_reported(bundle_path: Path, broker: Any, start_service: Make, subscribe: Make) -> None:
    plant = Plant(bundle_path, broker, start_service, subscribe)
    service = plant.start()
    plant.send(2)
    service.kill()
    for path in plant.state.parent.glob("state.db*"):
        path.unlink()
    service = plant.start()
    plant.said("the broker has a session of this client_id, and the state database is new")
    assert service.stop() == 0


@pytest.mark.timeout(120)
def test_an_idle_stream_leaves_a_running_service(bundle_path: Path, start_service: Make, subscribe: Make) -> None:
    with EmbeddedBroker() as embedded:
        predictions = subscribe(embedded.address_311, "predictions/+")
        service = start_service(
            bundle_path, embedded.address, 'forget_after = 0.00003\nclock.trust = "always"\nstats_interval_s = 0.1'
        )
        service.wait_connected()

        def send(stream: str) -> int:
            """One reading; the step of its prediction."""
            before = len(predictions.messages)
            number = sent[stream] = sent.get(stream, -1) + 1
            one = Reading(stream, 1.7e9 + 60 * number, {"level": 1.0})
            predictions.publish(f"sensors/{stream}", encode_reading(one))
            wait_until(lambda: len(predictions.messages) > before, "the prediction arrives")
            return int(predictions.payloads()[-1]["step"])

        sent: dict[str, int] = {}
        assert [send("idle"), send("idle")] == [1, 2]

        def forgotten() -> bool:
            send("busy")
            return "streams without readings forgotten" in service.log.read_text()

        wait_until(forgotten, "the idle stream is forgotten")
        send("busy")
        assert send("busy") == sent["busy"] + 1  # it went on
        assert send("idle") == 1
        assert service.stop() == 0
        predictions.close()


@pytest.mark.timeout(120)
def test_forgotten_streams_begin_again_and_a_running_service_keeps_its_own(
    bundle_path: Path, broker: Any, start_service: Make, subscribe: Make
) -> None:
    from edge_lstm.foundation.errors import EdgeLstmError

    plant = Plant(bundle_path, broker, start_service, subscribe)
    service = plant.start()
    plant.send(3)
    with pytest.raises(EdgeLstmError, match="locked") as refusal:
        forget_streams(plant.state, ["tank-1"])
    assert "stop the service" in refusal.value.hint
    assert service.stop() == 0
    assert forget_streams(plant.state, ["tank-1"]) == ["tank-1"]
    service = plant.start()
    plant.send(1)
    assert json.loads(plant.predictions.messages[-1].payload)["step"] == 1
    assert service.stop() == 0
    log = service.log.read_text()
    assert "lost or changed" not in log
    assert "rolled back" not in log
