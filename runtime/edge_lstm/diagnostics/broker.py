"""Checks of the broker: whether it accepts a connection, and what it grants, found by real connections.

They use a client id of their own: with that of the service they would end the service's connection.
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

_SMALL_WINDOW = 20  # unacknowledged predictions: the default of mosquitto, some thousand per second on loopback
_EXPIRES_SOON_S = 30 * 86_400.0
_TIMEOUT_S = 10.0
_STATS_BYTES = 1000  # of the packet with the statistics, about


@dataclass(frozen=True)
class _ConnectionFacts:
    """What a connection showed."""

    granted: BrokerCapabilities
    granted_qos: Sequence[int]
    encryption: tuple[str, str] | None


def credentials(config: MqttConfig, folder: Path) -> Finding:
    """Whether certificates and the password can be read; a credential of systemd exists only in its unit."""
    name = config.password_credential
    if name is not None and not os.environ.get("CREDENTIALS_DIRECTORY"):
        return Finding(
            "access",
            "unknown",
            f"the password is the credential {name} of systemd, which exists only in the unit",
            f"run systemd-run --pipe -p LoadCredential={name}:PATH edge-lstm doctor SERVICE.toml; or edge-lstm status",
        )
    try:
        config.check_files(folder)
    except EdgeLstmError as error:
        return Finding("access", "red", error.message, error.hint)
    methods = [
        "a password" if config.password_file or name else "a user name" if config.username else "",
        "a certificate" if config.cert_file else "",
    ]
    login = " and ".join(filter(None, methods))
    return Finding("access", "green", f"login with {login}" if login else "anonymous login")


def broker(config: MqttConfig, folder: Path, topics: Sequence[str], prediction_bytes: int) -> Iterator[Finding]:
    """Findings about the broker of `config`, whose files are in `folder`.

    `topics` are the topic filters of the readings; `prediction_bytes` is the size of a prediction's packet. It connects
    three times: to start a session, to see whether the broker kept it, and, without a session, to subscribe.
    """
    address = parse_address(config.url)
    name = f"edge-lstm-doctor-{secrets.token_hex(4)}"
    begun = time.monotonic()
    try:
        first = _connect(config, folder, name, config.session_expiry_s)
    except EdgeLstmError as error:
        yield _refused(error)
        return
    took_ms = 1000 * (time.monotonic() - begun)
    yield Finding("broker", "green", f"{address} accepts MQTT {config.protocol}, after {took_ms:.0f} ms")
    yield _encryption(address, config, first.encryption)
    granted = first.granted
    if config.session_expiry_s:
        try:
            again = _connect(config, folder, name, config.session_expiry_s)
            yield session(config, granted, again.granted.session_present)
        except EdgeLstmError as error:
            yield Finding("session", "red", error.message, error.hint)
    else:
        yield Finding(
            "session",
            "amber",
            "not requested: readings sent while the service is offline are lost",
            "leave out session_expiry_s, or set it to the longest time offline, in seconds",
        )
    try:
        last = _connect(config, folder, name, 0, topics)  # which also ends the session of the first two
        yield subscription(config.qos, granted.maximum_qos, topics, last.granted_qos)
    except EdgeLstmError as error:
        yield Finding("subscription", "red", error.message, "check the topics of [input], and the broker's rules")
    if config.protocol == "5":
        yield from limits(granted, prediction_bytes)
    else:
        yield Finding("limits", "unknown", "MQTT 3.1.1 does not report packet size and window", 'set protocol = "5"')


def _connect(
    config: MqttConfig, folder: Path, name: str, expiry_s: int, topics: Sequence[str] = ()
) -> _ConnectionFacts:
    """Connect and disconnect. Raises EdgeLstmError where the broker is not there or refuses."""
    connection = MqttConnection(
        parse_address(config.url),
        name,
        topics,
        session_expiry_s=expiry_s,
        options=replace(config.options(folder), qos=config.qos),
    )
    try:
        connection.open(_TIMEOUT_S)
        assert connection.granted is not None  # set by the CONNACK that `open` waits for
        return _ConnectionFacts(connection.granted, connection.granted_qos, connection.encryption)
    finally:
        connection.close()


def _refused(error: EdgeLstmError) -> Finding:
    if "identifier" in error.message.lower():
        return Finding(
            "broker",
            "unknown",
            f"it accepts only known client ids, and refused that of the doctor: {error.message}",
            "allow client ids that begin with edge-lstm-doctor-, or use edge-lstm status",
        )
    return Finding("broker", "red", error.message, error.hint)


def _encryption(address: Address, config: MqttConfig, found: tuple[str, str] | None) -> Finding:
    if found is not None:
        version, ends = found
        return encryption(version, ssl.cert_time_to_seconds(ends) - time.time() if ends else None)
    if address.host in LOOPBACK:
        return Finding("encryption", "green", "none; not needed on the same machine")
    what = "the password and all readings" if config.username is not None else "all readings"
    return Finding(
        "encryption",
        "amber",
        f"none: {what} can be read and changed on the network",
        "enable TLS on the broker, and use a mqtts:// address",
    )


def encryption(version: str, left_s: float | None) -> Finding:
    """The version of TLS, and how long the broker's certificate is still valid."""
    if left_s is None:
        return Finding("encryption", "green", version)
    if left_s < _EXPIRES_SOON_S:
        found = f"{version}, but the broker's certificate ends in {left_s / 86_400:.0f} days"
        return Finding("encryption", "amber", found, "renew it before: afterwards no client can connect")
    return Finding(
        "encryption", "green", f"{version}, the broker's certificate is valid for {left_s / 86_400:.0f} days"
    )


def session(config: MqttConfig, granted: BrokerCapabilities, kept: bool) -> Finding:
    """Whether the broker keeps readings while the service is offline, and for how long."""
    if not kept:
        return Finding(
            "session",
            "red",
            "not kept: readings sent while the service is offline are lost",
            "enable sessions on the broker (mosquitto has them by default), or use another one",
        )
    expiry_s = granted.session_expiry_s
    if expiry_s is not None and expiry_s < config.session_expiry_s:
        return Finding(
            "session",
            "amber",
            f"kept for only {duration(expiry_s)}, of {duration(config.session_expiry_s)} requested",
            "raise the limit of the broker (mosquitto: persistent_client_expiration), or accept it",
        )
    how_long = f"for {duration(config.session_expiry_s)}" if config.protocol == "5" else "without a stated limit"
    return Finding("session", "green", f"kept {how_long}; the broker's settings decide whether it survives a restart")


def subscription(wanted: int, most: int, topics: Sequence[str], granted: Sequence[int]) -> Finding:
    """The QoS that the broker grants, for publishing and for each topic of the readings."""
    if most < 1:
        return Finding(
            "subscription",
            "red",
            "the broker allows only QoS 0, and so refuses the service, whose last will has QoS 1",
            "allow QoS 1 (mosquitto: max_qos 2), or use another broker",
        )
    poor = [topic for topic, quality in zip(topics, granted, strict=True) if quality < wanted]
    if poor:
        return Finding(
            "subscription",
            "red",
            f"only QoS 0 for {', '.join(poor)}: readings may get lost",
            "grant QoS 1 there in the access rules of the broker",
        )
    return Finding("subscription", "green", f"QoS {wanted} for {', '.join(topics)}")


def limits(granted: BrokerCapabilities, prediction_bytes: int) -> Iterator[Finding]:
    """The largest packet, the largest number of unacknowledged messages, and retained messages (MQTT 5)."""
    most = granted.maximum_packet_size
    if most is not None and most < prediction_bytes:
        yield Finding(
            "packet size",
            "red",
            f"at most {most:,} bytes, and a prediction has {prediction_bytes:,}",
            'raise the broker\'s limit (mosquitto: max_packet_size), or set output.format = "msgpack"',
        )
    elif most is not None and most < _STATS_BYTES:
        found = f"up to {most:,} bytes; a prediction has about {prediction_bytes:,}, the statistics {_STATS_BYTES:,}"
        yield Finding(
            "packet size",
            "amber",
            f"{found}: the statistics are sent with less content",
            "raise the broker's limit (mosquitto: max_packet_size)",
        )
    else:
        allowed = "any size" if most is None else f"up to {most:,} bytes"
        yield Finding("packet size", "green", f"{allowed}; a prediction has about {prediction_bytes:,} bytes")
    window = granted.receive_maximum
    if window < _SMALL_WINDOW:
        yield Finding(
            "window",
            "amber",
            f"{window} unacknowledged predictions, which limits throughput",
            "raise it on the broker (mosquitto: max_inflight_messages 1000)",
        )
    else:
        yield Finding("window", "green", f"{window:,} unacknowledged predictions")
    if not granted.retains:
        yield Finding(
            "retained messages",
            "red",
            "not allowed, and so the broker refuses the service, whose last will is one",
            "allow retained messages on the broker (mosquitto: retain_available true)",
        )
