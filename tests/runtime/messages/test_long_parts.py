"""Topics whose part has several levels, and topics that a mapping ignores."""

from __future__ import annotations

import pytest

from edge_lstm.foundation.config import from_mapping
from edge_lstm.foundation.errors import ConfigError
from edge_lstm.messages.decoder import Decoder
from edge_lstm.messages.discovery.found_keys import found_keys
from edge_lstm.messages.mapping import InputMapping
from edge_lstm.messages.topics import TopicPattern, filters_of

MESSAGE = b'{"temperature": 21.5}'


@pytest.mark.parametrize(
    ("pattern", "topic", "stream"),
    [
        ("zigbee2mqtt/{stream...}", "zigbee2mqtt/attic", "attic"),
        ("zigbee2mqtt/{stream...}", "zigbee2mqtt/kitchen/sink/sensor", "kitchen.sink.sensor"),
        ("zigbee2mqtt/{stream...}", "zigbee2mqtt", None),
        ("zigbee2mqtt/{stream...}", "zigbee2mqtt/", None),
        ("zigbee2mqtt/{stream...}", "zigbee2mqtt/kitchen//sensor", None),
        ("site/{stream...}/data", "site/hall/press 1/data", "hall.press 1"),
        ("site/{stream...}/data", "site/data", None),
        ("site/{stream...}/data", "site/hall/press 1/state", None),
        ("{stream...}", "a/b", "a.b"),
    ],
)
def test_a_part_of_several_levels_is_joined_by_points(pattern: str, topic: str, stream: str | None) -> None:
    found = TopicPattern(pattern).match(topic)
    assert found == (None if stream is None else {"stream": stream})


def test_the_filter_of_a_long_part_covers_what_follows() -> None:
    assert filters_of(["z/{stream...}", "z/{stream}", "site/{line}/{stream...}/data"]) == ["z/#", "site/+/#"]


@pytest.mark.parametrize(
    "topic",
    ["a/{stream...}/{b...}", "a/{stream...}/#", "a/x{stream...}", "a/{stream...}/{stream}", "{stream}/{value...}"],
)
def test_what_has_two_readings_is_no_topic(topic: str) -> None:
    with pytest.raises(ConfigError, match="topic"):
        from_mapping({"topic": topic}, InputMapping, "[input]")


def test_zigbee2mqtt_reads_names_with_slashes_and_nothing_else() -> None:
    mapping = from_mapping({"preset": "zigbee2mqtt"}, InputMapping, "[input]")
    assert mapping.topic_filters == ["zigbee2mqtt/#"]
    decoder = Decoder(mapping, ["temperature"])
    for name, stream in (("attic", "attic"), ("kitchen/sink", "kitchen.sink")):
        (reading,) = decoder.readings(f"zigbee2mqtt/{name}", MESSAGE, {}, 5.0)
        assert reading.stream == stream
    for other in ("bridge/state", "bridge/request/device", "attic/availability", "kitchen/sink/set", "attic/get/state"):
        topic = f"zigbee2mqtt/{other}"
        assert decoder.readings(topic, MESSAGE, {}, 5.0) == []
        assert found_keys(mapping, topic, MESSAGE) == {}
    assert found_keys(mapping, "zigbee2mqtt/kitchen/sink", MESSAGE) == {"temperature": 21.5}
