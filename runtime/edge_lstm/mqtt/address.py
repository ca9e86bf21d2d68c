"""The address of a broker, and the reason if it cannot be reached; an address holds no credentials."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from paho.mqtt.client import WebsocketConnectionError

from edge_lstm.foundation.errors import EdgeLstmError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
WEBSOCKET_PATH = "/mqtt"  # what brokers and proxies listen at, if the address names none
# (TLS, WebSocket, default port) by scheme. tcp:// and ssl:// are the names of Eclipse Paho and Telegraf.
_KINDS = {
    "mqtt": (False, False, 1883),
    "mqtts": (True, False, 8883),
    "ws": (False, True, 80),
    "wss": (True, True, 443),
}
_OTHER_NAMES = {"tcp": "mqtt", "ssl": "mqtts", "tls": "mqtts", "http": "ws", "https": "wss"}
_ACCEPTED_NAMES = ("tcp", "ssl", "tls")


@dataclass(frozen=True)
class Address:
    """Host and port of a broker, whether it uses TLS there, and the path of its WebSocket (None: plain TCP)."""

    host: str
    port: int
    tls: bool = False
    path: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = ("mqtts" if self.tls else "mqtt") if self.path is None else ("wss" if self.tls else "ws")
        return f"{scheme}://{host}:{self.port}{self.path or ''}"


def parse_address(url: str) -> Address:
    """`mqtt://host[:port]`, or over a WebSocket `ws://host[:port][/path]`; with TLS `mqtts://` and `wss://`.

    tcp:// is taken as mqtt://, and ssl://, tls:// and mqtt+ssl:// as mqtts://. The default ports are 1883, 8883, 80
    and 443. Raises EdgeLstmError otherwise. Its message does not repeat a password.
    """
    if "@" in url:
        raise EdgeLstmError(
            "expected an address without a user and password, found one with them",
            "an address shows in logs and process lists: set username and password_file",
        )
    parts = None
    try:
        parts = urlsplit(url)
        name = parts.scheme.removeprefix("mqtt+")
        tls, websocket, port = _KINDS[_OTHER_NAMES[name] if name in _ACCEPTED_NAMES else name]
        if parts.hostname and not (parts.query or parts.fragment) and (websocket or not parts.path.strip("/")):
            path = (parts.path.rstrip("/") and parts.path) or WEBSOCKET_PATH
            if path.isprintable() and " " not in path:  # it is written into the request of the WebSocket
                return Address(parts.hostname, parts.port or port, tls, path if websocket else None)
    except (ValueError, KeyError):
        pass  # a port that is not a number, or another scheme: refused below
    shown = url.partition("?")[0] + "?…" if "?" in url else url  # a query may hold a token
    raise EdgeLstmError(
        f'expected an address like mqtt://host:1883, found "{shown}"', _address_hint(url, parts.scheme if parts else "")
    )


def _address_hint(url: str, scheme: str) -> str:
    if scheme in _OTHER_NAMES and scheme not in _ACCEPTED_NAMES:
        return f"write {_OTHER_NAMES[scheme]}:{url.partition(':')[2].partition('?')[0]} for a WebSocket"
    if scheme in ("mqtt", "mqtts") and "/" in url.partition("://")[2]:
        twin = "ws" if scheme == "mqtt" else "wss"
        return f"leave out what follows the port; or write {twin}:// for a WebSocket, which has a path"
    if "?" in url or "#" in url:
        return "leave out what follows the path; a login belongs in username and password_file"
    return "write mqtt://host:1883, mqtts://host:8883 with TLS, or ws://host:port/path or wss:// for a WebSocket"


def unreachable(address: Address, error: Exception) -> EdgeLstmError:
    """The error for a broker that could not be reached because of `error`."""
    hint = "start one (edge-lstm broker), or correct the address"
    if address.tls and isinstance(error, ssl.SSLError):
        hint = "check ca_file, the host name in the broker's certificate, and that it uses TLS on this port"
    elif isinstance(error, WebsocketConnectionError):
        hint = "check port and path of the broker's WebSocket listener, or write mqtt:// or mqtts:// for one without"
    return EdgeLstmError(f"expected an MQTT broker at {address}, found: {unreachable_reason(address, error)}", hint)


def unreachable_reason(address: Address, error: Exception) -> str:
    """The reason, in a few words."""
    if address.tls and isinstance(error, ssl.SSLCertVerificationError):
        return f"a certificate that is refused ({error.verify_message})"
    if address.tls and isinstance(error, ssl.SSLError):
        return f"no TLS that fits ({error.reason or error})"
    if isinstance(error, WebsocketConnectionError):
        return f"no WebSocket for MQTT at {address.path}"
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return "no such host"
    return getattr(error, "strerror", None) or str(error)
