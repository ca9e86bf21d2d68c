"""`edge-lstm run` in its own process, with its memory and the longest silence of its loop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

_WATCHDOG_S = 0.3  # a third of it is the time between two signs of life


class WatchedService:
    """A service within a `with` block. Its loop tells that it is alive ten times a second, as it tells systemd."""

    def __init__(self, config: Path) -> None:
        self.log = config.with_suffix(f".{time.monotonic_ns()}.log")
        self._path = config.parent / f"notify-{time.monotonic_ns() % 10**9}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._path))
        self._ready = threading.Event()
        self._last = 0.0  # the last sign of life
        self._longest = 0.0
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self.idle_mib = 0.0
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_lstm", "run", str(config)],
                stderr=log,
                env={
                    **os.environ,
                    "NOTIFY_SOCKET": str(self._path),
                    "WATCHDOG_USEC": f"{int(1e6 * _WATCHDOG_S)}",
                },
            )

    def __enter__(self) -> WatchedService:
        self._thread.start()
        if not self._ready.wait(60):
            self._end()
            raise AssertionError(f"the service did not become ready: {self.log.read_text()[-2000:]}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _listen(self) -> None:
        while True:
            try:
                said = self._socket.recv(4096)
            except OSError:
                return
            now = time.monotonic()
            if b"READY=1" in said:
                self._ready.set()
                self._last = now
            if b"WATCHDOG=1" in said and self._last:
                self._longest = max(self._longest, now - self._last)
                self._last = now

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def begin(self) -> None:
        """From here on, memory and silences count."""
        self.idle_mib = self._status_mib("VmRSS")
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")  # the peak begins again
        self._longest, self._last = 0.0, time.monotonic()

    def memory_mib(self) -> float:
        """The peak since `begin`, above what was used then."""
        return max(0.0, self._status_mib("VmHWM") - self.idle_mib) if self.alive else 0.0

    def longest_silence_s(self) -> float:
        return max(self._longest, time.monotonic() - self._last)

    def stop(self, most_s: float = 20.0) -> float:
        """Seconds from SIGTERM to its end; `most_s` where it does not end."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(most_s)
        except subprocess.TimeoutExpired:
            return most_s
        return time.monotonic() - begun

    def _status_mib(self, name: str) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
        return 0.0
