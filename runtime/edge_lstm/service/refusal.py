"""A refusal, where whoever watches the broker sees it: retained, until a start or reload that is not refused."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from pathlib import Path
from typing import Any

from edge_lstm.backends.selftest import SelfTestError
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.mqtt.address import parse_address
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.service.config import MqttConfig

log = logging.getLogger(__name__)

_PATIENCE_S = 3.0  # with a broker that may not be there: the refusal itself must not wait for it


def refusal_topic(client_id: str) -> str:
    """Where it stands; docs/predictions.md says so too."""
    return f"edge-lstm/{client_id}/refusal"


def refusal_payload(error: EdgeLstmError | None) -> bytes:
    """What stands there, as JSON; nothing, which clears the topic, where nothing is refused."""
    if error is None:
        return b""
    facts: dict[str, Any] = {"time": round(time.time(), 3), "error": error.message, "hint": error.hint}
    if isinstance(error, SelfTestError):
        verdict = error.verdict
        facts |= {"backend": verdict.backend, "scheme": verdict.scheme, "first_step": verdict.first_step}
    return json.dumps(facts).encode()


def announce(mqtt: MqttConfig, folder: Path, error: EdgeLstmError) -> None:
    """Put the refusal of a service that does not start at its broker, in a session of its own.

    The service's own session, and what waits in it, are left alone. A broker that cannot be reached is logged.
    """
    try:
        connection = MqttConnection(parse_address(mqtt.url), options=mqtt.options(folder))
        connection.open(_PATIENCE_S)
        with contextlib.closing(connection):
            connection.publish(refusal_topic(mqtt.client_id), refusal_payload(error), retain=True)
            deadline = time.monotonic() + _PATIENCE_S
            while connection.unconfirmed and time.monotonic() < deadline:
                connection.poll(0.05)
    except EdgeLstmError as fault:
        log.warning("refusal not published: %s", fault.message)
