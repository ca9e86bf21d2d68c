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
def ear(tmp_path: Path) -> Iterator[socket.socket]:
    """A datagram socket where systemd's would be."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(str(tmp_path / "notify"))
        there.setblocking(False)
        yield there


def heard(ear: socket.socket) -> list[str]:
    lines = []
    while True:
        try:
            lines.append(ear.recv(4096).decode())
        except BlockingIOError:
            return lines


def test_systemd_hears_each_thing_once_and_in_its_own_words(ear: socket.socket) -> None:
    manager = SystemdNotifier({"NOTIFY_SOCKET": ear.getsockname()})
    manager.status("connecting to\nmqtt://b")
    manager.status("connecting to\nmqtt://b")
    manager.ready()
    manager.stopping()
    assert heard(ear) == ["STATUS=connecting to mqtt://b", "READY=1", "STOPPING=1"]
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    manager.reloading()
    (line,) = heard(ear)
    found = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", line)
    assert found
    assert before <= int(found[1]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_an_abstract_socket_is_found_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(f"\0edge-lstm-test-{os.getpid()}")
        SystemdNotifier({"NOTIFY_SOCKET": f"@edge-lstm-test-{os.getpid()}"}).ready()
        assert there.recv(100) == b"READY=1"


def test_a_sign_of_life_goes_out_three_times_a_watchdog_however_often_the_loop_turns(
    ear: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    milliseconds = iter(range(600))  # a busy machine would leave some out
    monkeypatch.setattr("edge_lstm.service.systemd.time.monotonic", lambda: next(milliseconds) / 1000)
    manager = SystemdNotifier({"NOTIFY_SOCKET": ear.getsockname(), "WATCHDOG_USEC": "600000"})
    for _ in range(600):
        manager.alive()
    assert heard(ear) == ["WATCHDOG=1"] * 3


def test_nobody_hears_of_life_where_the_watchdog_is_off_or_another_processs(ear: socket.socket) -> None:
    for environment in ({}, {"WATCHDOG_USEC": "600000", "WATCHDOG_PID": "1"}):
        SystemdNotifier({"NOTIFY_SOCKET": ear.getsockname(), **environment}).alive()
    assert heard(ear) == []


def test_without_systemd_nothing_happens_and_with_a_dead_socket_a_line_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    SystemdNotifier({}).ready()
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        SystemdNotifier({"NOTIFY_SOCKET": str(tmp_path / "none")}).ready()
    assert "systemd does not listen" in caplog.text


def test_systemd_runs_where_its_folder_is(tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert is_running(tmp_path)
