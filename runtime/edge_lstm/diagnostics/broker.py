"""The broker: whether it takes us in, and what it grants; asked by real connections under a name of our own.

It never connects under the service's client id, which would end the service's own connection.
"""

from __future__ import annotations

import os
import secrets
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_lstm.bundle.data_sheet import duration
from edge_lstm.diagnostics.finding import Finding
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.mqtt.address import LOOPBACK, Address, parse_address
from edge_lstm.mqtt.capabilities import BrokerCapabilities
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.service.config import MqttConfig

_FEW = 20  # predictions on their way: mosquitto's default, good for some thousand a second on loopback
_SOON_S = 30 * 86_400.0
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class _Visit:
    """What a connection told us."""

    granted: BrokerCapabilities
    granted_qos: Sequence[int]
    encryption: tuple[str, str] | None


def credentials(config: MqttConfig, folder: Path) -> Finding:
    """Whether certificates and the password can be read; a systemd credential is there within its unit only."""
    name = config.password_credential
    if name is not None and not os.environ.get("CREDENTIALS_DIRECTORY"):
        return Finding(
            "access",
            "unknown",
            f"the password is the credential {name} of systemd, which exists within the unit only",
            f"systemd-run --pipe -p LoadCredential={name}:PATH edge-lstm doctor SERVICE.toml; or edge-lstm status",
        )
    try:
        config.check_files(folder)
    except EdgeLstmError as error:
        return Finding("access", "red", error.message, error.hint)
    means = [
        "a password" if config.password_file or name else "a user name" if config.username else "",
        "a certificate" if config.cert_file else "",
    ]
    return Finding("access", "green", f"we show {' and '.join(filter(None, means)) or 'nothing: anonymous'}")


def broker(config: MqttConfig, folder: Path, topics: Sequence[str], prediction_bytes: int) -> Iterator[Finding]:
    """Lines about the broker of `config`, whose files lie in `folder`.

    `topics` are the filters of the readings; `prediction_bytes` is what a prediction takes on its way. It connects
    three times: to begin a session, to see whether it was kept, and, without one, to subscribe.
    """
    address = parse_address(config.url)
    name = f"edge-lstm-doctor-{secrets.token_hex(4)}"
    begun = time.monotonic()
    try:
        first = _visit(config, folder, name, config.session_expiry_s)
    except EdgeLstmError as error:
        yield _refused(error)
        return
    took_ms = 1000 * (time.monotonic() - begun)
    yield Finding("broker", "green", f"{address} takes us in with MQTT {config.protocol}, after {took_ms:.0f} ms")
    yield _encryption(address, config, first.encryption)
    granted = first.granted
    if config.session_expiry_s:
        try:
            again = _visit(config, folder, name, config.session_expiry_s)
            yield session(config, granted, again.granted.session_present)
        except EdgeLstmError as error:
            yield Finding("session", "red", error.message, error.hint)
    else:
        yield Finding(
            "session",
            "amber",
            "not asked for: readings sent while the service is away are lost",
            "leave out session_expiry_s, or give it the seconds of the longest absence",
        )
    try:
        last = _visit(config, folder, name, 0, topics)  # and the session of the others is gone
        yield quality(config.qos, granted.maximum_qos, topics, last.granted_qos)
    except EdgeLstmError as error:
        yield Finding("subscription", "red", error.message, "check the topics of [input], and the broker's rules")
    if config.protocol == "5":
        yield from limits(granted, prediction_bytes)
    else:
        yield Finding("limits", "unknown", "MQTT 3.1.1 does not tell packet size and window", 'set protocol = "5"')


def _visit(config: MqttConfig, folder: Path, name: str, expiry_s: int, topics: Sequence[str] = ()) -> _Visit:
    """Connect and leave. Raises EdgeLstmError where the broker is not there or refuses."""
    connection = MqttConnection(
        parse_address(config.url),
        name,
        topics,
        session_expiry_s=expiry_s,
        options=replace(config.options(folder), qos=config.qos),
    )
    try:
        connection.open(_TIMEOUT_S)
        assert connection.granted is not None  # by the CONNACK that `open` waited for
        return _Visit(connection.granted, connection.granted_qos, connection.encryption)
    finally:
        connection.close()


def _refused(error: EdgeLstmError) -> Finding:
    if "identifier" in error.message.lower():
        return Finding(
            "broker",
            "unknown",
            f"it knows clients by their client id, and took in none of the doctor's: {error.message}",
            "allow client ids that begin with edge-lstm-doctor-, or trust edge-lstm status",
        )
    return Finding("broker", "red", error.message, error.hint)


def _encryption(address: Address, config: MqttConfig, found: tuple[str, str] | None) -> Finding:
    if found is not None:
        version, ends = found
        return encryption(version, ssl.cert_time_to_seconds(ends) - time.time() if ends else None)
    if address.host in LOOPBACK:
        return Finding("encryption", "green", "none, and none is needed within this machine")
    what = "the password and all readings" if config.username is not None else "all readings"
    return Finding(
        "encryption",
        "amber",
        f"none: {what} can be read, and changed, on their way",
        "let the broker speak TLS, and give it a mqtts:// address",
    )


def encryption(version: str, left_s: float | None) -> Finding:
    """The version of TLS, and how long the broker's certificate is still good."""
    if left_s is None:
        return Finding("encryption", "green", version)
    if left_s < _SOON_S:
        found = f"{version}, but the broker's certificate ends in {left_s / 86_400:.0f} days"
        return Finding("encryption", "amber", found, "renew it before then: afterwards nobody connects")
    return Finding("encryption", "green", f"{version}, the broker's certificate is good for {left_s / 86_400:.0f} days")


def session(config: MqttConfig, granted: BrokerCapabilities, kept: bool) -> Finding:
    """Whether the broker keeps what arrives while the service is away, and for how long."""
    if not kept:
        return Finding(
            "session",
            "red",
            "not kept: readings sent while the service is away are lost",
            "let the broker keep sessions (mosquitto does by default), or use one that can",
        )
    expiry_s = granted.session_expiry_s
    if expiry_s is not None and expiry_s < config.session_expiry_s:
        return Finding(
            "session",
            "amber",
            f"kept for {duration(expiry_s)} only, of {duration(config.session_expiry_s)} asked for",
            "raise the broker's limit (mosquitto: persistent_client_expiration), or live with it",
        )
    how_long = f"for {duration(config.session_expiry_s)}" if config.protocol == "5" else "for as long as it likes"
    return Finding(
        "session", "green", f"kept {how_long}; whether over the broker's own restart, only its settings tell"
    )


def quality(wanted: int, most: int, topics: Sequence[str], granted: Sequence[int]) -> Finding:
    """The QoS that the broker grants, for publishing at all and for each topic of the readings."""
    if most < 1:
        return Finding(
            "subscription",
            "red",
            "the broker takes QoS 0 only, and so refuses the service, whose last will has QoS 1",
            "let it take QoS 1 (mosquitto: max_qos 2), or use a broker that does",
        )
    poor = [topic for topic, quality in zip(topics, granted, strict=True) if quality < wanted]
    if poor:
        return Finding(
            "subscription",
            "red",
            f"QoS 0 only for {', '.join(poor)}: readings may get lost",
            "let the broker's rules grant QoS 1 there",
        )
    return Finding("subscription", "green", f"QoS {wanted} for {', '.join(topics)}")


def limits(granted: BrokerCapabilities, prediction_bytes: int) -> Iterator[Finding]:
    """What may be on its way, and how large, and whether retained messages are kept (MQTT 5)."""
    most = granted.maximum_packet_size
    if most is not None and most < prediction_bytes:
        yield Finding(
            "packet size",
            "red",
            f"at most {most:,} bytes, and a prediction takes {prediction_bytes:,}",
            'raise the broker\'s limit (mosquitto: max_packet_size), or set output.format = "msgpack"',
        )
    else:
        room = "any size" if most is None else f"up to {most:,} bytes"
        yield Finding("packet size", "green", f"{room}; a prediction takes about {prediction_bytes:,}")
    window = granted.receive_maximum
    if window < _FEW:
        yield Finding(
            "window",
            "amber",
            f"{window} predictions on their way, which bounds throughput",
            "raise it at the broker (mosquitto: max_inflight_messages 1000)",
        )
    else:
        yield Finding("window", "green", f"{window:,} predictions on their way")
    if not granted.retains:
        yield Finding(
            "retained messages",
            "red",
            "not taken, and so the broker refuses the service, whose last will is one",
            "let the broker keep retained messages (mosquitto: retain_available true)",
        )
