"""The installed unit under a real systemd: ready, killed, hung, stopped, sandboxed, refused, reloaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.backends.registry import why_unavailable
from edge_lstm.bundle.archive import Bundle
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.streaming.reading import Reading
from tests.deadline import wait_until
from tests.flow.conftest import Subscriber, subscribe  # noqa: F401
from tests.flow.test_service import by_stream_without_repeats, readings_of, undisturbed
from tests.flow.test_supervised import refused_bundle
from tests.paths import PUMP
from tests.systemd.conftest import System

Make = Callable[..., Any]

NAME = "edge-lstm-tank"
STOPS_WITHIN_S = 5.0


@pytest.fixture
def broker(start_mosquitto: Make, tmp_path: Path) -> Any:
    """A mosquitto that accepts anonymous clients, and a user only with the right password."""
    passwords = tmp_path / "passwords"
    passwords.touch()
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "tank", "s3cret"], check=True, capture_output=True)
    passwords.chmod(0o644)
    return start_mosquitto(f"allow_anonymous true\npassword_file {passwords}")


@pytest.fixture
def config(bundle_path: Path, system: System, broker: Any) -> Path:
    """A config with a password and its bundle, in the shared folder."""
    shutil.copy(bundle_path, system.shared)
    path = system.shared / "service.toml"
    path.write_text(
        'bundle = "tank.elstm"\nbackend = "numpy"\nwatchdog_s = 2.0\nmemory_max_mb = 256\ncores = [0]\n'
        f'[mqtt]\nurl = "{broker.address}"\nclient_id = "tank"\nusername = "tank"\npassword_file = "password"\n'
    )
    (system.shared / "password").write_text("s3cret")
    (system.shared / "password").chmod(0o600)
    return path


def publish(subscriber: Subscriber, readings: list[Reading]) -> None:
    for reading in readings:
        subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))


def wait_connected(system: System) -> None:
    wait_until(lambda: system.show(NAME, "StatusText").startswith("connected to"), "the service is connected")


def wait_restarted(system: System, former: str) -> None:
    wait_until(
        lambda: system.show(NAME, "ActiveState") == "active" and system.show(NAME, "MainPID") != former,
        "systemd has started it again",
    )


def test_start_returns_after_the_self_test_as_an_unprivileged_user(system: System, config: Path) -> None:
    said = system.edge_lstm("device", "install", config, "--start").stdout.splitlines()
    assert said[-1] == f"{NAME} is ready"
    assert system.show(NAME, "ActiveState") == "active"
    log = system.run("journalctl", "--no-pager", "--output=short-monotonic", f"--unit={NAME}").stdout
    assert log.index("self-test passed") < log.index(f"Started {NAME}.service")
    wait_connected(system)  # which needs the password: a broker's user with another one is refused
    user = system.run("stat", "-c", "%u", f"/proc/{system.show(NAME, 'MainPID')}").stdout.strip()
    assert 61184 <= int(user) <= 65519  # systemd's dynamic users
    assert system.show(NAME, "UnitFileState") == "enabled"
    assert system.show(NAME, "MemoryMax") == str(256 * 2**20)


def test_after_a_kill_the_restart_continues_bit_for_bit(
    system: System,
    config: Path,
    bundle_path: Path,
    broker: Any,
    subscribe: Make,  # noqa: F811
) -> None:
    readings = readings_of(streams=3, steps=60)
    subscriber = subscribe(broker.address, "predictions/+")
    system.edge_lstm("device", "install", config, "--start")
    wait_connected(system)
    for start in range(0, 180, 60):
        publish(subscriber, readings[start : start + 40])
        former = system.show(NAME, "MainPID")
        system.signal(NAME, "KILL")
        publish(subscriber, readings[start + 40 : start + 60])
        wait_restarted(system, former)
    expected = undisturbed(bundle_path, readings)
    wait_until(
        lambda: by_stream_without_repeats(subscriber.messages) == expected, "every step is predicted, as undisturbed"
    )
    assert system.show(NAME, "NRestarts") == "3"


def test_a_hung_service_is_restarted_and_its_state_continues(
    system: System,
    config: Path,
    bundle_path: Path,
    broker: Any,
    subscribe: Make,  # noqa: F811
) -> None:
    readings = readings_of(streams=1, steps=40)
    subscriber = subscribe(broker.address, "predictions/+")
    system.edge_lstm("device", "install", config, "--start")
    wait_connected(system)
    publish(subscriber, readings[:20])
    wait_until(lambda: len(subscriber.messages) == 20, "the first half is predicted")
    former, begun = system.show(NAME, "MainPID"), time.monotonic()
    system.signal(NAME, "STOP")
    publish(subscriber, readings[20:])
    wait_restarted(system, former)
    took = time.monotonic() - begun
    wait_until(
        lambda: by_stream_without_repeats(subscriber.messages) == undisturbed(bundle_path, readings), "it goes on"
    )
    assert "Watchdog timeout (limit 2s)" in system.journal()
    assert took < 2.0 + 2.0 + 15.0  # the watchdog, RestartSec, and a start
    print(f"watchdog_s=2 restarted_after_s={took:.1f}")


def test_the_service_stops_in_time_and_publishes_offline(
    system: System,
    config: Path,
    broker: Any,
    subscribe: Make,  # noqa: F811
) -> None:
    system.edge_lstm("device", "install", config, "--start")
    wait_connected(system)
    watcher = subscribe(broker.address, "edge-lstm/tank/status")
    wait_until(lambda: [one.payload for one in watcher.messages] == [b"online"], "it is online")
    begun = time.monotonic()
    system.run("systemctl", "stop", NAME)
    took = time.monotonic() - begun
    assert took < STOPS_WITHIN_S
    assert (system.show(NAME, "ActiveState"), system.show(NAME, "Result")) == ("inactive", "success")
    wait_until(lambda: watcher.messages[-1].payload == b"offline", "it said goodbye")
    print(f"stopped_after_s={took:.2f}")


PROBE = """
import ctypes, json, os, pathlib, resource, socket, time
from edge_lstm.foundation.child_process import call_confined
me = os.getuid()
writable = [folder for folder, _, _ in os.walk("/") if os.access(folder, os.W_OK) and not folder.startswith("/proc")]
def readable(path):
    try:
        return pathlib.Path(path).read_text()
    except OSError as error:
        return type(error).__name__
def set_clock():
    try:
        time.clock_settime(time.CLOCK_REALTIME, time.time())
    except OSError as error:
        return type(error).__name__
facts = {
    "uid": me,
    "writable": writable,
    "credential": readable(os.environ["CREDENTIALS_DIRECTORY"] + "/password_file"),
    "file": readable("/etc/edge-lstm/edge-lstm-tank/password"),
    "shadow": readable("/etc/shadow"),
    "config": readable("/etc/edge-lstm/edge-lstm-tank/service.toml"),
    "homes": os.listdir("/home") + os.listdir("/root"),
    "folder": [os.getcwd(), *os.listdir()],
    "others": [name for name in os.listdir("/proc") if name.isdigit() and os.stat("/proc/" + name).st_uid != me],
    "clock": [ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(1024)) >= 0, set_clock()],
    "cores": sorted(os.sched_getaffinity(0)),
}
def child():
    try:
        socket.socket()
        found = "a socket"
    except OSError as error:
        found = type(error).__name__
    return [found, resource.getrlimit(resource.RLIMIT_CPU)[0], resource.getrlimit(resource.RLIMIT_DATA)[0] > 2**29]
facts["child"] = call_confined(child, 10)
pathlib.Path(os.environ["STATE_DIRECTORY"], "facts.json").write_text(json.dumps(facts))
"""


def test_only_the_state_is_writable_and_secrets_are_credentials(system: System, config: Path) -> None:
    system.edge_lstm("device", "install", config)
    unit = f"/etc/systemd/system/{NAME}.service"
    python = system.run("sed", "-n", "s/^ExecStart=\\([^ ]*\\) .*/\\1/p", unit).stdout.strip()
    probe = system.shared / "probe.py"
    probe.write_text(PROBE)
    # the same unit, with the probe in the service's place
    system.run("install", "-D", "-m", "644", probe, "/opt/probe.py")
    system.run("sed", "-i", f"s|^ExecStart=.*|ExecStart={python} /opt/probe.py|; s/^Type=.*/Type=oneshot/", unit)
    system.run("systemctl", "daemon-reload")
    system.run("systemctl", "start", NAME)
    facts = json.loads(system.run("cat", f"/var/lib/private/{NAME}/facts.json").stdout)
    assert facts["uid"] >= 61184
    state = f"/var/lib/private/{NAME}"
    # what lies in memory, or in a folder that ends with the unit, is the unit's own
    kept = [one for one in facts["writable"] if not one.startswith(("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue"))]
    assert kept == [state]
    assert (facts["credential"], facts["file"], facts["shadow"]) == ("s3cret", "PermissionError", "PermissionError")
    assert facts["config"] == config.read_text()
    assert facts["homes"] == [] or all(one.startswith(".pyenv") for one in facts["homes"])
    assert facts["folder"] == ["/var/empty/edge-lstm"]  # where it runs, and nothing in it
    assert facts["others"] == []
    assert facts["clock"] == [True, "PermissionError"]  # it may ask about the clock, and not set it
    assert facts["cores"] == [0]
    assert facts["child"] == ["PermissionError", 120, True]  # what tests an unknown bundle


def test_a_reload_tests_an_unknown_bundle_in_a_child_process(system: System, config: Path, tmp_path: Path) -> None:
    system.edge_lstm("device", "install", config, "--start")
    wait_connected(system)
    former, before = system.show(NAME, "MainPID"), Bundle.open(system.shared / "tank.elstm").id
    good = tmp_path / "good.elstm"
    shutil.copy(system.shared / "tank.elstm", good)
    shutil.copy(PUMP, system.shared / "tank.elstm")
    system.edge_lstm("device", "install", config)
    system.run("systemctl", "reload", NAME)
    wait_until(lambda: f"bundle {Bundle.open(PUMP).id}" in system.show(NAME, "StatusText"), "it serves the new bundle")
    refused_bundle(system.shared / "tank.elstm", good)
    system.run("cp", system.shared / "tank.elstm", f"/etc/edge-lstm/{NAME}/tank.elstm")
    system.run("systemctl", "reload", NAME)
    wait_until(lambda: "reload refused, going on as before" in system.journal(), "the bad bundle is refused")
    wait_until(lambda: f"bundle {Bundle.open(PUMP).id}" in system.show(NAME, "StatusText"), "it goes on as before")
    assert before != Bundle.open(PUMP).id
    assert (system.show(NAME, "MainPID"), system.show(NAME, "NRestarts")) == (former, "0")


@pytest.mark.parametrize("backend", ["litert", "onnx", "tflite-runtime"])
def test_every_backend_runs_in_the_sandbox(system: System, config: Path, backend: str) -> None:
    if (error := why_unavailable(backend)) is not None:
        pytest.skip(error.message)
    shutil.copy(PUMP, system.shared / "tank.elstm")
    config.write_text(config.read_text().replace('"numpy"', f'"{backend}"\nthreads = 2'))
    system.edge_lstm("device", "install", config, "--start")
    assert system.show(NAME, "ActiveState") == "active"
    assert f"backend={backend} scheme=int8" in system.journal()


def test_a_failed_self_test_is_shown_and_not_retried(system: System, config: Path) -> None:
    system.edge_lstm("device", "install", config)
    refused_bundle(system.shared / "tank.elstm", system.shared / "tank.elstm")
    refused = system.edge_lstm("device", "install", config, code=65)  # not even installed
    assert "first at step 1, over the limit" in refused.stderr
    folder = f"/etc/edge-lstm/{NAME}"
    system.run("cp", system.shared / "tank.elstm", f"{folder}/tank.elstm")
    system.run("systemctl", "start", NAME, code=1)
    assert system.show(NAME, "ActiveState") == "failed"
    assert (system.show(NAME, "ExecMainStatus"), system.show(NAME, "NRestarts")) == ("65", "0")
    shown = system.run("systemctl", "status", "--no-pager", "--full", NAME, code=3).stdout
    assert "status=65/DATAERR" in shown
    assert "expected numpy float32 to give the golden vectors, found relative difference" in shown


def test_a_reload_takes_a_new_config_in_the_same_process(system: System, config: Path) -> None:
    system.edge_lstm("device", "install", config, "--start")
    wait_connected(system)
    former = system.show(NAME, "MainPID")
    config.write_text(config.read_text() + '[output]\ntopic = "forecasts/{stream}"\n')
    assert "wrote /etc/edge-lstm/edge-lstm-tank/service.toml" in system.edge_lstm("device", "install", config).stdout
    system.run("systemctl", "reload", NAME)
    wait_until(lambda: "reloaded config=" in system.journal(), "it has the new config")
    wait_until(lambda: system.show(NAME, "ActiveState") == "active", "it serves again")
    assert (system.show(NAME, "MainPID"), system.show(NAME, "NRestarts")) == (former, "0")


def test_uninstall_keeps_the_state_for_the_next_install(
    system: System,
    config: Path,
    bundle_path: Path,
    broker: Any,
    subscribe: Make,  # noqa: F811
) -> None:
    readings = readings_of(streams=1, steps=20)
    subscriber = subscribe(broker.address, "predictions/+")
    for half in (readings[:10], readings[10:]):
        system.edge_lstm("device", "install", config, "--start")
        wait_connected(system)
        publish(subscriber, half)
        wait_until(lambda half=half: len(subscriber.messages) >= len(half), "the half is predicted")
        assert f"kept /var/lib/{NAME}" in system.edge_lstm("device", "uninstall", config).stdout
        assert system.show(NAME, "LoadState") == "not-found"
    wait_until(
        lambda: by_stream_without_repeats(subscriber.messages) == undisturbed(bundle_path, readings), "it went on"
    )
    assert Bundle.open(bundle_path).id == json.loads(subscriber.messages[-1].payload)["bundle"]
