"""An ARM userland in a folder, made once by debootstrap and entered through the user emulation of qemu.

The kernel is that of this machine. The Python and the wheels of the board run inside, but not its drivers, and
not at its speed. There is no /sys inside: with that of this machine, LiteRT starts threads that never end under qemu
7.2, and waits for them. Where root, debootstrap or qemu is missing, one line says what to install.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"
# Two files share their first 20 bytes only if they are programs of one machine type; the mask lets ELF's ABI byte vary.
_ELF64 = r"\x7fELF\x02\x01\x01\x00" + r"\x00" * 8 + r"\x02\x00"
_ELF32 = r"\x7fELF\x01\x01\x01\x00" + r"\x00" * 8 + r"\x02\x00"
_MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"
# "P" keeps argv[0]; "F" opens qemu now, by this machine's path, so that it is found from inside the root too.
_ENTER = r"""
read -r _
set -e
mount -t binfmt_misc none "$FORMATS"
printf '%s' "$FORMAT" > "$FORMATS/register"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
if [ "$SHARED" != "" ]; then mount --rbind "$SHARED" "$ROOT/mnt"; fi
for folder in $LIBRARIES; do mkdir -p "$ROOT$folder"; mount --rbind "$folder" "$ROOT$folder"; done
exec chroot "$ROOT" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 container=lxc "$@"
"""


@dataclass(frozen=True)
class Machine:
    """A processor architecture, under the names that Debian, qemu and ELF have for it."""

    debian: str
    qemu: str
    magic: str


ARM64 = Machine("arm64", "qemu-aarch64", _ELF64 + r"\xb7\x00")
ARMHF = Machine("armhf", "qemu-arm", _ELF32 + r"\x28\x00")


def why_not(machine: Machine) -> str | None:
    """Why this machine cannot run that userland, with the fix; None if it can."""
    if os.geteuid() != 0:
        return "an ARM userland needs root, to map its users and mount its folders"
    missing = [name for name in ("debootstrap", f"{machine.qemu}-static", "unshare") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not found (Debian: apt-get install debootstrap qemu-user-static util-linux)"
    major, minor = (int(part) for part in os.uname().release.split(".")[:2])
    if (major, minor) < (6, 7):
        return (
            f"the kernel is {major}.{minor}; from 6.7 on a namespace can register its own interpreter for ARM programs"
        )
    return None


@dataclass(frozen=True)
class Userland:
    """A root folder of one architecture; `run` runs a command inside, with this machine's network."""

    machine: Machine
    root: Path

    @classmethod
    def cached(cls, folder: Path, machine: Machine, suite: str, packages: list[str]) -> Userland:
        """The root of `suite` under `folder`, made on the first use; an incomplete one is made again."""
        root = folder / f"{machine.debian}-{suite}"
        userland = cls(machine, root)
        made = root / ".made"
        if not made.exists():
            print(f"making {root}: some minutes, once", file=sys.stderr)
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir(parents=True)
            wanted = ["python3", "python3-venv", "ca-certificates", *packages]
            first = ["debootstrap", f"--arch={machine.debian}", "--foreign", "--variant=minbase"]
            mirror = os.environ.get("EDGE_LSTM_DEBIAN_MIRROR", MIRROR)
            subprocess.run([*first, f"--include={','.join(wanted)}", suite, str(root), mirror], check=True)
            userland.run(["/debootstrap/debootstrap", "--second-stage"], check=True)
            made.touch()
        return userland

    def run(
        self,
        command: list[str],
        *,
        shared: Path | None = None,
        plugin: str | None = None,
        env: dict[str, str] | None = None,
        check: bool = False,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """`command` inside the root, to its end; `shared` is a folder of this machine that it finds at /mnt.

        `plugin`: a plugin of qemu's in `shared` that watches every program; it takes the dynamically linked qemu.
        """
        process = self.start(command, shared=shared, plugin=plugin, env=env, stdout=stdout, stderr=stderr)
        out, err = process.communicate()
        if check and process.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {process.returncode} in {self.root}\n{out}{err}")
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def start(
        self,
        command: list[str],
        *,
        shared: Path | None = None,
        plugin: str | None = None,
        env: dict[str, str] | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> subprocess.Popen[str]:
        """As `run`, without waiting; `stop` ends it."""
        inside = {**(env or {}), **({"QEMU_PLUGIN": f"/mnt/{plugin}"} if plugin else {})}
        qemu = shutil.which(self.machine.qemu if plugin else f"{self.machine.qemu}-static")
        assert qemu is not None, f"{self.machine.qemu} not found (Debian: apt-get install qemu-user)"
        environment = {
            **os.environ,
            "ROOT": str(self.root),
            "FORMATS": tempfile.mkdtemp(prefix="edge-lstm-formats-"),
            "FORMAT": f":{self.machine.qemu}:M::{self.machine.magic}:{_MASK}:{qemu}:POCF",
            "SHARED": str(shared or ""),
            # of this machine, since qemu is one of its programs even where it runs inside
            "LIBRARIES": "/lib64 /usr/lib/x86_64-linux-gnu" if plugin else "",
        }
        pairs = [f"{key}={value}" for key, value in inside.items()]
        process = subprocess.Popen(
            [
                "unshare",
                "--user",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                _ENTER,
                "sh",
                *pairs,
                *command,
            ],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            text=True,
            env=environment,
        )
        self._map_users(process)
        return process

    def stop(self, process: subprocess.Popen[str]) -> None:
        """Sends SIGTERM to what `start` started, and SIGKILL after a minute, as systemd would.

        It is the first process inside that has to hear of it: unshare ignores SIGTERM, and may die without it.
        """
        inside = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for number in inside:
            os.kill(int(number), signal.SIGTERM)
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            for number in inside:
                os.kill(int(number), signal.SIGKILL)
            process.communicate(timeout=10)

    def _map_users(self, process: subprocess.Popen[str]) -> None:
        """Gives the waiting shell all users and groups of this machine, as dpkg needs them, and lets it go on."""
        own = Path("/proc/self/ns/user").readlink()
        theirs = Path(f"/proc/{process.pid}/ns/user")
        deadline = time.monotonic() + 10
        while theirs.readlink() == own:
            assert time.monotonic() < deadline, "expected a user namespace within 10 s"
            time.sleep(0.005)
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{kind}").write_text("0 0 65536\n")
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
