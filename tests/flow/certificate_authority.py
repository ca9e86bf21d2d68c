"""A certificate authority for tests, by the openssl command."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """A certificate authority of its own, by the openssl command, in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self.certificate = folder / f"{name}.pem"
        self._openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2",
            *("-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}"),
        )

    def issue(self, name: str, host: str | None = None) -> tuple[Path, Path]:
        """A certificate and its key, for a server at `host` or for a client."""
        self._openssl(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes",
            *("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"),
        )
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName=IP:{host}\n" if host else "basicConstraints=CA:FALSE\n")
        self._openssl(
            f"x509 -req -days 2 -in {name}.csr -out {name}.pem -extfile {name}.ext",
            *("-CA", f"{self._name}.pem", "-CAkey", f"{self._name}.key", "-CAcreateserial"),
        )
        # started by root, mosquitto reads it as its own user; a client refuses an open key
        (self._folder / f"{name}.key").chmod(0o644 if host else 0o600)
        return self._folder / f"{name}.pem", self._folder / f"{name}.key"

    def _openssl(self, command: str, *arguments: str) -> None:
        done = subprocess.run(
            ["openssl", *command.split(), *arguments], cwd=self._folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
