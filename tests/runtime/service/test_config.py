"""service.toml: the keys of the broker, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.mqtt.address import Address, parse_address
from edge_lstm.mqtt.credentials import Login, Tls, read_password
from edge_lstm.service.config import MqttConfig, ServiceConfig, read_service_config


def write(folder: Path, mqtt: str) -> Path:
    path = folder / "service.toml"
    path.write_text(f'bundle = "tank.elstm"\n[mqtt]\n{mqtt}\n')
    return path


def fault_of(folder: Path, mqtt: str) -> str:
    with pytest.raises(EdgeLstmError) as caught:
        read_service_config(write(folder, mqtt))
    return str(caught.value)


def test_the_shortest_config_is_a_bundle_and_a_url(tmp_path: Path) -> None:
    mqtt = read_service_config(write(tmp_path, 'url = "mqtt://broker"')).mqtt
    assert mqtt == MqttConfig("mqtt://broker")
    assert (mqtt.protocol, mqtt.qos, mqtt.session_expiry_s) == ("5", 1, 604_800)
    assert mqtt.tls(tmp_path) is None
    assert mqtt.login(tmp_path) is None


def test_urls_have_the_default_port_of_their_scheme() -> None:
    assert parse_address("mqtt://broker") == Address("broker", 1883)
    assert parse_address("mqtts://broker") == Address("broker", 8883, tls=True)
    assert parse_address("mqtts://[::1]:1") == Address("::1", 1, tls=True)
    for url in (
        "mqtt://broker:1884",
        "mqtts://broker:8884",
        "mqtt://[::1]:1883",
        "ws://[::1]:9001/a/b",
        "wss://h:8/x/",
    ):
        assert str(parse_address(url)) == url
    for url in ("broker", "ftp://broker", "mqtt://", "mqtt://broker:x", "broker:1883", "ws://h/a\x7fb", "wss://"):
        with pytest.raises(EdgeLstmError, match="expected an address like mqtt://host:1883, found") as caught:
            parse_address(url)
        assert caught.value.hint.startswith(
            "write mqtt://host:1883, mqtts://host:8883 with TLS, or ws://host:port/path"
        )


def test_other_names_of_mqtt_and_websocket_urls_are_understood() -> None:
    assert parse_address("tcp://broker") == Address("broker", 1883)
    for name in ("ssl", "tls", "mqtt+ssl", "MQTTS"):
        assert parse_address(f"{name}://broker") == Address("broker", 8883, tls=True)
    assert parse_address("ws://broker") == Address("broker", 80, path="/mqtt")
    assert parse_address("wss://broker/sensors/mqtt") == Address("broker", 443, tls=True, path="/sensors/mqtt")


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("http://broker:9001/mqtt", "write ws://broker:9001/mqtt for a WebSocket"),
        ("https://broker", "write wss://broker for a WebSocket"),
        ("mqtt://broker/topic", "leave out what follows the port; or write ws:// for a WebSocket, which has a path"),
        ("mqtts://broker/mqtt", "leave out what follows the port; or write wss:// for a WebSocket, which has a path"),
        ("wss://broker/mqtt?token=s3cret", "leave out what follows the path; a login belongs in username and"),
    ],
)
def test_an_address_of_another_form_is_refused_with_what_to_write(url: str, hint: str) -> None:
    with pytest.raises(EdgeLstmError, match="expected an address like mqtt://host:1883, found") as caught:
        parse_address(url)
    assert caught.value.hint.startswith(hint)
    assert "s3cret" not in str(caught.value)


def test_a_password_in_the_config_is_refused_and_not_printed(tmp_path: Path) -> None:
    for mqtt in (
        'url = "mqtt://b"\npassword = "s3cret"',
        'url = "mqtt://b"\npassword = 5309',
        'url = "mqtt://u:s3cret@b"',
        'url = ["mqtt://u:s3cret@b"]',
        'url = "mqtt://b"\nclient_id = "mqtt://a:s3cret@b"',
        'url = "mqtt://b"\nkeepalive_s = "mqtts://a:s3cret@b"',
    ):
        fault = fault_of(tmp_path, mqtt)
        assert "password_file" in fault or "a user and password" in fault or "mqtt" in fault
        assert "s3cret" not in fault
        assert "5309" not in fault
    misspelt = fault_of(tmp_path, 'url = "mqtt://b"\npasswort = "s3cret"')
    assert 'did you mean "password"' not in misspelt
    assert "s3cret" not in misspelt


def test_all_broker_faults_are_listed_at_once(tmp_path: Path) -> None:
    mqtt = """
        url = "mqtt://b"
        protocol = "4"
        qos = 2
        receive_maximum = 0
        password = "x"
    """
    assert set(fault_of(tmp_path, mqtt).splitlines()[1:-1]) == {
        '  mqtt.protocol: expected one of "5", "3.1.1", found "4"',
        "  mqtt.qos: expected one of 0, 1, found 2",
        "  mqtt.receive_maximum: expected a whole number >= 1, found 0",
        "  mqtt.password: a password does not belong in a file that is copied and shown: "
        "set password_file or password_credential",
    }
    mqtt = """
        url = "mqtt://b"
        client_id = "a/b"
        ca_file = "ca.pem"
        key_file = "key.pem"
        password_file = "p"
        password_credential = "c"
    """
    assert set(fault_of(tmp_path, mqtt).splitlines()[1:-1]) == {
        '  mqtt.client_id: expected a name without / + #, found "a/b"',
        '  mqtt.ca_file: expected an address that begins with mqtts:// or wss:// beside it, found "mqtt://b"',
        '  mqtt.key_file: expected an address that begins with mqtts:// or wss:// beside it, found "mqtt://b"',
        "  mqtt.cert_file: expected a path, since key_file is set, found none",
        "  mqtt.password_credential: expected this or password_file, found both",
        "  mqtt.username: expected a name that goes with the password, found none",
    }


def test_missing_and_unfit_files_are_listed_with_their_paths(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no PEM")
    (tmp_path / "key.pem").chmod(0o600)
    (tmp_path / "cert.pem").write_text("no PEM either")
    mqtt = 'url = "mqtts://b"\nusername = "u"\npassword_file = "p"\nca_file = "ca.pem"\n'
    mqtt += 'cert_file = "none.pem"\nkey_file = "key.pem"'
    fault = fault_of(tmp_path, mqtt)
    for name in ("p", "ca.pem", "none.pem"):
        assert f"expected to read {tmp_path / name}, found: No such file or directory" in fault
    mqtt = 'url = "mqtts://b"\ncert_file = "cert.pem"\nkey_file = "key.pem"'
    assert f"expected a certificate at {tmp_path / 'cert.pem'} and its key" in fault_of(tmp_path, mqtt)
    assert f"expected certificates in PEM at {tmp_path / 'key.pem'}" in fault_of(
        tmp_path, 'url = "mqtts://b"\nca_file = "key.pem"'
    )


def test_a_password_comes_from_its_file_or_from_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p").write_text(" with spaces \r\n")
    (tmp_path / "p").chmod(0o600)
    assert read_password(tmp_path / "p") == " with spaces "
    (tmp_path / "p").write_bytes("gehëim\r\n".encode("utf-8-sig"))
    assert read_password(tmp_path / "p") == "gehëim"
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "empty").chmod(0o600)
    with pytest.raises(EdgeLstmError, match="found an empty file"):
        read_password(tmp_path / "empty")
    path = write(tmp_path, 'url = "mqtt://b"\nusername = "u"\npassword_credential = "broker"')
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(EdgeLstmError, match=r"found no \$CREDENTIALS_DIRECTORY") as caught:
        read_service_config(path)
    assert "LoadCredential=broker:PATH" in caught.value.hint
    (tmp_path / "broker").write_text("s3cret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    login = read_service_config(path).mqtt.login(tmp_path)
    assert login == Login("u", "s3cret")
    assert "s3cret" not in repr(login)


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    mqtt = MqttConfig("mqtts://b", ca_file="ca.pem", cert_file="/etc/c.pem", key_file="k.pem")
    assert mqtt.tls(tmp_path) == Tls(tmp_path / "ca.pem", Path("/etc/c.pem"), tmp_path / "k.pem")


def whole_fault_of(folder: Path, lines: str) -> str:
    path = folder / "service.toml"
    path.write_text(f'bundle = "tank.elstm"\nmqtt.url = "mqtt://b"\n{lines}\n')
    with pytest.raises(EdgeLstmError) as caught:
        read_service_config(path)
    return str(caught.value)


@pytest.mark.parametrize(
    "topics",
    [
        'input.topic = "plant/{stream}"\noutput.topic = "plant/{stream}"',
        'input.topic = "plant/{stream}/{value}"\noutput.topic = "plant/{stream}/level"',
        'input.topic = "plant/{stream}/#"\noutput.topic = "plant/{stream}/forecasts/level"',
        'input.topic = ["a/{stream}", "{stream}/+"]\noutput.topic = "predictions/of-{stream}"',
        'input = {name = "tank", topic = "plant/tank"}\noutput.topic = "plant/{stream}"',
        'input.values = {level = {topic = "{stream}/level"}}\noutput.topic = "{stream}/level"',
    ],
)
def test_an_output_topic_that_is_also_an_input_is_refused(tmp_path: Path, topics: str) -> None:
    assert "output.topic: expected a topic outside of [input]" in whole_fault_of(tmp_path, topics)


@pytest.mark.parametrize(
    "topics",
    [
        'input.topic = "plant/{stream}"\noutput.topic = "plant/{stream}/forecast"',
        'input.topic = "{stream}/state"',  # though a stream could be called state
        'input = {name = "tank", topic = "plant/tank"}\noutput.topic = "plant/{stream}-forecast"',
        'input.topic = "plant/{stream}/#"\noutput.topic = "forecast/{stream}"',
    ],
)
def test_an_output_topic_next_to_the_input_is_accepted(tmp_path: Path, topics: str) -> None:
    path = tmp_path / "service.toml"
    path.write_text(f'bundle = "tank.elstm"\nmqtt.url = "mqtt://b"\n{topics}\n')
    assert read_service_config(path).output.topic


def test_user_properties_of_readings_need_mqtt_5(tmp_path: Path) -> None:
    asked = 'input = {time_from = "property", sequence = "n", sequence_from = "property"}'
    fault = whole_fault_of(tmp_path, f'mqtt.protocol = "3.1.1"\n{asked}')
    for name in ("time_from", "sequence_from"):
        assert f'input.{name}: expected with mqtt.protocol = "5" only, which has user properties' in fault


@pytest.mark.parametrize("name", ["client_id", "username"])
def test_an_unprintable_or_too_long_name_is_refused(tmp_path: Path, name: str) -> None:
    for text in ("a\\u0001", "a\\uFFFE", "x" * 1001):
        assert f"mqtt.{name}: expected a printable text of 1 to 1000 characters, found" in fault_of(
            tmp_path, f'url = "mqtt://b"\n{name} = "{text}"'
        )


def test_a_deadband_without_publish_when_change_is_refused(tmp_path: Path) -> None:
    fault = whole_fault_of(tmp_path, "output.deadband.level = 0.5")
    assert 'output.deadband: expected with publish_when = "change" only, found with "every"' in fault


def test_output_properties_need_mqtt_5_and_text(tmp_path: Path) -> None:
    beside = 'output = {expiry_s = 60, content_type = "application/json", user_properties = {site = "north"}}'
    fault = whole_fault_of(tmp_path, f'mqtt.protocol = "3.1.1"\n{beside}')
    for name in ("expiry_s", "content_type", "user_properties"):
        assert f'output.{name}: expected with mqtt.protocol = "5" only, found with "3.1.1"' in fault
    fault = whole_fault_of(tmp_path, 'output = {user_properties = {site = "a\\u0000b", "" = "x"}, expiry_s = 0}')
    assert "output.expiry_s: expected a whole number >= 1, found 0" in fault
    fault = whole_fault_of(tmp_path, 'output = {user_properties = {site = "a\\u0000b", "" = "x"}}')
    assert "output.user_properties.site: expected a printable text" in fault
    assert "output.user_properties: expected a printable text of 1 to 1000 characters, found ''" in fault


def test_files_lists_every_key_that_names_a_file(tmp_path: Path) -> None:
    named = [field.name for field in dataclasses.fields(MqttConfig) if field.name.endswith("_file")]
    assert len(named) == 4
    mqtt = MqttConfig("mqtts://b", **{name: f"{name}.pem" for name in named})  # type: ignore[arg-type]
    config = ServiceConfig("tank.elstm", mqtt, trust="/keys/trust.pub")
    assert [tuple(file) for file in config.files()] == [
        ("bundle", "tank.elstm", "bundle"),
        ("trust", "/keys/trust.pub", "public"),
        ("mqtt.ca_file", "ca_file.pem", "public"),
        ("mqtt.cert_file", "cert_file.pem", "public"),
        ("mqtt.password_file", "password_file.pem", "secret"),
        ("mqtt.key_file", "key_file.pem", "secret"),
    ]
    assert {file.key for file in config.files()} >= {f"mqtt.{name}" for name in named}
    assert [file.name for file in config.files() if file.role == "secret"] == ["password_file", "key_file"]


def test_files_leaves_out_keys_that_are_not_set() -> None:
    config = ServiceConfig("tank.elstm", MqttConfig("mqtt://b"))
    assert [file.key for file in config.files()] == ["bundle"]


@pytest.mark.parametrize("trust", ["kernel", "always", "never"])
def test_the_clock_is_trusted_as_configured(tmp_path: Path, trust: str) -> None:
    (tmp_path / "service.toml").write_text(
        f'bundle = "b.elstm"\n[mqtt]\nurl = "mqtt://broker"\n[clock]\ntrust = "{trust}"\n'
    )
    config = read_service_config(tmp_path / "service.toml")
    assert (config.clock.trust, config.max_ahead_s) == (trust, 300.0)


def test_another_trust_in_the_clock_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "service.toml").write_text(
        'bundle = "b.elstm"\n[mqtt]\nurl = "mqtt://broker"\n[clock]\ntrust = "ntp"\n'
    )
    with pytest.raises(EdgeLstmError, match=r'trust.*"kernel", "always".*"never"'):
        read_service_config(tmp_path / "service.toml")
