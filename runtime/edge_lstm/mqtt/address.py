"""The address of a broker, and the reason if it cannot be reached; an address holds no credentials."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge_lstm.foundation.errors import EdgeLstmError

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Address:
    """Host and port of a broker, and whether it uses TLS there."""

    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def parse_address(url: str) -> Address:
    """`mqtt://host[:port]` or, with TLS, `mqtts://host[:port]`; the default port is 1883 or 8883.

    Raises EdgeLstmError otherwise. Its message does not repeat a password.
    """
    if "@" in url:
        raise EdgeLstmError(
            "expected an address without a user and password, found one with them",
            "an address shows in logs and process lists: set username and password_file",
        )
    try:
        parts = urlsplit(url)
        if parts.scheme in ("mqtt", "mqtts") and parts.hostname and not (parts.path.strip("/") or parts.query):
            tls = parts.scheme == "mqtts"
            return Address(parts.hostname, parts.port or (8883 if tls else 1883), tls)
    except ValueError:
        pass  # a port that is not a number: refused below
    raise EdgeLstmError(f'expected an address like mqtt://host:1883, found "{url}"', "correct the address")


def unreachable(address: Address, error: Exception) -> EdgeLstmError:
    """The error for a broker that could not be reached because of `error`."""
    hint = "start one (edge-lstm broker), or correct the address"
    if address.tls and isinstance(error, ssl.SSLError):
        hint = "check ca_file, the host name in the broker's certificate, and that it uses TLS on this port"
    return EdgeLstmError(f"expected an MQTT broker at {address}, found: {unreachable_reason(address, error)}", hint)


def unreachable_reason(address: Address, error: Exception) -> str:
    """The reason, in a few words."""
    if address.tls and isinstance(error, ssl.SSLCertVerificationError):
        return f"a certificate that is refused ({error.verify_message})"
    if address.tls and isinstance(error, ssl.SSLError):
        return f"no TLS that fits ({error.reason or error})"
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return "no such host"
    return getattr(error, "strerror", None) or str(error)
