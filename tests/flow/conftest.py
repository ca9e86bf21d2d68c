"""Fixtures of the flow tests: a service in its own process, and an ordinary MQTT subscriber."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge_lstm.mqtt.address import Address
from tests.deadline import DEADLINE_S, wait_until
from tests.flow.certificate_authority import Authority

KILLED_SERVICE = Path(__file__).with_name("killed_service.py")


class Subscriber:
    """An ordinary paho client that keeps the messages it receives."""

    def __init__(self, address: Address, topic: str) -> None:
        self.messages: list[paho.MQTTMessage] = []
        self.ready = False
        # a persistent session, so that the broker keeps what is published while it restarts
        self.client = paho.Client(CallbackAPIVersion.VERSION2, f"subscriber of {topic[:4]}", clean_session=False)
        self.client.on_message = lambda client, userdata, message: self.messages.append(message)
        self.client.on_subscribe = lambda *_: setattr(self, "ready", True)
        self.client.on_connect = lambda client, *_: client.subscribe(topic, 1)
        self.client.connect(address.host, address.port)
        self.client.loop_start()
        wait_until(lambda: self.ready, "the subscriber is subscribed")

    def payloads(self) -> list[dict[str, Any]]:
        return [json.loads(message.payload) for message in list(self.messages)]

    def publish(self, topic: str, payload: bytes | str, retain: bool = False) -> None:
        self.client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(DEADLINE_S)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def subscribe() -> Iterator[Callable[..., Subscriber]]:
    """subscribe(address, topic): a connected subscriber, closed after the test."""
    opened: list[Subscriber] = []

    def make(address: Address, topic: str) -> Subscriber:
        opened.append(Subscriber(address, topic))
        return opened[-1]

    yield make
    for subscriber in opened:
        subscriber.close()


@pytest.fixture(scope="session")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    """The one that everybody trusts here, and a stranger. Skips where openssl is not installed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed (Debian: apt-get install openssl)")
    folder = tmp_path_factory.mktemp("certificates")
    folder.chmod(0o755)
    for parent in (folder.parent, folder.parent.parent):
        parent.chmod(parent.stat().st_mode | 0o055)
    return Authority(folder, "ours"), Authority(folder, "strange")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1.5 MB; skips where none can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "none", disk]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


class ServiceProcess:
    """`edge-lstm run` in its own process, its log in a file."""

    def __init__(
        self, config: Path, environment: dict[str, str] | None = None, killed_at: tuple[str, int] | None = None
    ) -> None:
        """`killed_at`: (a point of killed_service.py, which batch): the process kills itself there."""
        self.log = config.with_suffix(f".{time.monotonic_ns()}.log")
        program = ["-m", "edge_lstm", "run", str(config)]
        if killed_at is not None:
            program = [str(KILLED_SERVICE), str(config), killed_at[0], str(killed_at[1])]
        with self.log.open("wb") as log:
            command = [sys.executable, *program]
            self.process = subprocess.Popen(command, stderr=log, env={**os.environ, **(environment or {})})

    @property
    def was_connected(self) -> bool:
        """Whether it has connected to its broker since it started."""
        return "connected address=" in self.log.read_text()

    @property
    def killed_point(self) -> str | None:
        """The point of killed_service.py at which it killed itself; None: it did not."""
        found = re.search(r"^killed (\S+)$", self.log.read_text(), re.MULTILINE)
        return found[1] if found else None

    def wait_connected(self) -> None:
        def connected() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.was_connected

        wait_until(connected, "the service is connected")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(DEADLINE_S)


def starter(make: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """A function that starts what `make` makes, with its `process`; all are ended when the fixture is."""
    started: list[Any] = []

    def start(*options: object) -> Any:
        started.append(make(*options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[Callable[..., ServiceProcess]]:
    """start_service(bundle, address, extra="", environment=None, killed_at=None, mqtt=""): a started service.

    Its config is service.toml beside the bundle. The fixture does not wait for the connection.
    """
    started: list[ServiceProcess] = []

    def start(
        bundle: Path,
        address: Address,
        extra: str = "",
        environment: dict[str, str] | None = None,
        killed_at: tuple[str, int] | None = None,
        mqtt: str = "",
    ) -> ServiceProcess:
        config = bundle.parent / "service.toml"
        config.write_text(
            f'bundle = "{bundle.name}"\nbackend = "numpy"\n{extra}\n'
            f'[mqtt]\nurl = "{address}"\nclient_id = "edge-lstm-test"\n{mqtt}\n'
        )
        started.append(ServiceProcess(config, environment, killed_at))
        return started[-1]

    yield start
    for service in started:
        if service.process.poll() is None:
            service.kill()
