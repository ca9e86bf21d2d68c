"""Certificates and passwords at a real broker: wrong ones are refused before anything is sent."""

from __future__ import annotations

import importlib.util
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.diagnostics.broker import broker
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.mqtt.credentials import Login, Tls
from edge_lstm.mqtt.options import ConnectionOptions
from edge_lstm.service.config import MqttConfig, read_service_config
from edge_lstm.service.reports.status import read_status
from edge_lstm.streaming.reading import Reading
from tests.conftest import free_port
from tests.deadline import wait_until
from tests.flow.certificate_authority import Authority
from tests.flow.conftest import ServiceProcess

Make = Callable[..., Any]


@pytest.fixture
def tls_broker(start_mosquitto: Make, authorities: tuple[Authority, Authority]) -> Callable[..., Any]:
    """tls_broker(host="127.0.0.1", more=""): a mosquitto whose certificate is for `host`."""

    def start(host: str = "127.0.0.1", more: str = "allow_anonymous true") -> Any:
        certificate, key = authorities[0].issue(f"server-{host}", host)
        return start_mosquitto(f"certfile {certificate}\nkeyfile {key}\n{more}", tls=True)

    return start


@pytest.fixture(params=["batching", "stock"])
def client_of(request: pytest.FixtureRequest) -> Iterator[Callable[..., MqttConnection]]:
    """client_of(address, topics, **options): not connected yet; the test runs once for each client."""
    made: list[MqttConnection] = []

    def make(address: Address, topics: Sequence[str] = (), **options: Any) -> MqttConnection:
        chosen = ConnectionOptions(client=request.param, **options)
        made.append(MqttConnection(address, topics=topics, options=chosen))
        return made[-1]

    yield make
    for connection in made:
        connection.close(0.2)


def echo(connection: MqttConnection, count: int, size: int = 100) -> None:
    """Publish to itself and get it all back, in order."""
    payloads = [b"%06d" % number + b" " * size for number in range(count)]
    connection.publish_many([("t/in", payload) for payload in payloads])
    arrived: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(arrived) < count:
        assert time.monotonic() < deadline
        messages = connection.poll(0.05)
        connection.acknowledge(messages)
        arrived += [message.payload for message in messages]
    assert arrived == payloads


@pytest.mark.parametrize("path", [None, "/mqtt"])
def test_messages_arrive_over_tls_even_those_in_its_buffer(
    tls_broker: Make, authorities: tuple[Authority, Authority], client_of: Make, path: str | None
) -> None:
    port, (certificate, key) = free_port(), authorities[0].issue("websocket", "127.0.0.1")
    more = f"listener {port} 127.0.0.1\nprotocol websockets\ncertfile {certificate}\nkeyfile {key}\n"
    broker = tls_broker(more=f"allow_anonymous true\n{more * bool(path)}")
    address = Address("127.0.0.1", port, tls=True, path=path) if path else broker.address
    connection = client_of(address, topics=["t/+"], tls=Tls(authorities[0].certificate))
    connection.open()
    assert connection.encryption[0].startswith("TLS")
    echo(connection, 2000)
    echo(connection, 3, size=50_000 if path else 300_000)  # mosquitto takes 5 s for 300 kB over a WebSocket


@pytest.mark.parametrize("trusted", ["strange", "the system's"])
def test_a_wrong_authority_is_refused_before_the_password_is_sent(
    tls_broker: Make, authorities: tuple[Authority, Authority], client_of: Make, trusted: str, caplog: Any
) -> None:
    broker = tls_broker(more="allow_anonymous false")
    tls = Tls(authorities[1].certificate) if trusted == "strange" else None
    connection = client_of(broker.address, tls=tls, login=Login("pump", "secret"))
    with pytest.raises(EdgeLstmError, match=r"found: a certificate that is refused .*") as caught:
        connection.open()
    assert "check ca_file" in caught.value.hint
    connection.poll(0.0)
    assert "a certificate that is refused" in caplog.text
    assert connection.connection_count == 0
    assert "not authorised" not in (broker.folder / "mosquitto.log").read_text(), "no CONNECT came through"


def test_a_certificate_for_another_host_is_refused(
    tls_broker: Make, authorities: tuple[Authority, Authority], client_of: Make
) -> None:
    broker = tls_broker(host="192.0.2.1")
    with pytest.raises(EdgeLstmError, match="IP address mismatch"):
        client_of(broker.address, tls=Tls(authorities[0].certificate)).open()


def test_status_uses_the_certificates_and_password_of_the_service(
    tls_broker: Make, authorities: tuple[Authority, Authority], tmp_path: Path
) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(passwords), "pump", "s3cret"], check=True, capture_output=True)
    passwords.chmod(0o644)
    (tmp_path / "password").write_text("s3cret")
    (tmp_path / "password").chmod(0o600)
    broker = tls_broker(more=f"allow_anonymous false\npassword_file {passwords}")
    config = tmp_path / "service.toml"
    config.write_text(
        f'bundle = "x.elstm"\n[mqtt]\nurl = "{broker.address}"\nclient_id = "pumps"\nusername = "pump"\n'
        f'password_file = "password"\nca_file = "{authorities[0].certificate}"\n'
    )
    mqtt = read_service_config(config).mqtt
    connection = MqttConnection(
        broker.address, options=replace(mqtt.options(tmp_path), status_topic="edge-lstm/pumps/status")
    )
    connection.open()
    assert read_status(mqtt, tmp_path) == {"status": "online"}
    connection.close()
    assert read_status(mqtt, tmp_path) == {"status": "offline"}


def test_a_client_certificate_is_accepted(
    tls_broker: Make, authorities: tuple[Authority, Authority], client_of: Make
) -> None:
    ours, strange = authorities
    broker = tls_broker(more=f"cafile {ours.certificate}\nrequire_certificate true\nuse_identity_as_username true")
    connection = client_of(broker.address, topics=["t/+"], tls=Tls(ours.certificate, *ours.issue("pump")))
    connection.open()
    echo(connection, 10)
    for certificate in ((), strange.issue("thief")):
        with pytest.raises(EdgeLstmError, match=r"expected .* broker"):
            client_of(broker.address, tls=Tls(ours.certificate, *certificate)).open(5)


def test_swapped_plain_and_tls_ports_are_refused(
    tls_broker: Make, mosquitto: Any, authorities: tuple[Authority, Authority], client_of: Make
) -> None:
    plain = Address(mosquitto.address.host, mosquitto.address.port, tls=True)
    with pytest.raises(EdgeLstmError, match=r"found: (no TLS that fits|.*reset|EOF occurred|timed out)"):
        client_of(plain, tls=Tls(authorities[0].certificate)).open(5)
    broker = tls_broker()
    encrypted = Address(broker.address.host, broker.address.port)
    with pytest.raises(EdgeLstmError, match="to accept us, found: it closed the connection"):
        client_of(encrypted).open(5)


def test_the_password_file_is_used_and_a_wrong_password_is_an_error(
    start_mosquitto: Make, client_of: Make, tmp_path: Path
) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(passwords), "pump", "s3cret"], check=True, capture_output=True)
    passwords.chmod(0o644)
    broker = start_mosquitto(f"allow_anonymous false\npassword_file {passwords}")
    (tmp_path / "password").write_text("s3cret\n")
    (tmp_path / "password").chmod(0o600)
    config = tmp_path / "service.toml"
    config.write_text(
        f'bundle = "x.elstm"\n[mqtt]\nurl = "{broker.address}"\nusername = "pump"\npassword_file = "password"\n'
    )
    login = read_service_config(config).mqtt.login(tmp_path)
    connection = client_of(broker.address, topics=["t/+"], login=login)
    connection.open()
    echo(connection, 10)
    for wrong in (Login("pump", "guess"), Login("pump"), None):
        with pytest.raises(EdgeLstmError, match=r"to accept us, found: (Not authorized|Bad user name or password)"):
            client_of(broker.address, login=wrong).open(5)
    again = client_of(broker.address, login=Login("pump", "guess"), protocol="3.1.1")
    with pytest.raises(EdgeLstmError, match=r"3\.1\.1 broker .* found: (Not authorized|Bad user name or password)"):
        again.open(5)


def test_doctor_shows_the_tls_version_and_the_certificate_expiry(
    tls_broker: Make, authorities: tuple[Authority, Authority]
) -> None:
    url = str(tls_broker().address)
    found = list(broker(MqttConfig(url, ca_file=str(authorities[0].certificate)), Path(), ["t/+"], 100))
    assert [finding.light for finding in found if finding.check != "encryption"] == ["green"] * 5
    (encryption,) = [finding for finding in found if finding.check == "encryption"]
    assert encryption.light == "amber"  # the authority's certificates are good for two days
    assert encryption.found == "TLSv1.3, but the broker's certificate ends in 2 days"
    (refused,) = broker(MqttConfig(url, ca_file=str(authorities[1].certificate)), Path(), ["t/+"], 100)
    assert refused.light == "red"
    assert "a certificate that is refused" in refused.found


@pytest.mark.parametrize("encrypted", [False, True])
def test_openssl_is_loaded_only_for_a_tls_broker(
    bundle_path: Path, mosquitto: Any, tls_broker: Make, authorities: tuple[Authority, Authority], encrypted: bool
) -> None:
    extension = importlib.util.find_spec("_ssl")
    if extension is None or not extension.has_location:
        pytest.skip("this Python has OpenSSL built in")
    broker = tls_broker() if encrypted else mosquitto
    authority = f'ca_file = "{authorities[0].certificate}"\n' if encrypted else ""
    config = bundle_path.parent / "service.toml"
    config.write_text(
        f'bundle = "{bundle_path.name}"\nbackend = "numpy"\n'
        f'[mqtt]\nurl = "{broker.address}"\nclient_id = "edge-lstm-test"\n{authority}'
    )
    options = ConnectionOptions(tls=Tls(authorities[0].certificate))
    listener = MqttConnection(broker.address, topics=["predictions/+"], options=options)
    listener.open()
    service = ServiceProcess(config)
    try:
        service.wait_connected()
        broker.stop()  # neither a broker that is away nor its return may load what was left out
        wait_until(lambda: "unreachable" in service.log.read_text(), "the broker is missed")
        broker.start()
        wait_until(lambda: service.log.read_text().count("connected address") == 2, "the service is back")
        wait_until(lambda: (listener.poll(0.05), listener.connected)[1], "the listener is back")
        listener.publish("sensors/tank-1", encode_reading(Reading("tank-1", 1_700_000_000.0, {"level": 1.5})))
        heard: list[Any] = []
        wait_until(lambda: bool(heard.extend(listener.poll(0.05)) or heard), "a prediction comes")
        loaded = Path(f"/proc/{service.process.pid}/maps").read_text()
        assert (str(extension.origin) in loaded) == encrypted
        assert service.stop() == 0
    finally:
        listener.close()
        if service.process.poll() is None:
            service.kill()
