"""Whether the service may publish to each of its topics, and receives its readings: found with trial messages.

They are empty and not retained, so they clear nothing and hold no reading and no prediction. MQTT 5 is used where the
broker has it, since MQTT 3.1.1 has no answer for a message that is denied.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_lstm.bundle.contract import Contract
from edge_lstm.diagnostics.finding import Finding
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.messages.topics import STREAM, matches_filter, part_names
from edge_lstm.mqtt.address import parse_address
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.service.codecs import forecast_decoder
from edge_lstm.service.config import MqttConfig, ServiceConfig
from edge_lstm.service.feedback.config import answers_topic

_OWN_TOPICS = ("status", "stats", "errors", "refusal", "events")
_MOST_STREAMS = 3  # that are known from the state database
_ANSWER_S, _ARRIVAL_S = 3.0, 1.5
_REFUSED = "broker refuses what we publish: "
_ALLOW_WRITE = "allow the service's user to publish there in the broker's rules (mosquitto: topic write, in acl_file)"
_ALLOW_READ = "allow the service's user to read there in the broker's rules (mosquitto: topic read, in acl_file)"


@dataclass(frozen=True)
class _Answer:
    """What the broker said to a trial message."""

    refused: str  # why; empty: it confirmed the message
    returned: bool = False  # the message, or another one that the topic filter matches, came back


def publishing(config: ServiceConfig, folder: Path, state: Path) -> Iterator[Finding]:
    """Whether the broker takes messages to each topic. `state` is the state database, for the names of streams."""
    mqtt = _newest_protocol(config.mqtt, folder)
    answers = {topic: _publish(mqtt, folder, topic).refused for topic in topics_of(config, state)}
    denied = [f"{topic} ({reason})" for topic, reason in answers.items() if reason]
    if denied:
        yield Finding("publish", "red", f"the broker refuses {', '.join(denied)}", _ALLOW_WRITE)
    elif mqtt.protocol == "5":
        yield Finding("publish", "green", f"{config.output.topic} and the status topics")
    else:
        found = "MQTT 3.1.1 does not say whether the broker takes a message"
        yield Finding("publish", "unknown", found, "use a broker with MQTT 5, or watch the topic of the predictions")


def receiving(config: ServiceConfig, folder: Path) -> Iterator[Finding]:
    """Whether messages of each topic filter of the readings are delivered."""
    mqtt = _newest_protocol(config.mqtt, folder)
    for topic_filter in config.subscriptions:
        yield _reading(mqtt, folder, topic_filter)


def forecasts(config: ServiceConfig, folder: Path, contract: Contract) -> Iterator[Finding]:
    """Whether forecasts come that the bundle takes: retained ones come at once, others seldom."""
    decoder = forecast_decoder(config, contract)
    for topic_filter in [] if decoder is None else decoder.topic_filters:
        yield _forecast(config.mqtt, folder, topic_filter)


def topics_of(config: ServiceConfig, state: Path) -> list[str]:
    """The topics that the service publishes to; for those with a stream, of the streams that the database knows."""
    name = config.input.name
    fixed = [name] if name is not None and not part_names(name) else []
    streams = fixed or known_streams(state) or ["edge-lstm-doctor"]
    predictions = dict.fromkeys(config.output.topic.replace(STREAM, stream) for stream in streams)
    answers = [answers_topic(config.mqtt.client_id)] if config.feedback.enabled else []
    return [*predictions, *(f"edge-lstm/{config.mqtt.client_id}/{own}" for own in _OWN_TOPICS), *answers]


def known_streams(state: Path) -> list[str]:
    """Some streams of a state database; none if it cannot be read now."""
    with contextlib.suppress(sqlite3.Error):
        database = sqlite3.connect(f"{state.absolute().as_uri()}?mode=ro", uri=True, timeout=0.2)
        with contextlib.closing(database):
            return [name for (name,) in database.execute("select stream from streams limit ?", (_MOST_STREAMS,))]
    return []


def _newest_protocol(config: MqttConfig, folder: Path) -> MqttConfig:
    """The config with MQTT 5 if the broker has it."""
    newest = replace(config, protocol="5")
    connection = _connection(newest, folder)
    try:
        connection.open(_ANSWER_S)
    except EdgeLstmError:
        return config
    finally:
        connection.close(0.2)
    return newest


def _connection(config: MqttConfig, folder: Path, topics: Sequence[str] = ()) -> MqttConnection:
    name = f"edge-lstm-doctor-{secrets.token_hex(4)}"
    return MqttConnection(
        parse_address(config.url), name, topics, options=replace(config.options(folder), qos=config.qos)
    )


def _publish(config: MqttConfig, folder: Path, topic: str, topic_filter: str = "") -> _Answer:
    """Publish a trial message; with a filter, subscribe to it first, and wait for what comes."""
    connection = _connection(config, folder, [topic_filter] if topic_filter else [])
    arrived: list[str] = []
    try:
        _drive(connection, lambda: connection.connected, arrived)
        if topic_filter:
            _drive(connection, lambda: bool(arrived), arrived, _ARRIVAL_S)  # a reading or retained message does as well
            if arrived:
                return _Answer("", returned=True)
        connection.publish(topic, b"")
        _drive(connection, lambda: not connection.unconfirmed, arrived)
        if connection.unconfirmed:
            return _Answer("ends the connection" if connection.connection_count > 1 else "no answer")
        faults = [str(fault["error"]) for fault in connection.take_faults()]
        if refused := [fault.removeprefix(_REFUSED) for fault in faults if fault.startswith(_REFUSED)]:
            return _Answer(refused[0], bool(arrived))
        if topic_filter:
            _drive(connection, lambda: bool(arrived), arrived, _ARRIVAL_S)
        return _Answer("", bool(arrived))
    finally:
        connection.close(0.2)


def _drive(connection: MqttConnection, done: Callable[[], Any], arrived: list[str], most_s: float = _ANSWER_S) -> None:
    """Poll until it is done, or for `most_s` seconds."""
    deadline = time.monotonic() + most_s
    while not done() and time.monotonic() < deadline:
        messages = connection.poll(0.05)
        connection.acknowledge(messages)
        arrived += [message.topic for message in messages]


def _reading(config: MqttConfig, folder: Path, topic_filter: str) -> Finding:
    """Whether messages of the topic filter are delivered."""
    topic = topic_in(topic_filter)
    answer = _publish(config, folder, topic, topic_filter)
    if answer.returned:
        return Finding("readings", "green", f"messages of {topic_filter} are delivered")
    if answer.refused or config.protocol != "5":
        reason = f": the broker refuses a trial message ({answer.refused})" if answer.refused else ""
        found = f"no message of {topic_filter} came, and none can be sent to find out{reason}"
        return Finding("readings", "unknown", found, "run doctor again while a device publishes")
    found = f"the broker accepts the subscription to {topic_filter} and delivers nothing: a message to {topic} is lost"
    return Finding("readings", "red", found, _ALLOW_READ)


def _forecast(config: MqttConfig, folder: Path, topic_filter: str) -> Finding:
    """Whether a message of the topic filter comes."""
    connection = _connection(config, folder, [topic_filter])
    arrived: list[str] = []
    try:
        _drive(connection, lambda: connection.connected, arrived)
        _drive(connection, lambda: bool(arrived), arrived, _ARRIVAL_S)
    finally:
        connection.close(0.2)
    if arrived:
        return Finding("forecasts", "green", f"a forecast came on {arrived[0]}")
    found = f"no forecast came on {topic_filter} in {_ARRIVAL_S:g} s: until one comes, predictions are degraded"
    return Finding(
        "forecasts", "amber", found, "publish forecasts with the retain flag: a new service gets the last one"
    )


def topic_in(topic_filter: str) -> str:
    """A topic that the filter matches, with a name of the doctor's own in place of wildcards."""
    levels = topic_filter.split("/")
    if levels[0] == "$share":
        levels = levels[2:]
    topic = "/".join("edge-lstm-doctor" if level in ("+", "#") else level for level in levels)
    assert matches_filter(topic, "/".join(levels))
    return topic
