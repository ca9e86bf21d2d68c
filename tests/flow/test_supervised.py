"""The service under supervision, without systemd: notifications, watchdog, and how it refuses."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.bundle.archive import GOLDEN, Bundle, write_bundle
from edge_lstm.bundle.network import to_npz
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.mqtt.address import Address
from edge_lstm.streaming.reading import Reading
from tests.deadline import wait_until
from tests.networks import random_network

Make = Callable[..., Any]


class NotifySocket:
    """A notify socket, and all that was heard on it, in order."""

    def __init__(self, path: Path) -> None:
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "3000000"}
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def received(self) -> list[str]:
        while True:
            try:
                self.lines.append(self._socket.recv(4096).decode().split("\nMONOTONIC")[0])
            except BlockingIOError:
                return self.lines

    def notifications(self) -> list[str]:
        """Without the signs of life."""
        return [line for line in self.received() if line != "WATCHDOG=1"]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def notify_socket(tmp_path: Path) -> Iterator[NotifySocket]:
    opened = NotifySocket(tmp_path / "notify")
    yield opened
    opened.close()


def reading(number: int) -> bytes:
    return encode_reading(Reading("tank-0", 1_700_000_000.0 + 60 * number, {"level": 1.0 + number % 5})).encode()


def refused_bundle(path: Path, good: Path) -> None:
    """The good bundle with other weights: whole, and not what its golden vectors say."""
    bundle = Bundle.open(good)
    name = bundle.variant("numpy", "float32").file
    network = random_network()
    other = dataclasses.replace(network, mean=network.mean + 1)
    write_bundle(path, bundle.manifest, {GOLDEN: bundle.content[GOLDEN], name: to_npz(other)})


def test_systemd_is_notified_of_start_connection_reload_and_stop(
    bundle_path: Path, mosquitto: Any, start_service: Make, notify_socket: NotifySocket
) -> None:
    service = start_service(bundle_path, mosquitto.address, environment=notify_socket.environment)
    service.wait_connected()
    connected = f"STATUS=connected to {mosquitto.address}, bundle {Bundle.open(bundle_path).id}"
    connecting = f"STATUS=connecting to {mosquitto.address}"
    wait_until(lambda: connected in notify_socket.received(), "it tells that it is connected")
    assert notify_socket.notifications() == [connecting, "READY=1", connected]
    service.process.send_signal(signal.SIGHUP)
    wait_until(
        lambda: notify_socket.notifications()[-1:] == [connected] and len(notify_socket.notifications()) == 7,
        "it is connected again",
    )
    assert notify_socket.notifications()[3:] == ["RELOADING=1", connecting, "READY=1", connected]
    assert service.stop() == 0
    assert notify_socket.notifications()[7:] == ["STOPPING=1"]


def test_the_service_is_ready_before_its_broker_is_reachable(
    bundle_path: Path, start_service: Make, notify_socket: NotifySocket
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", free.getsockname()[1])
    service = start_service(bundle_path, address, environment=notify_socket.environment)
    wait_until(lambda: "READY=1" in notify_socket.received(), "it is ready")
    wait_until(lambda: notify_socket.received().count("WATCHDOG=1") >= 2, "its loop is alive while it waits")
    assert service.stop() == 0


def test_a_stopped_loop_sends_no_watchdog_message(
    bundle_path: Path, mosquitto: Any, start_service: Make, notify_socket: NotifySocket
) -> None:
    service = start_service(bundle_path, mosquitto.address, environment=notify_socket.environment)
    service.wait_connected()
    wait_until(lambda: notify_socket.received().count("WATCHDOG=1") >= 2, "its loop is alive")
    service.process.send_signal(signal.SIGSTOP)
    _, status = os.waitpid(service.process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    told = notify_socket.received().count("WATCHDOG=1")
    time.sleep(3.0)  # the whole watchdog: what must not come has no event to wait for
    assert notify_socket.received().count("WATCHDOG=1") == told
    service.process.send_signal(signal.SIGCONT)
    wait_until(lambda: notify_socket.received().count("WATCHDOG=1") > told, "it lives again")


def test_a_failed_self_test_is_reported_everywhere(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make, notify_socket: NotifySocket
) -> None:
    bad = bundle_path.parent / "bad.elstm"
    refused_bundle(bad, bundle_path)
    service = start_service(bad, mosquitto.address, environment=notify_socket.environment)
    assert service.process.wait(60) == 65
    error = service.log.read_text()
    assert "expected numpy float32 to give the golden vectors, found relative difference" in error
    assert "first at step 1, over the limit of 1e-05" in error
    assert notify_socket.notifications()[0].startswith(f"STATUS=refused: {bad}: expected numpy float32 to give")
    assert "READY=1" not in notify_socket.notifications()

    watcher = subscribe(mosquitto.address, "edge-lstm/edge-lstm-test/#")
    wait_until(lambda: watcher.messages, "the refusal is there for whoever comes later")
    (message,) = watcher.messages
    assert (message.topic, message.retain) == ("edge-lstm/edge-lstm-test/refusal", True)
    facts = json.loads(message.payload)
    assert (facts["backend"], facts["scheme"], facts["first_step"]) == ("numpy", "float32", 1)
    assert facts["error"] in error

    config = bundle_path.parent / "service.toml"
    status = subprocess.run(
        [sys.executable, "-m", "edge_lstm", "status", str(config)], capture_output=True, text=True, check=True
    ).stdout
    assert status.splitlines() == ["status    never online", f"refusal   {facts['error']}"]

    good = start_service(bundle_path, mosquitto.address)
    good.wait_connected()
    wait_until(lambda: watcher.messages[-1].payload == b"" or len(watcher.messages) > 2, "a good start clears it")
    cleared = [one for one in watcher.messages if one.topic.endswith("/refusal")][-1]
    assert cleared.payload == b""
    assert good.stop() == 0


def test_a_refused_reload_keeps_the_service_and_is_published(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    service = start_service(bundle_path, mosquitto.address)
    service.wait_connected()
    watcher = subscribe(mosquitto.address, "edge-lstm/edge-lstm-test/refusal")
    good = bundle_path.read_bytes()
    refused_bundle(bundle_path, bundle_path)
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: any(one.payload for one in watcher.messages), "the refusal is told")
    assert json.loads(watcher.messages[-1].payload)["first_step"] == 1
    assert "reload refused, going on as before" in service.log.read_text()
    assert service.process.poll() is None
    bundle_path.write_bytes(good)
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: watcher.messages[-1].payload == b"", "a good reload clears it")
    assert service.stop() == 0


def test_commits_respect_their_interval_unless_a_batch_is_full(
    bundle_path: Path, start_mosquitto: Make, start_service: Make, subscribe: Make
) -> None:
    broker = start_mosquitto("allow_anonymous true\nmax_inflight_messages 1000")
    subscriber = subscribe(broker.address, "predictions/+")
    service = start_service(bundle_path, broker.address, "commit_interval_s = 60.0")
    service.wait_connected()
    for number in range(499):
        subscriber.publish("sensors/tank-0", reading(number))
    assert not subscriber.messages
    subscriber.publish("sensors/tank-0", reading(499))
    wait_until(lambda: len(subscriber.messages) == 500, "a whole batch goes at once")
    assert service.stop() == 0
    with contextlib.closing(sqlite3.connect(bundle_path.parent / "state.db")) as database:
        assert database.execute("select count(*), sum(count) from history").fetchone() == (1, 500)

    service = start_service(bundle_path, broker.address, "commit_interval_s = 0.4")
    service.wait_connected()
    begun = time.monotonic()
    for number in range(4):  # each waits for the last one's prediction, so each is a commit
        subscriber.publish("sensors/tank-0", reading(500 + number))
        wait_until(lambda count=501 + number: len(subscriber.messages) == count, "the prediction arrives")
    assert time.monotonic() - begun >= 3 * 0.4
    assert service.stop() == 0
