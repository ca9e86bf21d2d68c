"""Predictions are sent as [output] says, and messages about events as plain ones."""

from __future__ import annotations

from typing import Any

from edge_lstm.messages.mapping import OutputMapping
from edge_lstm.mqtt.send_window import PublishProperties
from edge_lstm.service.processing.publication import events_topic, publication

EVENTS = events_topic("pumps")
PREDICTION, EVENT = ("predictions/a", b"1"), (EVENTS, b"2")


class Recorded:
    """A connection that numbers the messages it is given, and keeps how each was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[tuple[str, bytes], dict[str, Any]]] = []

    def publish_many(self, items: list[tuple[str, bytes]], **how: Any) -> list[int]:
        first = len(self.sent) + 1
        self.sent += [(item, how) for item in items]
        return [*range(first, first + len(items))]


def test_only_predictions_are_retained_and_have_properties() -> None:
    connection, properties = Recorded(), PublishProperties(60)
    publish = publication(connection, OutputMapping(retain=True), properties, "pumps")  # type: ignore[arg-type]
    assert EVENTS == "edge-lstm/pumps/events"
    assert list(publish([PREDICTION, PREDICTION, EVENT, EVENT])) == [1, 2, 3, 4]
    assert list(publish([PREDICTION])) == [5]
    assert list(publish([EVENT])) == [6]
    assert list(publish([])) == []
    for item, how in connection.sent:
        assert (how.get("retain", False), how.get("properties"), how["family"]) == (
            (True, properties, "predictions/{stream}") if item == PREDICTION else (False, None, EVENTS)
        )
    publish([PREDICTION, EVENT], qos=0)
    assert [how["qos"] for _, how in connection.sent[-2:]] == [0, 0]
