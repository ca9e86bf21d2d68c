"""This machine as a board: a real sshd on loopback, a root folder of its own, and a stand-in for systemd.

The stand-in is a script with the part of systemctl that `device deploy` uses. It starts the command of the unit and
waits for its READY.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.deadline import wait_until
from tests.flow.ssh_server import SshServer

_SYSTEMCTL = """#!{python}
import os, pathlib, shlex, signal, socket, subprocess, sys, time
root = pathlib.Path({root!r})
run = root / "run"

def pid_of(unit):
    try:
        pid = int((run / f"{{unit}}.pid").read_text())
        os.kill(pid, 0)
        return pid
    except (OSError, ValueError):
        return None

def restart(unit):
    if (old := pid_of(unit)) is not None:
        os.kill(old, signal.SIGTERM)
        while pid_of(unit) is not None:
            time.sleep(0.05)
    lines = (root / "etc/systemd/system" / unit).read_text().splitlines()
    (line,) = [one.partition("=")[2] for one in lines if one.startswith("ExecStart=")]
    command = [str(root) + word if word.startswith("/") else word for word in shlex.split(line)]
    state = root / "var/lib" / unit.removesuffix(".service")
    state.mkdir(parents=True, exist_ok=True)
    notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    address = chr(0) + "edge-lstm-test-" + str(os.getpid())
    notifications.bind(address)
    notifications.settimeout(0.1)
    environment = {{**os.environ, "NOTIFY_SOCKET": "@" + address[1:], "STATE_DIRECTORY": str(state)}}
    with open(run / f"{{unit}}.log", "ab") as log:
        service = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    (run / f"{{unit}}.pid").write_text(str(service.pid))
    while service.poll() is None:
        try:
            if b"READY=1" in notifications.recv(4096).split(b"\\n"):
                return 0
        except TimeoutError:
            pass
    return 1

verb, unit = sys.argv[1], sys.argv[-1]
sys.exit({{"restart": lambda: restart(unit), "is-active": lambda: 0 if pid_of(unit) else 3}}.get(verb, lambda: 0)())
"""
_JOURNALCTL = "#!/bin/sh\nexec tail -n 15 {root}/run/$2.log\n"


class LoopbackBoard:
    """`connection` holds the ssh configuration."""

    def __init__(self, folder: Path, systemd: bool = True) -> None:
        self.root = folder / "root"
        (self.root / ("run/systemd/system" if systemd else "run")).mkdir(parents=True)
        tools = folder / "tools"
        tools.mkdir()
        for name, text in (("systemctl", _SYSTEMCTL), ("journalctl", _JOURNALCTL)):
            (tools / name).write_text(text.format(python=sys.executable, root=str(self.root)))
            (tools / name).chmod(0o755)
        self.connection = SshServer(folder, f"SetEnv PATH={tools}:{os.environ['PATH']}")
        self._log = folder / "sshd.log"
        self._sshd: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)  # the chroot of Debian's sshd
        with self._log.open("wb") as log:
            self._sshd = subprocess.Popen(self.connection.command, stdout=log, stderr=log)
        wait_until(self._listens, "sshd listens")

    def _listens(self) -> bool:
        assert self._sshd is not None
        assert self._sshd.poll() is None, self._log.read_text()
        return self.connection.is_open()

    def service_pid(self, unit: str) -> int:
        """The process that the unit's command runs in."""
        return int((self.root / "run" / unit).with_suffix(".service.pid").read_text())

    def stop(self) -> None:
        """sshd, and every service that was started there."""
        for file in (self.root / "run").glob("*.pid"):
            try:
                os.kill(int(file.read_text()), signal.SIGTERM)
            except ProcessLookupError:
                continue
        if self._sshd is not None:
            self._sshd.terminate()
            self._sshd.wait(10)
