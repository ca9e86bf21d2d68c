"""A real systemd for a test: boots it, runs commands in it, ends it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deadline import wait_until

_BOOT = Path(__file__).with_name("boot.sh")
_PROGRAMS = ("unshare", "nsenter", "mosquitto_passwd", "/usr/lib/systemd/systemd")


def _obstacle() -> str | None:
    """Why systemd cannot be booted here, or None."""
    if os.geteuid() != 0:
        return "namespaces and mounts need root"
    if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
        return f"{', '.join(missing)} not installed (Debian: apt-get install systemd util-linux mosquitto)"
    if " cgroup2 " not in Path("/proc/mounts").read_text():
        return "there is no cgroup2 mount"
    program = "mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w /mnt/r && mount -t overlay o -o "
    program += "lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt/r"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--propagation", "private", "sh", "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no namespace with an overlay: {tried.stderr.strip()}" if tried.returncode else None


class System:
    """A booted systemd, and this machine as it sees it: a copy on write, but for `shared`."""

    def __init__(self, scratch: Path, shared: Path) -> None:
        scratch.mkdir()
        self.shared = shared
        self._log = scratch.with_suffix(".log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([_BOOT, scratch, shared], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._init = 0

    def wait_up(self) -> None:
        wait_until(self._is_up, f"systemd is up ({self._log})", 60)

    def _is_up(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not children or Path(f"/proc/{children[0]}/comm").read_text() != "systemd\n":
            return False
        self._init = int(children[0])
        return self.run("systemctl", "is-system-running", code=None).stdout.strip() in ("running", "degraded")

    def run(self, *command: object, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """A command inside, as root; `code`: its exit code must be this one (None: any)."""
        entered = ["nsenter", f"--target={self._init}", "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--root"]
        done = subprocess.run(
            [*entered, *map(str, command)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        )
        assert code is None or done.returncode == code, f"{done.stdout}{done.stderr}{self.journal()}"
        return done

    def edge_lstm(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "edge_lstm", *arguments, code=code)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", unit, f"--property={name}", "--value").stdout.strip()

    def journal(self) -> str:
        entered = ["nsenter", f"--target={self._init}", "--mount", "--pid", "--root"]
        return subprocess.run(
            [*entered, "journalctl", "--no-pager"], capture_output=True, text=True, check=False
        ).stdout

    def signal(self, unit: str, name: str) -> None:
        """Send a signal to the main process of the unit directly."""
        self.run("kill", f"-{name}", self.show(unit, "MainPID"))

    def close(self) -> None:
        """Kill its init: all that runs inside ends too."""
        if self._init:
            os.kill(self._init, signal.SIGKILL)
        else:
            self._process.kill()
        self._process.wait(10)
        for mount in Path("/proc/mounts").read_text().splitlines():
            _, place, kind, *_ = mount.split()
            group = Path(place) / f"edge-lstm-test-{self._process.pid}"
            if kind == "cgroup2" and group.exists():
                wait_until(lambda group=group: _removed(group), f"{group} is empty")


def _removed(group: Path) -> bool:
    for folder, _, _ in os.walk(group, topdown=False):
        try:
            Path(folder).rmdir()
        except OSError:  # a process of it is still ending
            return False
    return True


@pytest.fixture(scope="session")
def obstacle() -> str | None:
    return _obstacle()


@contextlib.contextmanager
def booted(folder: Path) -> Iterator[System]:
    """A systemd, until the block ends; what it shares with this machine lies in `folder`/shared."""
    shared = folder / "shared"
    shared.mkdir()
    system = System(folder / "scratch", shared)
    try:
        system.wait_up()
        yield system
    finally:
        system.close()


@pytest.fixture
def system(tmp_path: Path, obstacle: str | None) -> Iterator[System]:
    """A booted systemd; skips, with the reason, where it cannot be."""
    if obstacle is not None:
        pytest.skip(obstacle)
    with booted(tmp_path) as system:
        yield system
