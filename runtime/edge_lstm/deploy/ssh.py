"""Runs commands on a board with the system's ssh, over one connection. Keys, ports and jump hosts are left to ssh.

Errors quote ssh and add a remedy. Every command has a time limit. A question about a host key is never answered in
place of the user.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import printable

_FAILED = 255  # exit status of ssh's own errors; any other status is that of the command
_CONNECT_S = 15
_LOGIN_S = 300.0  # for a person who types a passphrase or confirms on another device
_STEP_S = 600.0  # of a command, unless the caller knows better
_END_S = 10.0
# Messages of ssh, and the remedy for each.
_REMEDIES = (
    ("Host key verification failed", "connect once by hand (ssh {to}) and compare the key's fingerprint"),
    ("Permission denied", "copy your key to the board: ssh-copy-id {to}"),
    ("Connection refused", "enable ssh there (Raspberry Pi: sudo raspi-config nonint do_ssh 0), or check the port"),
    ("Could not resolve hostname", "check the name, or use the board's address"),
    ("timed out", "check that the board is on and in this network"),
    ("No route to host", "check that the board is on and in this network"),
)


class Ssh:
    """A connection to `destination` (USER@HOST, or a name from ssh's configuration), open within a `with` block."""

    def __init__(self, destination: str, config: Path | None = None) -> None:
        """`config`: an ssh configuration file in place of the user's. Raises EdgeLstmError where ssh is missing."""
        program = shutil.which("ssh")
        if program is None:
            raise EdgeLstmError("expected the program ssh on this machine, found none", "install the OpenSSH client")
        if destination.startswith("-"):
            raise EdgeLstmError(f"expected USER@HOST, found {destination!r}", "name the board as for ssh")
        self.destination = destination
        self._ssh = [program, *(["-F", str(config)] if config is not None else [])]
        self._folder = tempfile.TemporaryDirectory(prefix="edge-lstm-ssh-")
        self._shared = sys.platform != "win32"  # ssh on Windows cannot share a connection
        if self._shared:
            self._ssh += ["-o", f"ControlPath={self._folder.name}/c"]

    def __enter__(self) -> Ssh:
        batch = [] if sys.stdin.isatty() else ["-o", "BatchMode=yes"]
        shared = ["-o", "ControlMaster=auto", "-o", "ControlPersist=120"] if self._shared else []
        options = ["-o", f"ConnectTimeout={_CONNECT_S}", "-o", "ServerAliveInterval=15", *shared, *batch]
        # a file, because the shared connection stays in the background and would keep a pipe open
        output = Path(self._folder.name) / "output"
        with output.open("wb") as file:
            command = [*self._ssh, *options, self.destination, "true"]
            try:
                status = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=_LOGIN_S
                ).returncode
            except subprocess.TimeoutExpired:
                self._folder.cleanup()
                raise self._error(f"no answer for {_LOGIN_S:g} s", "try by hand: ssh {to} true") from None
        if status:
            said = output.read_text(errors="replace")
            self._folder.cleanup()
            raise self._refused(said)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shared:
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run([*self._ssh, "-O", "exit", self.destination], capture_output=True, timeout=_END_S)
        self._folder.cleanup()

    def run(
        self, command: Sequence[str], stdin: bytes = b"", limit_s: float = _STEP_S
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `command` on the board. The exit status is 128 + the signal's number where a signal ended it.

        Raises EdgeLstmError where ssh itself fails, and where the command takes longer than `limit_s`.
        """
        # in a shell, because ssh returns 255 for a command that a signal ended, as for its own errors
        wrapped = shlex.join(["sh", "-c", f"{shlex.join(command)}; exit $?"])
        line = [*self._ssh, "-o", "BatchMode=yes", self.destination, wrapped]
        try:
            done = subprocess.run(line, input=stdin, capture_output=True, timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise EdgeLstmError(
                f"{self.destination}: expected a step to end within {limit_s:g} s, found that it still runs",
                "look at the board (top, free -h, dmesg), and deploy again: it continues from there",
            ) from None
        if done.returncode == _FAILED:
            raise self._refused(done.stderr.decode(errors="replace"))
        return done

    def _refused(self, said: str) -> EdgeLstmError:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        for words, remedy in _REMEDIES:
            for line in lines:
                if words in line:
                    return self._error(line, remedy)
        return self._error(lines[-1] if lines else "no message", "try by hand: ssh {to} true")

    def _error(self, found: str, remedy: str) -> EdgeLstmError:
        return EdgeLstmError(
            f"expected to reach {self.destination} over ssh, found: {printable(found)}",
            remedy.format(to=self.destination),
        )
