"""Publishes a recording to a broker as its sensors would: in real time, faster, or without pauses."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.messages.decoder import STREAM, encode_reading, topic_faults
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.connection import MOST_UNCONFIRMED, MqttConnection
from edge_lstm.recordings.live.archived_forecasts import ArchivedForecasts
from edge_lstm.recordings.recording import Recording
from edge_lstm.streaming.reading import Reading

_LOST_AFTER_S = 30.0


def simulate(
    recording: Recording,
    address: Address,
    topic: str,
    speed: float | None,
    on_published: Callable[[Reading], None] = lambda reading: None,
    forecasts: Sequence[ArchivedForecasts] = (),
) -> int:
    """Publish every row as a JSON reading at QoS 1, and return their number after the broker has confirmed all.

    `topic` holds {stream}. `speed` is relative to the recording (None: no pauses). `on_published` is called with each
    reading. Before a reading come the `forecasts` of its row; their columns are not in the reading. Raises
    EdgeLstmError where the broker is not there, is silent for 30 s, or refuses a reading.
    """
    for option, pattern in [("--topic", topic), *(("--forecast", one.topic) for one in forecasts)]:
        if faults := [message for _, message in topic_faults(pattern, wildcards=False)]:
            raise EdgeLstmError(f"{option}: {faults[0]}", f"write it like sensors/{STREAM}")
    connection = MqttConnection(address)
    connection.open()
    published = 0
    try:
        begun, first = time.monotonic(), None
        for reading in recording.readings():
            first = reading.time if first is None else first
            due = begun if speed is None else begun + (reading.time - first) / speed
            _wait(connection, due)
            for one in forecasts:
                if payload := one.payload(reading):
                    connection.publish(one.topic.replace(STREAM, reading.stream), payload)
                    _wait_for_confirmations(connection, MOST_UNCONFIRMED - 1)
                reading = one.without(reading)
            connection.publish(topic.replace(STREAM, reading.stream), encode_reading(reading, recording.categories))
            on_published(reading)
            published += 1
        _wait_for_confirmations(connection, 0)
        _require_accepted(connection)
    finally:
        connection.close()
    return published


def _require_accepted(connection: MqttConnection) -> None:
    """Raises EdgeLstmError if the broker did not take every reading."""
    refused, too_large = connection.counts["refused"], connection.counts["too_large"]
    if refused or too_large:
        reasons = "; ".join(str(fault["error"]) for fault in connection.take_faults())
        raise EdgeLstmError(
            f"expected {connection.address} to take every reading, found {refused} refused and {too_large} too large "
            f"({reasons})",
            "check the rules and limits of the broker for this user and --topic",
        )


def _wait(connection: MqttConnection, due: float) -> None:
    """Wait until `due` (monotonic), and until the broker has confirmed enough messages to send more."""
    _wait_for_confirmations(connection, MOST_UNCONFIRMED - 1)
    while (pause := due - time.monotonic()) > 0:
        connection.poll(min(pause, 0.2))
    connection.poll(0.0)


def _wait_for_confirmations(connection: MqttConnection, most: int) -> None:
    """Wait until at most `most` messages are unconfirmed."""
    last_progress, left = time.monotonic(), len(connection.unconfirmed)
    while len(connection.unconfirmed) > most:
        connection.poll(0.1)
        if len(connection.unconfirmed) != left:
            last_progress, left = time.monotonic(), len(connection.unconfirmed)
        elif time.monotonic() - last_progress > _LOST_AFTER_S:
            silence = f"{_LOST_AFTER_S:.0f} s of silence, {left} unconfirmed"
            raise EdgeLstmError(
                f"expected {connection.address} to confirm readings, found {silence}",
                "check the broker and start again",
            )
