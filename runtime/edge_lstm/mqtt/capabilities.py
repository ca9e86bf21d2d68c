"""What a broker allows a client: the limits in its answer to a connect."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BrokerCapabilities:
    """What the broker stated when it accepted us (MQTT 5, 3.2.2.3), or the standard's value if it stated nothing."""

    session_present: bool
    session_expiry_s: int | None  # None: what we asked for
    receive_maximum: int
    maximum_qos: int
    maximum_packet_size: int | None  # None: no limit
    retains: bool
    wildcards: bool

    @staticmethod
    def of(session_present: bool, properties: Any) -> BrokerCapabilities:
        """From paho's CONNACK properties (None with MQTT 3.1.1)."""
        stated = functools.partial(getattr, properties)
        return BrokerCapabilities(
            session_present,
            stated("SessionExpiryInterval", None),
            stated("ReceiveMaximum", 65_535),
            stated("MaximumQoS", 2),
            stated("MaximumPacketSize", None),
            bool(stated("RetainAvailable", 1)),
            bool(stated("WildcardSubscriptionAvailable", 1)),
        )
