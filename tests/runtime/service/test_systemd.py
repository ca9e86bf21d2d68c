"""Notifications to systemd over a real socket."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_lstm.service.systemd import SystemdNotifier, is_running


@pytest.fixture
def notify_socket(tmp_path: Path) -> Iterator[socket.socket]:
    """A datagram socket where systemd's would be."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(str(tmp_path / "notify"))
        there.setblocking(False)
        yield there


def received(notify_socket: socket.socket) -> list[str]:
    lines = []
    while True:
        try:
            lines.append(notify_socket.recv(4096).decode())
        except BlockingIOError:
            return lines


def test_each_notification_is_sent_once_in_the_systemd_format(notify_socket: socket.socket) -> None:
    manager = SystemdNotifier({"NOTIFY_SOCKET": notify_socket.getsockname()})
    manager.status("connecting to\nmqtt://b")
    manager.status("connecting to\nmqtt://b")
    manager.ready()
    manager.stopping()
    assert received(notify_socket) == ["STATUS=connecting to mqtt://b", "READY=1", "STOPPING=1"]
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    manager.reloading()
    (line,) = received(notify_socket)
    found = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", line)
    assert found
    assert before <= int(found[1]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_an_abstract_notify_socket_works() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(f"\0edge-lstm-test-{os.getpid()}")
        SystemdNotifier({"NOTIFY_SOCKET": f"@edge-lstm-test-{os.getpid()}"}).ready()
        assert there.recv(100) == b"READY=1"


def test_watchdog_messages_go_out_three_times_per_interval(
    notify_socket: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    milliseconds = iter(range(600))  # a busy machine would leave some out
    monkeypatch.setattr("edge_lstm.service.systemd.time.monotonic", lambda: next(milliseconds) / 1000)
    manager = SystemdNotifier({"NOTIFY_SOCKET": notify_socket.getsockname(), "WATCHDOG_USEC": "600000"})
    for _ in range(600):
        manager.alive()
    assert received(notify_socket) == ["WATCHDOG=1"] * 3


def test_no_watchdog_message_without_a_watchdog_of_this_process(notify_socket: socket.socket) -> None:
    for environment in ({}, {"WATCHDOG_USEC": "600000", "WATCHDOG_PID": "1"}):
        SystemdNotifier({"NOTIFY_SOCKET": notify_socket.getsockname(), **environment}).alive()
    assert received(notify_socket) == []


def test_without_systemd_nothing_is_sent_and_a_dead_socket_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    SystemdNotifier({}).ready()
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        SystemdNotifier({"NOTIFY_SOCKET": str(tmp_path / "none")}).ready()
    assert "systemd does not listen" in caplog.text


def test_systemd_is_detected_by_its_folder(tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert is_running(tmp_path)
