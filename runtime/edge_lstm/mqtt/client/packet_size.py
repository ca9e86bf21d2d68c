"""The size of a PUBLISH packet, against the largest one that a broker takes (MQTT 5, 3.2.2.3.6)."""

from __future__ import annotations

import functools

from edge_lstm.mqtt.send_window import PublishProperties, paho_properties

# (bytes of the remaining length, largest remaining length they hold): MQTT 5, 1.5.5
_LENGTHS = ((1, 127), (2, 16_383), (3, 2_097_151), (4, 268_435_455))


def publish_bytes(topic: bytes, payload: bytes, properties: PublishProperties | None, version_5: bool) -> int:
    """The size of the packet at QoS 1; at QoS 0 it is two bytes smaller."""
    remaining = len(topic) + len(payload) + _beside(properties, version_5)
    return 1 + next(width for width, most in _LENGTHS if remaining <= most or width == 4) + remaining


def space(limit: int, properties: PublishProperties | None, version_5: bool) -> int:
    """How many bytes topic and payload may have together in a packet of at most `limit` bytes at QoS 1."""
    remaining = max(min(limit - 1 - width, most) for width, most in _LENGTHS)
    return remaining - _beside(properties, version_5)


@functools.lru_cache(maxsize=64)
def _beside(properties: PublishProperties | None, version_5: bool) -> int:
    """The bytes of a packet after its header that are neither topic nor payload."""
    lengths_and_id = 4
    if not version_5:
        return lengths_and_id
    if properties is None:
        return lengths_and_id + 1
    return lengths_and_id + len(paho_properties(properties).pack())  # type: ignore[no-untyped-call]
