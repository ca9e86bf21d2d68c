"""Notifies systemd (sd_notify) that a service is ready, alive, reloading or stopping."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)

_TIMES_A_WATCHDOG = 3  # notifications within the time that systemd waits for one


class SystemdNotifier:
    """Sends notifications to systemd. Every method does nothing if the environment names no systemd."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._every_s: float | None = None
        watched = environment.get("WATCHDOG_USEC", "")
        if watched.isdecimal() and environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            self._every_s = int(watched) / 1e6 / _TIMES_A_WATCHDOG
        self._alive_at = -float("inf")
        self._status = ""

    def ready(self) -> None:
        """The self-test has passed and the loop begins; also the end of a reload."""
        self._notify("READY=1")

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows."""
        if text != self._status:
            self._status = text
            self._notify("STATUS=" + text.replace("\n", " "))

    def alive(self) -> None:
        """The loop has made a turn. Call it only there: a timer would go on although the loop hangs."""
        now = time.monotonic()
        if self._every_s is not None and now - self._alive_at >= self._every_s:
            self._alive_at = now
            self._notify("WATCHDOG=1")

    def reloading(self) -> None:
        """A reload begins, which `ready` ends."""
        self._notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service ends."""
        self._notify("STOPPING=1")

    def _notify(self, *facts: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.sendto("\n".join(facts).encode(), self._address)
        except OSError as error:
            log.warning("systemd does not listen socket=%r error=%s", self._address, error)


def is_running(root: Path = Path("/")) -> bool:
    """Whether systemd manages the machine (sd_booted)."""
    return (root / "run/systemd/system").is_dir()
