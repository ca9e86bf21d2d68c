"""Certificates and passwords of a client; they are read from files only.

Passwords and private keys must be closed to other users, unless systemd gives them to the unit as credentials.
"""

from __future__ import annotations

import functools
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.permissions import is_within, require_private
from edge_lstm.foundation.text import decoded


@dataclass(frozen=True)
class Login:
    """A user name, and the password if there is one. The object's text does not show the password."""

    username: str
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Tls:
    """The trusted authority (None: the system's), and the client's certificate with its key (None: none)."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """A context that checks the broker's certificate and host name; TLS 1.2 or newer.

        The files are read once. Raises EdgeLstmError if one is missing, unreadable, not PEM, or does not fit the
        others, or if other users may read the key.
        """
        return self._context

    @functools.cached_property
    def _context(self) -> ssl.SSLContext:
        from edge_lstm.mqtt.client.tls_socket import TlsSocket  # here: it loads OpenSSL

        faults = []
        for read, path in ((_read, self.ca_file), (_read, self.cert_file), (read_secret, self.key_file)):
            try:
                if path is not None:
                    read(path)
            except EdgeLstmError as error:
                faults.append(error)
        if faults:
            hints = dict.fromkeys(fault.hint for fault in faults)
            raise EdgeLstmError("\n  ".join(fault.message for fault in faults), " / ".join(hints))
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (ssl.SSLError, OSError) as error:
            raise _unusable(f"certificates in PEM at {self.ca_file}", error) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.sslsocket_class = TlsSocket
        if self.cert_file is not None:
            try:
                context.load_cert_chain(self.cert_file, self.key_file, _no_passphrase)
            except (ssl.SSLError, OSError) as error:
                raise _unusable(f"a certificate at {self.cert_file} and its key at {self.key_file}", error) from None
        return context


def read_secret(path: Path) -> str:
    """The text of a secret file, without a byte order mark.

    Raises EdgeLstmError if it is missing, unreadable or no text, or if other users may read, write or replace it.
    """
    text = _read(path)
    if not _is_credential(path):
        require_private(path)
    return text


def _read(path: Path) -> str:
    try:
        return decoded(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        found = (error.strerror or str(error)) if isinstance(error, OSError) else "bytes that are no text"
        raise EdgeLstmError(
            f"expected to read {path}, found: {found}", "check the path, and that the service's user may read it"
        ) from None


def read_password(path: Path) -> str:
    """The password in a file, without the line end that an editor adds.

    Raises EdgeLstmError if it is empty, or as `read_secret` does.
    """
    password = read_secret(path).rstrip("\r\n")
    if not password:
        raise EdgeLstmError(f"expected a password in {path}, found an empty file", "write it there")
    return password


def credential_path(name: str) -> Path:
    """Where systemd puts the credential `name` of a unit (LoadCredential=). Raises EdgeLstmError outside a unit."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise EdgeLstmError(
            f'expected systemd to give the credential "{name}", found no $CREDENTIALS_DIRECTORY',
            f"start it as a unit with LoadCredential={name}:PATH, or set password_file",
        )
    return Path(folder) / name


def secret_path(folder: Path, path: str, credential: str) -> Path:
    """Where a secret file of the config is: `path` from `folder`, or the unit's credential if systemd provides it.

    edge-lstm device install makes password_file and key_file credentials of these names, since only root can read the
    files themselves. Raises EdgeLstmError as `beside_config` does.
    """
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    provided = Path(directory or folder) / credential
    return provided if directory and provided.exists() else beside_config(folder, path, credential)


def beside_config(folder: Path, path: str, key: str) -> Path:
    """The secret file `path` of a config in `folder`.

    Raises EdgeLstmError if it is elsewhere, also by a link: otherwise a config from elsewhere could choose which file
    of this machine is sent to a broker.
    """
    if not is_within(folder / path, folder):
        raise EdgeLstmError(
            f"expected the {key} in the config's folder or below, found it at {folder / path}",
            f"copy it into {folder}, and close it to other users (chmod 600); or use a credential of systemd",
        )
    return folder / path


def _is_credential(path: Path) -> bool:
    """Whether systemd provides the file: it decides who may read it, by an access list that the mode does not show."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return bool(directory) and is_within(path, Path(str(directory)))


def _no_passphrase() -> str:
    # without this, OpenSSL asks on the terminal, and a service would wait for ever
    raise EdgeLstmError(
        "expected a private key without a passphrase, found an encrypted one",
        "decrypt it (openssl pkey), and let only the service's user read it",
    )


def _unusable(expected: str, error: OSError) -> EdgeLstmError:
    found = getattr(error, "reason", None) or error.strerror or str(error)
    return EdgeLstmError(f"expected {expected}, found: {found}", "check the paths and that the files belong together")
