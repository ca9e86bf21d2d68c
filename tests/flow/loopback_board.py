"""A board that is this very machine: a real sshd on loopback, a root folder of its own, and the part of systemd that
`device deploy` speaks to, played by a script that starts the unit's own command and waits for its READY."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.deadline import wait_until

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"

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
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    address = chr(0) + "edge-lstm-test-" + str(os.getpid())
    told.bind(address)
    told.settimeout(0.1)
    environment = {{**os.environ, "NOTIFY_SOCKET": "@" + address[1:], "STATE_DIRECTORY": str(state)}}
    with open(run / f"{{unit}}.log", "ab") as log:
        service = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    (run / f"{{unit}}.pid").write_text(str(service.pid))
    while service.poll() is None:
        try:
            if b"READY=1" in told.recv(4096).split(b"\\n"):
                return 0
        except TimeoutError:
            pass
    return 1

verb, unit = sys.argv[1], sys.argv[-1]
sys.exit({{"restart": lambda: restart(unit), "is-active": lambda: 0 if pid_of(unit) else 3}}.get(verb, lambda: 0)())
"""
_JOURNALCTL = "#!/bin/sh\nexec tail -n 15 {root}/run/$2.log\n"


class LoopbackBoard:
    """`config` is what ssh has to be told; the board's name in it is `board`."""

    def __init__(self, folder: Path, systemd: bool = True) -> None:
        self.root = folder / "root"
        (self.root / ("run/systemd/system" if systemd else "run")).mkdir(parents=True)
        self._folder = folder
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        tools = folder / "tools"
        tools.mkdir()
        for name, text in (("systemctl", _SYSTEMCTL), ("journalctl", _JOURNALCTL)):
            (tools / name).write_text(text.format(python=sys.executable, root=str(self.root)))
            (tools / name).chmod(0o755)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
            f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"PermitRootLogin prohibit-password\nSetEnv PATH={tools}:{os.environ['PATH']}\n"
        )
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {(folder / 'host.pub').read_text()}")
        self.config = self.configured()
        self._sshd: subprocess.Popen[bytes] | None = None

    def configured(self, key: str = "user", known: str = "known") -> Path:
        """A configuration of ssh with that key, and those hosts known."""
        path = self._folder / f"ssh-{key}-{known}"
        path.write_text(
            f"Host board\n  HostName 127.0.0.1\n  Port {self.port}\n  User root\n  IdentityFile {self._folder}/{key}\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {self._folder}/{known}\n  GlobalKnownHostsFile /dev/null\n"
        )
        return path

    def start(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)  # where Debian's sshd locks itself in
        command = [SSHD, "-D", "-e", "-f", str(self._folder / "sshd_config")]
        with (self._folder / "sshd.log").open("wb") as log:
            self._sshd = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._listens, "sshd listens")

    def _listens(self) -> bool:
        assert self._sshd is not None
        assert self._sshd.poll() is None, (self._folder / "sshd.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

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
