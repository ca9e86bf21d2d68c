"""The settings and access rules for mosquitto in the documents, at a real broker with the service."""

from __future__ import annotations

import re
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_lstm.diagnostics.doctor import examine
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.streaming.reading import Reading
from tests.deadline import wait_until
from tests.flow.certificate_authority import Authority
from tests.flow.conftest import ServiceProcess

REPOSITORY = Path(__file__).parents[2]
PASSWORDS = {"pumps": "of the service", "dashboard": "of a reader", "pump-1": "of a device", "pump-2": "of another"}
START = 1_700_000_000.0
NOT_AUTHORIZED = 135


def block(document: str, mark: str) -> str:
    """The code block behind a comment in a document."""
    found = re.search(rf"<!-- {re.escape(mark)} -->\n```\n(.*?)```", (REPOSITORY / document).read_text(), re.DOTALL)
    assert found, (document, mark)
    return found[1]


class Client:
    """A user of the broker with TLS; it keeps the messages that it gets and the answers to what it publishes."""

    def __init__(self, broker: Any, authority: Authority, user: str | None, password: str | None = None) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.answers: list[int] = []
        self.connected: int | None = None
        self.subscribed = False
        client = paho.Client(CallbackAPIVersion.VERSION2, f"test-{user}", protocol=MQTTProtocolVersion.MQTTv5)
        client.tls_set_context(ssl.create_default_context(cafile=authority.certificate))
        if user is not None:
            client.username_pw_set(user, PASSWORDS[user] if password is None else password)
        client.on_connect = lambda _c, _u, _f, code, _p: setattr(self, "connected", code.value)
        client.on_subscribe = lambda *_: setattr(self, "subscribed", True)
        client.on_message = lambda _c, _u, message: self.messages.append((message.topic, message.payload))
        client.on_publish = lambda _c, _u, _m, code, _p: self.answers.append(code.value)
        self.client = client
        client.connect(broker.address.host, broker.address.port)
        client.loop_start()
        wait_until(lambda: self.connected is not None, "the broker answers")

    def subscribe(self, topic: str) -> None:
        self.client.subscribe(topic, 1)
        wait_until(lambda: self.subscribed, "the subscription is answered")

    def publish(self, topic: str, payload: bytes) -> int:
        """The broker's reason code; 0: accepted."""
        before = len(self.answers)
        self.client.publish(topic, payload, 1)
        wait_until(lambda: len(self.answers) > before, "the message is answered")
        return self.answers[-1]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def broker(start_mosquitto: Callable[..., Any], authorities: tuple[Authority, Authority], tmp_path: Path) -> Any:
    """A mosquitto with the settings and rules of docs/broker.md; only paths and the port are others."""
    passwords, rules = tmp_path / "passwords", tmp_path / "acl"
    passwords.touch()
    for user, password in PASSWORDS.items():
        subprocess.run(["mosquitto_passwd", "-b", str(passwords), user, password], check=True, capture_output=True)
    rules.write_text(block("docs/broker.md", "acl"))
    certificate, key = authorities[0].issue("documented", "127.0.0.1")
    settings = re.sub(r"\s+#.*", "", block("docs/broker.md", "mosquitto.conf"))
    for documented, used in (
        ("listener 8883\n", ""),  # the fixture chooses a free port
        ("/etc/mosquitto/certs/broker.pem", certificate),
        ("/etc/mosquitto/certs/broker.key", key),
        ("/etc/mosquitto/passwords", passwords),
        ("/etc/mosquitto/acl", rules),
    ):
        assert documented in settings
        settings = settings.replace(documented, str(used))
    return start_mosquitto(settings, tls=True)


@pytest.fixture
def config(bundle_path: Path, broker: Any, authorities: tuple[Authority, Authority]) -> Path:
    folder = bundle_path.parent
    (folder / "broker-password").write_text(PASSWORDS["pumps"])
    (folder / "broker-password").chmod(0o600)
    path = folder / "service.toml"
    path.write_text(
        f'bundle = "{bundle_path.name}"\nbackend = "numpy"\n'
        f'[mqtt]\nurl = "{broker.address}"\nclient_id = "edge-lstm-pumps"\nusername = "pumps"\n'
        f'password_file = "broker-password"\nca_file = "{authorities[0].certificate}"\n'
    )
    return path


def test_the_rules_are_the_same_in_both_documents() -> None:
    assert block("SECURITY.md", "acl") == block("docs/broker.md", "acl")


def test_with_the_documented_rules_readings_arrive_and_others_are_denied(
    broker: Any, config: Path, authorities: tuple[Authority, Authority]
) -> None:
    def reading(number: int) -> bytes:
        return encode_reading(Reading("pump-1", START + 60 * number, {"level": 1.5 + number}))

    service = ServiceProcess(config)
    clients = {user: Client(broker, authorities[0], user) for user in ("dashboard", "pump-1", "pump-2")}
    dashboard, device, other = clients.values()
    try:
        service.wait_connected()
        dashboard.subscribe("#")
        other.subscribe("#")
        assert device.publish("sensors/pump-1", reading(0)) == 0
        wait_until(lambda: any(topic == "predictions/pump-1" for topic, _ in dashboard.messages), "a prediction comes")
        for topic in (
            "sensors/pump-1",
            "sensors/pump-2/more",
            "predictions/pump-1",
            "edge-lstm/edge-lstm-pumps/status",
            "edge-lstm/edge-lstm-pumps/target",
        ):
            # mosquitto 2.0 closes the connection of a client that it denies a message, after the answer
            fresh = Client(broker, authorities[0], "pump-2")
            assert fresh.publish(topic, reading(1)) == NOT_AUTHORIZED, topic
            fresh.close()
        assert device.publish("sensors/pump-1", reading(2)) == 0

        def predicted() -> list[bytes]:
            return [payload for topic, payload in dashboard.messages if topic == "predictions/pump-1"]

        wait_until(lambda: len(predicted()) >= 2, "the second prediction comes")
        assert len(predicted()) == 2, "what was denied was not predicted"
        assert "edge-lstm/edge-lstm-pumps/status" in {topic for topic, _ in dashboard.messages}
        assert not {topic for topic, _ in dashboard.messages if topic.startswith("sensors/")}
        assert other.messages == [], "a device reads nothing"
        assert service.stop() == 0
    finally:
        for client in clients.values():
            client.close()
        if service.process.poll() is None:
            service.kill()


@pytest.mark.parametrize(("user", "password"), [(None, None), ("pumps", "guessed"), ("pumps", "")])
def test_without_the_right_password_nobody_connects(
    broker: Any, authorities: tuple[Authority, Authority], user: str | None, password: str | None
) -> None:
    client = Client(broker, authorities[0], user, password)
    assert client.connected in (134, NOT_AUTHORIZED)  # bad user name or password, not authorized
    client.close()


def test_doctor_finds_the_documented_broker_in_order(config: Path) -> None:
    findings = {finding.check: finding for finding in examine(config)}
    for check in ("access", "broker", "session", "subscription", "publish"):
        assert findings[check].light == "green", findings[check]
    assert findings["encryption"].found.startswith("TLSv1.3")
    assert [one for one in findings.values() if one.light == "red"] == []
