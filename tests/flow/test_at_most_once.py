"""At-most-once: what a kill loses, what a checkpoint and a stop keep, and what overload does."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.messages.decoder import encode_reading
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.streaming.reading import Reading
from tests.deadline import wait_until
from tests.flow.proxy import Proxy

Make = Callable[..., Any]


def readings_of(first: int, count: int, streams: int = 1) -> list[tuple[str, bytes]]:
    readings = (
        Reading(f"tank-{index % streams}", 1_700_000_000.0 + 60 * (index // streams), {"level": index % 7 / 2})
        for index in range(first, first + count)
    )
    return [(f"sensors/{one.stream}", encode_reading(one).encode()) for one in readings]


class Conversation:
    """Readings in at QoS 0, and what the service says of them and of itself."""

    def __init__(self, address: Any) -> None:
        self.steps: list[int] = []
        self.stats: dict[str, Any] = {}
        self.connection = MqttConnection(address, topics=["predictions/+", "edge-lstm/+/stats"])
        self.connection.open()

    def publish(self, messages: list[tuple[str, bytes]]) -> None:
        """All of them, however slow the broker is: what this side would shed is offered again."""
        while True:
            shed = self.connection.counts["shed"]
            self.connection.publish_many(messages, qos=0)
            if self.connection.counts["shed"] == shed:
                return
            self.receive()

    def receive(self) -> None:
        messages = self.connection.poll(0.01)
        self.connection.acknowledge(messages)
        for message in messages:
            facts = json.loads(message.payload)
            if message.topic.endswith("/stats"):
                self.stats = facts
            else:
                self.steps.append(facts["step"])

    def wait(self, done: Callable[[], bool], what: str) -> None:
        def received() -> bool:
            self.receive()
            return done()

        wait_until(received, what)


@pytest.fixture
def conversation(mosquitto: Any) -> Iterator[Conversation]:
    made = Conversation(mosquitto.address)
    yield made
    made.connection.close()


def test_a_kill_loses_only_the_steps_since_the_last_checkpoint(
    bundle_path: Path, mosquitto: Any, start_service: Make, conversation: Conversation
) -> None:
    def started(checkpoint_s: float) -> Any:
        extra = f'durability = "at-most-once"\ncheckpoint_s = {checkpoint_s}\nstats_interval_s = 0.1'
        service = start_service(bundle_path, mosquitto.address, extra)
        service.wait_connected()
        return service

    def predicted_steps(first: int, count: int) -> list[int]:
        del conversation.steps[:]
        conversation.publish(readings_of(first, count))
        conversation.wait(lambda: len(conversation.steps) == count, f"{count} predictions arrive")
        return conversation.steps

    service = started(checkpoint_s=0.2)
    assert predicted_steps(0, 10) == list(range(1, 11))
    conversation.wait(
        lambda: conversation.stats.get("samples") == 10 and conversation.stats["unsaved"] == 0, "a checkpoint is made"
    )
    service.kill()
    service = started(checkpoint_s=3600)
    assert predicted_steps(10, 5) == list(range(11, 16))
    assert service.stop() == 0
    service = started(checkpoint_s=3600)
    assert predicted_steps(15, 5) == list(range(16, 21))
    service.kill()
    service = started(checkpoint_s=3600)
    assert predicted_steps(20, 1) == [16], "the five steps since the stop are forgotten"
    assert service.stop() == 0


def test_predictions_continue_on_a_full_disk_and_states_follow_later(
    bundle_path: Path, mosquitto: Any, start_service: Make, conversation: Conversation, small_disk: Path
) -> None:
    extra = f'durability = "at-most-once"\ncheckpoint_s = 0.2\nstate = "{small_disk}/state.db"'
    service = start_service(bundle_path, mosquitto.address, extra)
    service.wait_connected()
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    for first in (0, 500):
        conversation.publish(readings_of(first, 500, streams=500))  # each a row, so more than the log has room for
        conversation.wait(lambda count=first + 500: len(conversation.steps) == count, "every reading is predicted")
        wait_until(lambda: "commit refused" in service.log.read_text(), "the disk refuses")
    assert service.log.read_text().count("commit refused") == 1
    (small_disk / "ballast").unlink()
    wait_until(lambda: "commit taken" in service.log.read_text(), "the disk takes the states")
    service.kill()
    service = start_service(bundle_path, mosquitto.address, extra)
    service.wait_connected()
    conversation.publish(readings_of(1000, 1, streams=500))
    conversation.wait(lambda: len(conversation.steps) == 1001, "the next reading is predicted")
    assert conversation.steps[-1] == 3
    assert service.stop() == 0


def test_a_slow_broker_causes_counted_drops_and_flat_memory(
    bundle_path: Path, mosquitto: Any, start_service: Make, conversation: Conversation
) -> None:
    sent = 0

    def flood(count: int) -> None:
        nonlocal sent
        for _ in range(count // 1000):
            conversation.publish(readings_of(sent, 1000, streams=50))
            sent += 1000
            conversation.receive()

    with Proxy(mosquitto.address) as proxy:
        service = start_service(bundle_path, proxy.address, 'durability = "at-most-once"\nstats_interval_s = 0.5')
        service.wait_connected()
        flood(2000)
        conversation.wait(lambda: len(conversation.steps) == 2000, "nothing is shed while the broker takes it")
        proxy.stall()
        while "messages are shed" not in service.log.read_text():
            flood(1000)
        wait_until(lambda: idle(service), "the service has nothing left to do")
        before = rss_kib(service)
        flood(20_000)
        wait_until(lambda: idle(service), "the service has nothing left to do")
        after = rss_kib(service)
        proxy.flow()
        conversation.wait(lambda: conversation.stats.get("samples") == sent, "every reading was stepped")
        shed = conversation.stats["shed"]
        conversation.wait(lambda: len(conversation.steps) == sent - shed, "what was not shed arrives")
        assert shed > 19_000
        assert conversation.stats["predictions"] == sent
        assert after - before < 2000, "KiB, of 3,400 that were shed"
        assert service.stop() == 0
        assert f"shed={shed}" in service.log.read_text()


def idle(service: Any) -> bool:
    """Whether it used no more CPU than waiting takes, over a while, and slept: on a busy machine, work waits too."""

    def state() -> tuple[bool, int]:
        fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0] == "S", int(fields[11]) + int(fields[12])

    found = []
    for _ in range(20):
        found.append(state())
        time.sleep(0.02)
    return found[-1][1] - found[0][1] <= 1 and sum(asleep for asleep, _ in found) > len(found) / 2


def rss_kib(service: Any) -> int:
    (line,) = [
        one for one in Path(f"/proc/{service.process.pid}/status").read_text().splitlines() if one.startswith("VmRSS")
    ]
    return int(line.split()[1])
