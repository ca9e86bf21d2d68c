"""`doctor` with real brokers, as a user and as a program run it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.diagnostics import broker as broker_checks
from edge_lstm.diagnostics.broker import broker
from edge_lstm.diagnostics.doctor import examine
from edge_lstm.diagnostics.finding import Finding
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.hardware.boards import read_board
from edge_lstm.hardware.machine import this_machine
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.mqtt.embedded_broker import EmbeddedBroker
from edge_lstm.mqtt.options import ConnectionOptions
from edge_lstm.service.config import MqttConfig
from tests.flow.scripted_broker import CONNECT, ScriptedBroker

Make = Callable[..., Any]
TOPICS = ["plant/+/readings", "plant/hall/#"]


def lines(address: Address, prediction_bytes: int = 300, **keys: Any) -> dict[str, Finding]:
    """What the doctor says of a broker, by the name of the check."""
    found = broker(MqttConfig(str(address), **keys), Path(), TOPICS, prediction_bytes)
    return {finding.check: finding for finding in found}


def lights(found: dict[str, Finding]) -> dict[str, str]:
    return {check: finding.light for check, finding in found.items()}


def test_a_durable_broker_is_green_and_shows_its_limits(start_mosquitto: Make) -> None:
    address = start_mosquitto("allow_anonymous true\nmax_packet_size 20000").address
    found = lines(address)
    assert set(lights(found).values()) == {"green"}
    assert list(found) == ["broker", "encryption", "session", "subscription", "packet size", "window"]
    assert found["session"].found.startswith("kept for 7 d; ")
    assert found["subscription"].found == "QoS 1 for plant/+/readings, plant/hall/#"
    assert found["packet size"].found == "up to 20,000 bytes; a prediction has about 300 bytes"
    assert found["window"].found == "100 unacknowledged predictions"


def test_the_doctor_leaves_no_session_and_does_not_disturb_the_service(
    mosquitto: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_checks.secrets, "token_hex", lambda size: "1234")
    service = MqttConnection(mosquitto.address, "edge-lstm", ["plant/+/readings"], session_expiry_s=60)
    service.open()
    lines(mosquitto.address)
    service.poll(0.3)
    assert (service.connected, service.connection_count) == (True, 1)
    service.close()
    left = MqttConnection(mosquitto.address, "edge-lstm-doctor-1234", session_expiry_s=60)
    left.open()
    assert left.granted is not None
    assert not left.granted.session_present
    left.close()


def test_broker_limits_that_block_predictions_are_red(start_mosquitto: Make) -> None:
    address = start_mosquitto("allow_anonymous true\nmax_packet_size 250\nretain_available false\nmax_qos 0").address
    found = lines(address)
    assert found["packet size"].light == "red"
    assert found["packet size"].found == "at most 250 bytes, and a prediction has 300"
    assert found["subscription"].light == "red"
    assert (
        found["subscription"].found
        == "the broker allows only QoS 0, and so refuses the service, whose last will has QoS 1"
    )
    assert found["retained messages"].light == "red"


@pytest.mark.parametrize(
    ("limit", "reason"), [("max_qos 0", "QoS not supported"), ("retain_available false", "Retain not supported")]
)
def test_the_service_refuses_what_doctor_shows_red(limit: str, reason: str, start_mosquitto: Make) -> None:
    address = start_mosquitto(f"allow_anonymous true\n{limit}").address
    assert "red" in lights(lines(address)).values()
    options = ConnectionOptions(status_topic="edge-lstm/edge-lstm/status")
    service = MqttConnection(address, "edge-lstm", TOPICS, options=options)
    with pytest.raises(EdgeLstmError, match=reason):
        service.open(20)
    service.close()


def test_the_disk_check_uses_the_folder_of_the_state(mosquitto: Any, bundle_path: Path) -> None:
    root = bundle_path.parent / "root"
    folder, state = root / "etc/edge-lstm/edge-lstm-tank", root / "var/lib"
    folder.mkdir(parents=True)
    state.mkdir(parents=True)
    (folder / "tank.elstm").write_bytes(bundle_path.read_bytes())
    (folder / "service.toml").write_text(f'bundle = "tank.elstm"\n[mqtt]\nurl = "{mosquitto.address}"\n')

    def disk() -> Finding:
        (found,) = [one for one in examine(folder / "service.toml", root) if one.check == "disk"]
        return found

    assert disk().found.startswith(f"{state} can be written")  # systemd makes the rest at the first start
    (state / "private/edge-lstm-tank").mkdir(parents=True)
    (state / "edge-lstm-tank").symlink_to("private/edge-lstm-tank")
    assert disk().found.startswith(f"{state / 'edge-lstm-tank'} can be written")


def test_a_forgetful_broker_is_red_and_a_small_window_amber() -> None:
    # CONNACK with Receive Maximum 5 and Session Expiry Interval 60; no session is ever present
    with ScriptedBroker("20 0b 00 00 08 21 00 05 11 00 00 00 3c", "90 05 {id} 00 01 00") as scripted:
        found = lines(scripted.address)
    assert found["session"].light == "red"
    assert found["session"].found.startswith("not kept: readings sent while the service is offline are lost")
    assert found["window"].light == "amber"
    assert found["window"].found.startswith("5 unacknowledged predictions")
    assert found["subscription"].light == "red"
    assert found["subscription"].found == "only QoS 0 for plant/hall/#: readings may get lost"
    assert len(scripted.packets) == 3
    assert [packets[0][0] for packets in scripted.packets] == [CONNECT] * 3


def test_a_session_expiry_shorter_than_requested_is_amber() -> None:
    with ScriptedBroker("20 08 01 00 05 11 00 00 00 3c", "90 05 {id} 00 01 01") as scripted:
        found = lines(scripted.address)
    assert found["session"].light == "amber"
    assert found["session"].found == "kept for only 1 min, of 7 d requested"


def test_the_embedded_broker_is_judged_by_what_it_grants() -> None:
    with EmbeddedBroker() as embedded:
        found = lines(embedded.address)
    assert found["broker"].light == "green"
    assert found["subscription"].light == "green"


def test_mqtt_3_1_1_limits_are_unknown(mosquitto: Any) -> None:
    found = lines(mosquitto.address, protocol="3.1.1")
    assert lights(found) == {
        "broker": "green",
        "encryption": "green",
        "session": "green",
        "subscription": "green",
        "limits": "unknown",
    }


def test_a_refusing_broker_is_red_with_its_reason_only(start_mosquitto: Make) -> None:
    found = lines(start_mosquitto("allow_anonymous false").address)
    assert list(found) == ["broker"]
    assert found["broker"].light == "red"
    assert "found: Not authorized" in found["broker"].found


def test_a_broker_that_refuses_the_test_client_id_is_unknown() -> None:
    with ScriptedBroker("20 03 00 85 00") as scripted:
        found = lines(scripted.address)
    assert list(found) == ["broker"]
    assert found["broker"].light == "unknown"
    assert "edge-lstm-doctor-" in found["broker"].remedy


def doctor(config: Path, *arguments: str, code: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_lstm", "doctor", str(config), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_doctor_checks_everything_and_a_red_line_exits_with_1(mosquitto: Any, bundle_path: Path) -> None:
    config = bundle_path.parent / "service.toml"
    text = f'bundle = "tank.elstm"\nbackend = "numpy"\n[mqtt]\nurl = "{mosquitto.address}"\n'
    config.write_text(text)
    facts = json.loads(doctor(config, "--json", code=0).stdout)
    by_check = {finding["check"]: finding for finding in facts["findings"]}
    asked = {
        "config",
        "bundle",
        "mapping",
        "python",
        "architecture",
        "glibc",
        "board",
        "clock",
        "time source",
        "memory",
    }
    asked |= {
        "temperature",
        "throttling",
        "disk",
        "fsync",
        "broker",
        "session",
        "packet size",
        "backend tflite-runtime",
    }
    assert asked <= set(by_check)
    assert facts["lights"]["red"] == 0
    assert sum(facts["lights"].values()) == len(facts["findings"])
    assert "a prediction has about 3" in by_check["packet size"]["found"]
    assert all(finding["remedy"] for finding in facts["findings"] if finding["light"] in ("amber", "red"))
    assert by_check["bundle"]["found"].split(":")[0].endswith("on numpy float32")
    mosquitto.stop()
    done = doctor(config, code=1)
    shown = done.stdout.splitlines()
    (red,) = [number for number, line in enumerate(shown) if line.startswith("red ")]
    assert "found: Connection refused" in shown[red]
    assert shown[red + 1].strip().startswith("-> start one")
    assert done.stderr.startswith(f"error: {config}: expected no red line, found 1: broker\nhint: ")


def test_lines_wrap_at_words_within_the_terminal_width(bundle_path: Path) -> None:
    config = bundle_path.parent / "service.toml"
    config.write_text('bundel = "tank.elstm"\n[mqtt]\nurl = "http://x"\n')
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "edge_lstm", "doctor", str(config)]
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    done = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # how a terminal says that the other side is gone
        while part := os.read(ours, 65536):
            said += part
    os.close(ours)
    assert done.wait(60) == 1
    lines = re.sub(r"\x1b\[[0-9;]*m", "", said.decode()).splitlines()
    assert max(len(line) for line in lines if len(line.split()) > 1 and "/" not in line) <= 80
    assert any(line.startswith(" " * 32 + "-> ") for line in lines)


def test_config_faults_are_listed_and_the_other_checks_still_run(bundle_path: Path) -> None:
    config = bundle_path.parent / "service.toml"
    config.write_text('bundel = "tank.elstm"\nbackend = "onxx"\n[mqtt]\nurl = "http://x"\n')
    done = doctor(config, "--json", code=1)
    findings = json.loads(done.stdout)["findings"]
    by_check = {finding["check"]: finding for finding in findings}
    for fault in ('did you mean "bundle"?', 'did you mean "onnx"?', "mqtt.url: expected an address like"):
        assert fault in by_check["config"]["found"]
    assert by_check["python"]["light"] == "green"
    assert [by_check[check]["light"] for check in ("bundle", "disk", "broker")] == ["unknown"] * 3


def test_a_config_for_another_board_is_red(bundle_path: Path, mosquitto: Any) -> None:
    other = "raspberry-pi-4" if this_machine().architecture == "x86_64" else "generic-x86_64"
    config = bundle_path.parent / "service.toml"
    config.write_text(
        f'bundle = "tank.elstm"\ndevice = "{other}"\nbackend = "numpy"\nscheme = "float32"\ncores = [0]\n'
        f'[mqtt]\nurl = "{mosquitto.address}"\n'
    )
    done = doctor(config, "--json", code=1)
    red = [finding for finding in json.loads(done.stdout)["findings"] if finding["light"] == "red"]
    assert [finding["check"] for finding in red] == ["board"]
    assert red[0]["found"].startswith(f"{read_board(other).title}, but: expected ")


def test_an_unreadable_password_is_red_and_a_unit_credential_unknown(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_mosquitto: Make
) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(passwords), "pump", "s3cret"], check=True, capture_output=True)
    passwords.chmod(0o644)
    address = start_mosquitto(f"allow_anonymous false\npassword_file {passwords}").address
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    config = bundle_path.parent / "service.toml"
    head = f'bundle = "tank.elstm"\n[mqtt]\nurl = "{address}"\nusername = "pump"\n'

    def examined(line: str) -> dict[str, Finding]:
        config.write_text(head + line)
        return {finding.check: finding for finding in examine(config)}

    missing = examined('password_file = "none"\n')
    assert (missing["access"].light, missing["broker"].light) == ("red", "unknown")
    assert "expected to read" in missing["access"].found
    assert missing["bundle"].light == "green"
    hidden = examined('password_credential = "broker"\n')
    assert (hidden["access"].light, hidden["broker"].light) == ("unknown", "unknown")
    assert "LoadCredential=broker:PATH" in hidden["access"].remedy
    (tmp_path / "broker").write_text("s3cret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    known = examined('password_credential = "broker"\n')
    assert (known["access"].light, known["broker"].light) == ("green", "green")
    assert known["access"].found == "login with a password"
    assert not any("s3cret" in finding.found + finding.remedy for finding in known.values())


def test_a_mapping_that_does_not_fit_the_bundle_is_red(bundle_path: Path, mosquitto: Any) -> None:
    config = bundle_path.parent / "service.toml"
    config.write_text(f'bundle = "tank.elstm"\n[mqtt]\nurl = "{mosquitto.address}"\n[input.values]\nlevle = "a.b"\n')
    done = doctor(config, "--json", code=1)
    red = [finding for finding in json.loads(done.stdout)["findings"] if finding["light"] == "red"]
    assert [finding["check"] for finding in red] == ["mapping"]
    assert "levle" in red[0]["found"]
