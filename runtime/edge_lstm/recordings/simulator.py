"""A recording played into a broker as if its sensors were there, at their own pace, faster, or as fast as it goes."""

from __future__ import annotations

import time
from collections.abc import Callable

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.messages.decoder import STREAM, encode_reading, topic_faults
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.connection import MOST_UNCONFIRMED, MqttConnection
from edge_lstm.recordings.recording import Recording
from edge_lstm.streaming.reading import Reading

_LOST_AFTER_S = 30.0


def simulate(
    recording: Recording,
    address: Address,
    topic: str,
    speed: float | None,
    on_published: Callable[[Reading], None] = lambda reading: None,
) -> int:
    """Publish every row as a JSON reading at QoS 1; return how many the broker has confirmed: all of them.

    `topic` holds {stream}; `speed` is how much faster than the recording time runs (None: no pauses);
    `on_published` is called with each reading as it is sent. Raises EdgeLstmError where the broker is not there, or
    goes away for 30 s.
    """
    faults = [message for _, message in topic_faults(topic, wildcards=False)]
    if faults:
        raise EdgeLstmError(f"--topic: {faults[0]}", f"write it like sensors/{STREAM}")
    connection = MqttConnection(address)
    connection.open()
    published = 0
    try:
        begun, first = time.monotonic(), None
        for reading in recording.readings():
            first = reading.time if first is None else first
            due = begun if speed is None else begun + (reading.time - first) / speed
            _wait(connection, due)
            connection.publish(topic.replace(STREAM, reading.stream), encode_reading(reading, recording.categories))
            on_published(reading)
            published += 1
        _settle(connection, 0)
    finally:
        connection.close()
    return published


def _wait(connection: MqttConnection, due: float) -> None:
    """Until `due` (monotonic) and until the broker has confirmed enough to send more."""
    _settle(connection, MOST_UNCONFIRMED - 1)
    while (pause := due - time.monotonic()) > 0:
        connection.poll(min(pause, 0.2))
    connection.poll(0.0)


def _settle(connection: MqttConnection, most: int) -> None:
    """Until at most `most` messages are unconfirmed."""
    heard, left = time.monotonic(), len(connection.unconfirmed)
    while len(connection.unconfirmed) > most:
        connection.poll(0.1)
        if len(connection.unconfirmed) != left:
            heard, left = time.monotonic(), len(connection.unconfirmed)
        elif time.monotonic() - heard > _LOST_AFTER_S:
            silence = f"{_LOST_AFTER_S:.0f} s of silence, {left} unconfirmed"
            raise EdgeLstmError(
                f"expected {connection.address} to confirm readings, found {silence}",
                "check the broker and start again",
            )
