"""Keys and configuration of an sshd on loopback, and an ssh configuration to reach it. Starts nothing."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


class SshServer:
    """For an sshd on loopback that finds this folder at `seen_at`; the board's name is `board`."""

    def __init__(self, folder: Path, settings: str = "", seen_at: Path | None = None) -> None:
        """`settings`: more lines of sshd's configuration."""
        place = seen_at or folder
        self._folder = folder
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {place}/host\nAuthorizedKeysFile {place}/authorized\n"
            f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"PermitRootLogin prohibit-password\n{settings}\n"
        )
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {(folder / 'host.pub').read_text()}")
        self.command = [SSHD, "-D", "-e", "-f", f"{place}/sshd_config"]

    def configured(self, key: str = "user", known: str = "known", user: str = "root") -> Path:
        """An ssh configuration with this key, these known hosts and this remote user."""
        path = self._folder / f"ssh-{key}-{known}-{user}"
        path.write_text(
            f"Host board\n  HostName 127.0.0.1\n  Port {self.port}\n  User {user}\n"
            f"  IdentityFile {self._folder}/{key}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self._folder}/{known}\n  GlobalKnownHostsFile /dev/null\n"
        )
        return path

    def is_open(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
