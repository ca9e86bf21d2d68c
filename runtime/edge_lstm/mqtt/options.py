"""The options of a connection to a broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from edge_lstm.mqtt.credentials import Login, Tls

ClientKind = Literal["auto", "batching", "stock"]
LARGEST_PACKET = 8 << 20  # bytes


class Wanted(NamedTuple):
    """What a connection keeps of the messages that arrive."""

    largest_packet: int = LARGEST_PACKET  # bytes; of a larger one only the beginning is kept
    user_properties: frozenset[str] = frozenset()  # names; others are not read


USUALLY_WANTED = Wanted()


@dataclass(frozen=True)
class ConnectionOptions:
    """How a connection reaches its broker, logs in, subscribes, and reports that it is online."""

    protocol: Literal["5", "3.1.1"] = "5"
    tls: Tls | None = None  # for mqtts:// only; None: the system's authorities, and no client certificate
    login: Login | None = None  # None: anonymous
    qos: Literal[0, 1] = 1  # of the subscription
    receive_maximum: int = 1000  # messages that the broker may send before the first acknowledgement (MQTT 5)
    keepalive_s: int = 30
    status_topic: str | None = None  # gets "online" at every connect and "offline" at the end, both retained
    former_topics: Sequence[str] = ()  # filters that a kept session may still subscribe to, and no longer should
    expect_session: bool = False  # whether a session exists already, so that its loss is reported at the first connect
    wanted: Wanted = USUALLY_WANTED  # of the messages that arrive
    client: ClientKind = "auto"  # batching: our hot path; stock: paho's own; auto: batching if this paho allows it
