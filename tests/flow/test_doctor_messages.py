"""The doctor's trial messages: what the broker denies is found, and nothing is changed by the question."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.diagnostics.broker import limits
from edge_lstm.diagnostics.finding import Finding
from edge_lstm.diagnostics.trial_messages import publishing, receiving, topic_in, topics_of
from edge_lstm.messages.decoder import InputMapping
from edge_lstm.messages.topics import matches_filter
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.capabilities import BrokerCapabilities
from edge_lstm.mqtt.embedded_broker import EmbeddedBroker
from edge_lstm.service.config import MqttConfig, ServiceConfig
from tests.deadline import wait_until

Make = Callable[..., Any]
OPEN = "allow_anonymous true"


def asked(address: Address, folder: Path, **keys: Any) -> dict[str, Finding]:
    config = ServiceConfig("tank.elstm", MqttConfig(str(address), **keys))
    findings = [*publishing(config, folder, folder / "state.db"), *receiving(config, folder)]
    return {finding.check: finding for finding in findings}


def rules(folder: Path, text: str) -> str:
    (folder / "acl").write_text(text)
    return f"{OPEN}\nacl_file {folder / 'acl'}"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_denied_predictions_are_red(tmp_path: Path, start_mosquitto: Make, protocol: str) -> None:
    broker = start_mosquitto(rules(tmp_path, "topic read #\ntopic write sensors/#\ntopic write edge-lstm/#\n"))
    found = asked(broker.address, tmp_path, protocol=protocol)
    assert (found["publish"].light, found["readings"].light) == ("red", "green")
    assert found["publish"].found == "the broker refuses predictions/edge-lstm-doctor (Not authorized)"
    assert "topic write" in found["publish"].remedy


def test_a_denied_status_topic_is_red(tmp_path: Path, start_mosquitto: Make) -> None:
    broker = start_mosquitto(rules(tmp_path, "topic read #\ntopic write sensors/#\ntopic write predictions/#\n"))
    found = asked(broker.address, tmp_path)["publish"]
    assert found.light == "red"
    assert found.found == "the broker refuses " + ", ".join(
        f"edge-lstm/edge-lstm/{name} (Not authorized)" for name in ("status", "stats", "errors", "refusal", "events")
    )


def test_a_denied_read_is_red_although_the_subscription_is_granted(tmp_path: Path, start_mosquitto: Make) -> None:
    broker = start_mosquitto(rules(tmp_path, "topic write #\n"))
    found = asked(broker.address, tmp_path)
    assert (found["publish"].light, found["readings"].light) == ("green", "red")
    assert found["readings"].found.startswith("the broker accepts the subscription to sensors/+ and delivers nothing")
    assert "topic read" in found["readings"].remedy


def test_readings_are_unknown_where_no_trial_message_may_be_sent(
    tmp_path: Path, start_mosquitto: Make, subscribe: Make
) -> None:
    text = "topic read #\ntopic write predictions/#\ntopic write edge-lstm/#\nuser device\ntopic write sensors/#\n"
    broker = start_mosquitto(rules(tmp_path, text))
    found = asked(broker.address, tmp_path)
    assert (found["publish"].light, found["readings"].light) == ("green", "unknown")
    assert "(Not authorized)" in found["readings"].found


def test_trial_messages_change_no_retained_message(tmp_path: Path, mosquitto: Any, subscribe: Make) -> None:
    device = subscribe(mosquitto.address, "#")
    topics = ["sensors/tank", "predictions/edge-lstm-doctor", "edge-lstm/edge-lstm/status"]
    for topic in topics:
        device.publish(topic, "kept", retain=True)
    found = asked(mosquitto.address, tmp_path)
    assert {finding.light for finding in found.values()} == {"green"}
    late = subscribe(mosquitto.address, "+/#")
    wait_until(lambda: len(late.messages) >= 3, "the retained messages come")
    assert sorted((message.topic, message.payload) for message in late.messages) == sorted(
        (topic, b"kept") for topic in topics
    )
    trials = [message for message in device.messages if message.payload != b"kept"]
    assert {message.payload for message in trials} == {b""}
    assert not any(message.topic.startswith("sensors/") for message in trials), "the retained reading was enough"


def test_the_embedded_broker_takes_and_delivers_everything(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        assert {finding.light for finding in asked(broker.address, tmp_path).values()} == {"green"}


def test_known_streams_are_asked_for_instead_of_a_made_up_one(
    tmp_path: Path, bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    device = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address)
    service.wait_connected()
    device.publish("sensors/tank-7", '{"time": "2026-01-01T00:00:00Z", "level": 1.5}')
    wait_until(lambda: len(device.messages) == 1, "the prediction is published")
    assert service.stop() == 0
    config = ServiceConfig("tank.elstm", MqttConfig("mqtt://b"))
    assert topics_of(config, bundle_path.parent / "state.db")[0] == "predictions/tank-7"
    assert topics_of(config, tmp_path / "none.db")[0] == "predictions/edge-lstm-doctor"
    one = ServiceConfig("tank.elstm", MqttConfig("mqtt://b"), input=InputMapping(topic="plant/tank", name="tank"))
    assert topics_of(one, tmp_path / "none.db")[0] == "predictions/tank"


@pytest.mark.parametrize("topic_filter", ["sensors/+", "plant/+/x/#", "#", "+/+", "a/b"])
def test_the_trial_topic_of_a_filter_matches_it(topic_filter: str) -> None:
    assert matches_filter(topic_in(topic_filter), topic_filter)


def test_a_limit_below_the_size_of_the_stats_is_amber() -> None:
    granted = BrokerCapabilities(True, None, 1000, 2, 600, True, True)
    found = {finding.check: finding for finding in limits(granted, 300)}
    assert found["packet size"].light == "amber"
    assert found["packet size"].found.endswith("the statistics are sent with less content")
