"""Waits for the next prediction of a service on its broker, as any subscriber would: the last check of a deployment.

python -m edge_lstm.deploy.first_prediction SERVICE.toml SECONDS

It prints topic and payload of the prediction; the exit code is 1 where none came.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.messages.topics import STREAM
from edge_lstm.mqtt.address import parse_address
from edge_lstm.mqtt.client.received import Message
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.service.config import ServiceConfig, read_service_config


def first_prediction(config: ServiceConfig, folder: Path, timeout_s: float) -> Message | None:
    """The next prediction, or None after `timeout_s`. Raises EdgeLstmError where the broker refuses."""
    mqtt = config.mqtt
    levels = ["+" if STREAM in level else level for level in config.output.topic.split("/")]
    connection = MqttConnection(
        parse_address(mqtt.url),
        topics=["/".join(levels)],
        options=mqtt.options(folder),
    )
    connection.open()
    deadline = time.monotonic() + timeout_s
    try:
        while time.monotonic() < deadline:
            for message in connection.poll(0.2):
                if not message.retained:
                    return message
    finally:
        connection.close()
    return None


if __name__ == "__main__":
    path = Path(sys.argv[1])
    try:
        message = first_prediction(read_service_config(path), path.parent, float(sys.argv[2]))
    except EdgeLstmError as error:
        sys.exit(f"error: {error}")
    if message is None:
        sys.exit(1)
    print(message.topic, message.payload.decode("utf-8", "replace"))
