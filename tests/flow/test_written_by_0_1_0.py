"""A service starts on a state database of 0.1.0: it sends the unsent predictions and continues every stream."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.mqtt.embedded_broker import EmbeddedBroker
from tests.deadline import wait_until
from tests.flow.conftest import ServiceProcess
from tests.written_states import WRITTEN, assert_holds


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    """The bundles and states in a folder that a service may write to."""
    for name in ("bundles", "states"):
        shutil.copytree(WRITTEN / name, tmp_path / name)
    return tmp_path


def started(plant: Path, state: str, broker: EmbeddedBroker) -> ServiceProcess:
    """The service of that state, at this broker."""
    config = plant / "states" / state / "service.toml"
    config.write_text(config.read_text().replace("mqtt://127.0.0.1:1883", str(broker.address)))
    return ServiceProcess(config)


def test_unsent_predictions_of_0_1_0_are_sent(plant: Path, subscribe: Callable[..., Any]) -> None:
    recorded = json.loads((plant / "states/outbox/contents.json").read_text())["holds"]["unsent"]
    expected = [(one["topic"], one["payload"]) for batch in recorded for one in batch["messages"]]
    with EmbeddedBroker() as broker:
        subscriber = subscribe(broker.address_311, "predictions/+")
        service = started(plant, "outbox", broker)
        try:
            wait_until(lambda: len(subscriber.messages) >= len(expected), "the unsent predictions arrive")
            assert service.stop() == 0
        finally:
            service.process.kill()
        subscriber.close()
    assert [(one.topic, one.payload.decode()) for one in subscriber.messages] == expected


@pytest.mark.parametrize("state", ["anomaly", "rewind", "classify", "estimate"])
def test_every_stream_of_0_1_0_continues(state: str, plant: Path, subscribe: Callable[..., Any]) -> None:
    facts = json.loads((plant / "states" / state / "contents.json").read_text())
    expected = facts["published"]
    with EmbeddedBroker() as broker:
        subscriber = subscribe(broker.address_311, "predictions/+")
        service = started(plant, state, broker)
        try:
            service.wait_connected()
            for message in facts["further"]:
                subscriber.publish(message["topic"], message["payload"])
            wait_until(lambda: len(subscriber.messages) >= len(expected), "the predictions arrive")
            assert service.stop() == 0
        finally:
            service.process.kill()
        subscriber.close()
    found = [{"topic": one.topic, "payload": json.loads(one.payload)} for one in subscriber.messages]
    assert_holds(by_stream(found), by_stream(expected), state, rounded=True)


def by_stream(published: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Streams of one batch may come in another order than one after the other; each stream keeps its own."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in published:
        found.setdefault(one["payload"]["stream"], []).append(one)
    return found
