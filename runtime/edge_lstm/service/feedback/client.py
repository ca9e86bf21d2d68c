"""Sends one command to a running service over its broker, and waits for the answer."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.mqtt.address import parse_address
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.service.config import ServiceConfig
from edge_lstm.service.feedback.config import answers_topic, feedback_topic


def ask(config: ServiceConfig, folder: Path, command: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """Publish a command (`commands.KEYS`, with its id) and return the answer of the service.

    It logs in as the service does, in another session. Raises EdgeLstmError if the config takes no commands, the broker
    is unreachable or refuses, or no answer comes within `timeout_s`.
    """
    if not config.feedback.enabled:
        raise EdgeLstmError(
            "expected a service that takes commands, found [feedback] enabled = false",
            "set enabled = true under [feedback] in the service config, and reload the service",
        )
    client_id = config.mqtt.client_id
    connection = MqttConnection(
        parse_address(config.mqtt.url), topics=[answers_topic(client_id)], options=config.mqtt.options(folder)
    )
    connection.open()
    deadline = time.monotonic() + timeout_s
    is_sent = False
    try:
        while time.monotonic() < deadline:
            if connection.connected and connection.granted and not is_sent:  # subscribed, before the answer comes
                connection.publish(feedback_topic(client_id), json.dumps(command))
                is_sent = True
            messages = connection.poll(0.1)
            connection.acknowledge(messages)
            for message in messages:
                if (answer := _answer(message.payload)) is not None and answer.get("id") == command["id"]:
                    return answer
            for fault in connection.take_faults():
                raise EdgeLstmError(f"expected to publish a command, found: {fault['error']}", "ask for write access")
    finally:
        connection.close()
    raise EdgeLstmError(
        f"expected an answer on {answers_topic(client_id)} within {timeout_s:g} s, found none",
        "check with edge-lstm status that the service runs, and its log; send the command again with the same --id",
    )


def _answer(payload: bytes) -> dict[str, Any] | None:
    """None: the payload of another program."""
    try:
        found = json.loads(payload)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
