"""How committed messages are sent: predictions as [output] says, messages about events as plain ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Literal, Protocol

from edge_lstm.messages.mapping import OutputMapping
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.mqtt.send_window import PublishProperties
from edge_lstm.service.feedback.config import answers_topic
from edge_lstm.service.processing.outbox import Outgoing


class Publish(Protocol):
    """Sends messages in order; returns a number for each at QoS 1, and none at QoS 0."""

    def __call__(self, messages: Sequence[Outgoing], qos: Literal[0, 1] = 1) -> Sequence[int]: ...


def events_topic(client_id: str) -> str:
    """The topic of messages about events."""
    return f"edge-lstm/{client_id}/events"


def errors_topic(client_id: str) -> str:
    """The topic of what went wrong, such as a sensor that died."""
    return f"edge-lstm/{client_id}/errors"


def publication(
    mqtt: MqttConnection, output: OutputMapping, properties: PublishProperties | None, client_id: str
) -> Publish:
    """A function that sends the messages of a batch; those about events, errors and commands are the last ones."""
    plain = (events_topic(client_id), errors_topic(client_id), answers_topic(client_id))

    def publish(messages: Sequence[Outgoing], qos: Literal[0, 1] = 1) -> Sequence[int]:
        count = len(messages)
        while count and messages[count - 1][0] in plain:
            count -= 1
        numbers = mqtt.publish_many(
            messages[:count], qos=qos, retain=output.retain, properties=properties, family=output.topic
        )
        for topic, of_topic in groupby(messages[count:], itemgetter(0)):
            numbers = [*numbers, *mqtt.publish_many(list(of_topic), qos=qos, family=topic)]
        return numbers

    return publish
