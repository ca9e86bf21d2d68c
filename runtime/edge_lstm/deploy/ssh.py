"""A board over the system's own ssh: one connection, commands, their output. Keys, ports and jumps are ssh's business.

Refuses in ssh's own words, with the remedy; never answers a question about a host key for the user.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from edge_lstm.foundation.errors import EdgeLstmError

_FAILED = 255  # ssh's exit status for its own faults; everything else is the command's
_CONNECT_S = 15
# What ssh says, and what to do about it.
_REMEDIES = (
    ("Host key verification failed", "connect once by hand (ssh {to}) and compare the key's fingerprint"),
    ("Permission denied", "let the board know your key: ssh-copy-id {to}"),
    ("Connection refused", "switch ssh on there (Raspberry Pi: sudo raspi-config nonint do_ssh 0), or mend the port"),
    ("Could not resolve hostname", "check the name, or use the board's address"),
    ("timed out", "check that the board is on and in this network"),
    ("No route to host", "check that the board is on and in this network"),
)


class Ssh:
    """A connection to `destination` (USER@HOST, or a name from ssh's configuration), open within a `with` block."""

    def __init__(self, destination: str, config: Path | None = None) -> None:
        """`config`: another configuration file than the user's own. Raises EdgeLstmError where there is no ssh."""
        program = shutil.which("ssh")
        if program is None:
            raise EdgeLstmError("expected the program ssh on this machine, found none", "install OpenSSH's client")
        if destination.startswith("-"):
            raise EdgeLstmError(f"expected USER@HOST, found {destination!r}", "name the board as ssh would")
        self.destination = destination
        self._ssh = [program, *(["-F", str(config)] if config is not None else [])]
        self._folder = tempfile.TemporaryDirectory(prefix="edge-lstm-ssh-")
        self._shared = sys.platform != "win32"  # its ssh cannot share a connection
        if self._shared:
            self._ssh += ["-o", f"ControlPath={self._folder.name}/c"]

    def __enter__(self) -> Ssh:
        asks = [] if sys.stdin.isatty() else ["-o", "BatchMode=yes"]
        shared = ["-o", "ControlMaster=auto", "-o", "ControlPersist=120"] if self._shared else []
        options = ["-o", f"ConnectTimeout={_CONNECT_S}", "-o", "ServerAliveInterval=15", *shared, *asks]
        # a file, since the shared connection stays in the background and would hold a pipe open
        heard = Path(self._folder.name) / "heard"
        with heard.open("wb") as file:
            command = [*self._ssh, *options, self.destination, "true"]
            status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file).returncode
        if status:
            said = heard.read_text(errors="replace")
            self._folder.cleanup()
            raise self._refused(said)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shared:
            subprocess.run([*self._ssh, "-O", "exit", self.destination], capture_output=True)
        self._folder.cleanup()

    def run(self, command: Sequence[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """`command` on the board, to its end, whatever its exit status: 128 and the signal's number where one ended it.

        Raises EdgeLstmError where ssh itself fails.
        """
        # a shell stays around it, since of a command that a signal ends ssh says 255, as of its own faults
        kept = shlex.join(["sh", "-c", f"{shlex.join(command)}; exit $?"])
        line = [*self._ssh, "-o", "BatchMode=yes", self.destination, kept]
        done = subprocess.run(line, input=stdin, capture_output=True)
        if done.returncode == _FAILED:
            raise self._refused(done.stderr.decode(errors="replace"))
        return done

    def _refused(self, said: str) -> EdgeLstmError:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        for words, remedy in _REMEDIES:
            for line in lines:
                if words in line:
                    return self._error(line, remedy)
        return self._error(lines[-1] if lines else "nothing said", "try by hand: ssh {to} true")

    def _error(self, found: str, remedy: str) -> EdgeLstmError:
        return EdgeLstmError(
            f"expected to reach {self.destination} over ssh, found: {found}", remedy.format(to=self.destination)
        )
