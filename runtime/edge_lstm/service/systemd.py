"""What systemd wants to hear of a service (sd_notify): ready, alive, reloading, stopping; elsewhere nobody is told."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)

_TIMES_A_WATCHDOG = 3  # signs of life within the time that systemd waits for one


class SystemdNotifier:
    """systemd, as the service's environment says it is there; every method does nothing where it is not."""

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
        """The self-test is passed and the loop begins; also the end of a reload."""
        self._tell("READY=1")

    def status(self, text: str) -> None:
        """What `systemctl status` shows of it in a line."""
        if text != self._status:
            self._status = text
            self._tell("STATUS=" + text.replace("\n", " "))

    def alive(self) -> None:
        """The loop came round. To be called from there and nowhere else: a timer would also tick beside a dead loop."""
        now = time.monotonic()
        if self._every_s is not None and now - self._alive_at >= self._every_s:
            self._alive_at = now
            self._tell("WATCHDOG=1")

    def reloading(self) -> None:
        """A reload begins, which `ready` ends."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service ends by itself or was told to."""
        self._tell("STOPPING=1")

    def _tell(self, *facts: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as there:
                there.sendto("\n".join(facts).encode(), self._address)
        except OSError as error:
            log.warning("systemd does not listen socket=%r error=%s", self._address, error)


def is_running(root: Path = Path("/")) -> bool:
    """Whether systemd manages the machine (sd_booted)."""
    return (root / "run/systemd/system").is_dir()
