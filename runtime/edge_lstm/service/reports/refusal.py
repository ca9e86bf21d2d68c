"""The refusal of a bundle or config, published at the broker and retained until a start or reload succeeds."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from pathlib import Path
from typing import Any

from edge_lstm.backends.selftest import SelfTestError
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import escaped
from edge_lstm.mqtt.address import parse_address
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.service.config import MqttConfig
from edge_lstm.service.reports.status_payload import status_payload

log = logging.getLogger(__name__)

_TIMEOUT_S = 3.0  # the broker may be away, and the refusal itself must not wait for it


def refusal_topic(client_id: str) -> str:
    """The topic of refusals; see docs/predictions.md."""
    return f"edge-lstm/{client_id}/refusal"


def refusal_facts(error: EdgeLstmError | None) -> dict[str, Any]:
    """The content of the refusal topic. Empty if nothing is refused: an empty message clears the topic."""
    if error is None:
        return {}
    facts: dict[str, Any] = {
        "time": round(time.time(), 3),
        "error": escaped(error.message),
        "hint": escaped(error.hint),
    }
    if isinstance(error, SelfTestError):
        verdict = error.verdict
        facts |= {"backend": verdict.backend, "scheme": verdict.scheme, "first_step": verdict.first_step}
    return facts


def announce(mqtt: MqttConfig, folder: Path, error: EdgeLstmError) -> None:
    """Publish the refusal of a service that does not start, in another session than the service's.

    So the service's session keeps its waiting messages. If the broker cannot be reached, this is logged.
    """
    try:
        connection = MqttConnection(parse_address(mqtt.url), options=mqtt.options(folder))
        connection.open(_TIMEOUT_S)
        with contextlib.closing(connection):
            topic = refusal_topic(mqtt.client_id)
            payload = status_payload(refusal_facts(error), functools.partial(connection.fits, topic))
            connection.publish(topic, payload, retain=True)
            deadline = time.monotonic() + _TIMEOUT_S
            while connection.unconfirmed and time.monotonic() < deadline:
                connection.poll(0.05)
            for fault in connection.take_faults():
                log.warning("refusal not published: %s", fault["error"])
    except EdgeLstmError as fault:
        log.warning("refusal not published: %s", fault.message)
