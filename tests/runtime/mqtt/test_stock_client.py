"""The one private member of paho that the stock client uses."""

from __future__ import annotations

from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from edge_lstm.mqtt.client import client_choice
from edge_lstm.mqtt.client.stock_client import UNKNOWN_PING, StockClient, unknown_ping


def make(kind: Any) -> StockClient:
    return client_choice.make_client(
        kind, "c", MQTTProtocolVersion.MQTTv5, True, lambda _: None, lambda _: None, lambda *_: None
    )


def test_forget_ping_works_with_the_installed_paho() -> None:
    assert UNKNOWN_PING is None
    client = make("stock")
    client._ping_t = 123.0
    client.forget_ping()
    assert client._ping_t == 0.0


def test_a_paho_with_another_ping_is_named() -> None:
    class OtherPaho(paho.Client):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            self._ping_t = None  # type: ignore[assignment]

    assert unknown_ping(OtherPaho) == "Client._ping_t: float"


def test_a_paho_with_another_ping_is_unchanged_and_reported_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in ("stock_client", "client_choice"):
        monkeypatch.setattr(f"edge_lstm.mqtt.{module}.UNKNOWN_PING", "Client._ping_t: float")
    client_choice._warn_once.cache_clear()
    client = make("stock")
    client._ping_t = 123.0
    client.forget_ping()
    assert client._ping_t == 123.0
    make("stock")
    client_choice._warn_once.cache_clear()
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == [
        "paho-mqtt is unknown, a connection that is not read ends after keepalive_s missing=Client._ping_t: float"
    ]
