"""A service that reloads another config, or continues without files that it had at its start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.bundle.archive import Bundle
from edge_lstm.foundation.config import read_toml
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.messages.encoder import decode_prediction
from edge_lstm.service.config import ServiceConfig, read_service_config
from edge_lstm.service.database.store import Store
from edge_lstm.service.runner import serve
from edge_lstm.service.service import Service
from edge_lstm.streaming.reading import Reading
from edge_lstm.streaming.stream_table import StreamTable
from tests.deadline import wait_until
from tests.flow.test_exactly_once import last_revisions
from tests.flow.test_exactly_once_in_parts import replayed

Make = Callable[..., Any]


def reading(number: int) -> str:
    return encode_reading(Reading("tank-0", 1_700_000_000.0 + 60 * number, {"level": 1.0 + number % 5}))


def reload_and_wait(service: Any) -> None:
    before = service.log.read_text().count("connected address")
    service.process.send_signal(signal.SIGHUP)

    def back() -> bool:
        assert service.process.poll() is None, service.log.read_text()
        return service.log.read_text().count("connected address") > before

    wait_until(back, "the service is back")


def test_a_reload_survives_a_deleted_password_file(
    bundle_path: Path, start_mosquitto: Make, start_service: Make
) -> None:
    passwords, password = bundle_path.parent / "passwords", bundle_path.parent / "password"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(passwords), "pump", "s3cret"], check=True, capture_output=True)
    passwords.chmod(0o644)
    password.write_text("s3cret\n")
    password.chmod(0o600)
    broker = start_mosquitto(f"allow_anonymous false\npassword_file {passwords}")
    login = '[mqtt]\nurl = "{}"\nclient_id = "edge-lstm-test"\nusername = "pump"\npassword_file = "password"\n'
    service = start_service(bundle_path, broker.address)  # refused without a password, until it gets one
    wait_until(lambda: "broker refuses us" in service.log.read_text(), "it is refused")
    config = bundle_path.parent / "service.toml"
    config.write_text(f'bundle = "{bundle_path.name}"\nbackend = "numpy"\n{login.format(broker.address)}')
    reload_and_wait(service)
    password.unlink()
    reload_and_wait(service)
    assert "reload refused, going on as before: expected to read" in service.log.read_text()
    assert service.stop() == 0


@pytest.mark.parametrize("known", [True, False])
def test_a_lost_session_is_noticed_even_without_history(bundle_path: Path, known: bool) -> None:
    bundle = Bundle.open(bundle_path)
    store = Store(bundle_path.parent / "state.db", bundle.id, StreamTable(bundle.contract).layout)
    if known:
        store.commit(1, [("tank-0", b"")], [], 0, [], 0)
    store.close(1)
    config = bundle_path.parent / "service.toml"
    config.write_text(f'bundle = "{bundle_path.name}"\nhistory = 0\n[mqtt]\nurl = "mqtt://localhost:1"\n')
    service = Service(read_service_config(config), config.parent)
    assert service._mqtt._expects_session is known
    service._store.close(0)


def test_unusable_certificates_leave_the_states_of_another_bundle(bundle_path: Path) -> None:
    state = bundle_path.parent / "state.db"
    store = Store(state, "another bundle", "layout")
    store.commit(1, [("tank-0", b"row")], [], 0, [], 0)
    store.close(1)
    (bundle_path.parent / "ca.pem").write_text("changed since the config was read")
    config = bundle_path.parent / "service.toml"
    mqtt = '[mqtt]\nurl = "mqtts://localhost:1"\nca_file = "ca.pem"\n'
    config.write_text(f'bundle = "{bundle_path.name}"\nbackend = "numpy"\n{mqtt}')
    with pytest.raises(EdgeLstmError, match=r"expected certificates in PEM at .*ca\.pem"):
        Service(read_toml(config, ServiceConfig), config.parent)
    store = Store(state, "another bundle", "layout")
    assert store.row("tank-0") == (b"row", "layout")
    store.close(1)


def test_repeats_are_expected_before_the_subscription_is_confirmed(bundle_path: Path) -> None:
    config = bundle_path.parent / "service.toml"
    config.write_text(f'bundle = "{bundle_path.name}"\nbackend = "numpy"\n[mqtt]\nurl = "mqtt://localhost:1"\n')
    service = Service(read_service_config(config), config.parent)
    service._outbox.restore([], ["7:a"])
    service._mqtt._connection_count = 1  # accepted, and not subscribed
    service._receive([])
    service._outbox.put(1, [], ["1:b"])
    service._mqtt._connection_count = 2
    service._receive([])
    assert service._outbox.forgettable < 0
    assert service._outbox._repeats_left == 2000
    service._store.close(0)


def test_removed_topics_are_unsubscribed(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    config = bundle_path.parent / "service.toml"
    service = start_service(bundle_path, mosquitto.address, '[input]\ntopic = "old/{stream}"\n')
    service.wait_connected()
    config.write_text(config.read_text().replace("old/", "new/"))
    reload_and_wait(service)
    subscriber.publish("old/tank-0", reading(0))
    subscriber.publish("new/tank-0", reading(1))
    wait_until(lambda: len(subscriber.messages) == 1, "the reading on the new topic is predicted")
    config.write_text(config.read_text().replace("new/", "old/"))
    reload_and_wait(service)
    subscriber.publish("old/tank-0", reading(2))
    wait_until(lambda: len(subscriber.messages) == 2, "what was taken back is there again")
    assert [json.loads(one.payload)["step"] for one in subscriber.messages] == [1, 2]
    assert service.stop() == 0
    stopped = [line for line in service.log.read_text().splitlines() if " stopped " in line]
    assert all("ignored=0" in line for line in stopped)


def test_a_reload_signal_during_startup_does_not_end_the_service(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def asked(path: Path) -> Any:
        os.kill(os.getpid(), signal.SIGHUP)
        read.append(path)
        raise EdgeLstmError("expected a config, found that this is a test")

    before = signal.getsignal(signal.SIGHUP)
    monkeypatch.setattr("edge_lstm.service.runner.read_service_config", asked)
    try:
        with pytest.raises(EdgeLstmError, match="found that this is a test"):
            serve(bundle_path.parent / "service.toml")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert len(read) == 1


def test_a_reload_signal_during_a_reload_is_not_lost(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = bundle_path.parent / "service.toml"
    config.write_text(f'bundle = "{bundle_path.name}"\n[mqtt]\nurl = "mqtt://localhost:1"\n')
    runs: list[bool] = []  # of each service in turn: whether it was stopped before it ran
    made: list[object] = []

    class Stub:
        def __init__(self, *arguments: object, **options: object) -> None:
            self.stopped, self.config = False, read_service_config(config)
            made.append(self)
            if len(made) == 2:
                os.kill(os.getpid(), signal.SIGHUP)

        def stop(self) -> None:
            self.stopped = True

        def stop_after(self, preparation: object) -> None:
            self.stopped = True

        def run(self) -> None:
            runs.append(self.stopped)
            if not self.stopped:
                os.kill(os.getpid(), signal.SIGHUP if len(made) == 1 else signal.SIGTERM)

    before = signal.getsignal(signal.SIGHUP)
    monkeypatch.setattr("edge_lstm.service.runner.Service", Stub)
    try:
        serve(config)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert runs == [False, True, False]


def test_a_replay_steps_readings_by_the_rules_of_their_time(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    start, count = 1_700_000_000.0, 0
    for round_, rules in enumerate(["max_rewind = 8", "max_rewind = 2", 'late = "drop"']):
        service = start_service(bundle_path, mosquitto.address, rules)
        service.wait_connected()
        # two late readings, one after the other: both are inserted, then one, then none
        parts = [([*range(12)], 12), ([6.5], [6, 0, 0][round_]), ([10.5], [2, 2, 0][round_])]
        for minutes, predicted in parts:
            for minute in minutes:
                time = start + 60 * (20 * round_ + minute)
                subscriber.publish("sensors/tank-0", encode_reading(Reading("tank-0", time, {"level": minute})))
            count += predicted  # with the predictions that a late reading corrects
            wait_until(lambda count=count: len(subscriber.messages) == count, "all is predicted")  # type: ignore[misc]
        assert service.stop() == 0
    published = [decode_prediction(message.payload.decode()) for message in subscriber.messages]
    assert len(last_revisions(published)) == 14 + 13 + 12
    assert last_revisions(replayed(bundle_path)) == last_revisions(published)
