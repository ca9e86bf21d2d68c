"""Connection attempts that are refused, hang or do not last: how they are logged, and that a signal ends them."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.connection import MqttConnection
from tests.deadline import wait_until

Make = Callable[..., Any]


@pytest.fixture
def silent() -> Iterator[Address]:
    """An address that answers no attempt: its queue of connections is full."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = [socket.socket() for _ in range(4)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(listener.getsockname())
    yield Address("127.0.0.1", listener.getsockname()[1])
    for one in (*waiting, listener):
        one.close()


# socket.create_connection closes what it opened for an OSError only; the collector does it here
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_ends_a_hanging_connection_attempt(silent: Address) -> None:
    connection = MqttConnection(silent)
    connection._client.connect_timeout = 300.0  # so that a slow machine cannot take its end for ours
    former = signal.signal(signal.SIGALRM, lambda number, frame: connection.abort_connect())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3, 0.3)  # again, should it have come before the attempt
        begun = time.monotonic()
        assert connection.poll(0.0) == []
        assert time.monotonic() - begun < 100
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
        connection.close(0.2)


def test_a_service_stops_while_its_broker_does_not_answer(
    bundle_path: Any, silent: Address, start_service: Make
) -> None:
    service = start_service(bundle_path, silent)
    wait_until(lambda: "state loaded" in service.log.read_text(), "the service is there")
    assert service.stop() == 0
    assert "stopped samples=0" in service.log.read_text()


def test_repeated_refusals_of_a_broker_are_logged_once(start_mosquitto: Make, caplog: pytest.LogCaptureFixture) -> None:
    connection = MqttConnection(start_mosquitto("allow_anonymous false").address)
    wait_until(lambda: (connection.poll(0.05), connection._client.connection)[1] >= 4, "four attempts are made")
    connection.close(0.2)
    assert caplog.text.count("broker refuses us") == 1


def test_two_clients_with_one_id_are_reported(mosquitto: Any, caplog: pytest.LogCaptureFixture) -> None:
    connections = [MqttConnection(mosquitto.address, "pump", session_expiry_s=60) for _ in range(2)]

    def logged() -> bool:
        for connection in connections:
            connection.poll(0.02)
        return "is there another client with this client_id?" in caplog.text

    wait_until(logged, "one of them says why it is thrown out")
    assert "client_id=pump" in caplog.text
    for connection in connections:
        connection.close(0.2)
