"""The computed size of a PUBLISH packet is that of the packet that the client writes."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from edge_lstm.mqtt.client.batching_client import BatchingClient
from edge_lstm.mqtt.client.packet_size import publish_bytes, space
from edge_lstm.mqtt.send_window import PublishProperties, paho_properties

PROPERTIES = PublishProperties(60, "application/json", (("site", "north"),))


def written(payload: bytes, properties: PublishProperties | None, version_5: bool) -> int:
    protocol = MQTTProtocolVersion.MQTTv5 if version_5 else MQTTProtocolVersion.MQTTv311
    client = BatchingClient("c", protocol, True, lambda _: None, lambda _: None, lambda *_: None)
    broker, ours = socket.socketpair()
    with closing(broker), closing(ours):
        client._sock = ours
        packed = paho_properties(properties) if properties is not None and version_5 else None
        client.publish_many([(b"t/in", payload)], 1, properties=packed)
        size = len(broker.recv(1 << 20))
        client._sock = None
    return size


@pytest.mark.parametrize("version_5", [True, False])
@pytest.mark.parametrize("properties", [None, PROPERTIES])
@pytest.mark.parametrize("size", [0, 118, 119, 120, 121, 16_370, 16_376, 16_377, 16_378, 40_000])
def test_the_size_of_a_packet_is_known_before_it_is_written(
    size: int, properties: PublishProperties | None, version_5: bool
) -> None:
    assert publish_bytes(b"t/in", b"x" * size, properties, version_5) == written(b"x" * size, properties, version_5)


@pytest.mark.parametrize("limit", [20, 128, 129, 130, 131, 200, 16_386, 16_387, 16_388, 16_389, 70_000])
def test_the_largest_message_that_fits_makes_a_packet_within_the_limit(limit: int) -> None:
    payload = b"x" * (space(limit, None, True) - len(b"t/in"))
    assert publish_bytes(b"t/in", payload, None, True) in (limit, limit - 1)  # one byte less: the length has more bytes
    assert publish_bytes(b"t/in", payload + b"x", None, True) > limit
