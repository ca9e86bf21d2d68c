"""An operator's commands under kills: predictions, rows and answers are those of an undisturbed run and a replay."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_lstm import Bundle, Predictor, Reading
from edge_lstm.bundle.contract import Alarm
from edge_lstm.cli.main import main
from edge_lstm.decisions.alarms.operator import Operator
from edge_lstm.foundation.times.text import format_time
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.messages.encoder import encode_prediction
from edge_lstm.service.config import ServiceConfig, read_service_config
from edge_lstm.service.feedback import answers
from edge_lstm.service.feedback.applying import Numbered, apply
from edge_lstm.service.feedback.checks import CommandChecks
from edge_lstm.service.feedback.commands import KEYS, request_of
from edge_lstm.service.service import stepping_rules
from edge_lstm.streaming.reading import Command
from tests.deadline import wait_until
from tests.flow.killed_service import BEFORE_ACKNOWLEDGE, BEFORE_COMMIT, BEFORE_PUBLISH
from tests.flow.test_exactly_once import CONNECTED, READINGS, Rig, readings_of
from tests.networks import contract_of, random_network

Make = Callable[..., Any]

STREAMS = 5
EVERY = 15  # readings between two commands
TOPIC = "edge-lstm/edge-lstm-test/feedback"
EXTRA = "feedback.enabled = true\nfeedback.step = 1.25\nfeedback.half_life_days = 0.5"


class Undisturbed:
    """The readings and commands in their order, without a service: predictions, rows and answers."""

    def __init__(self, bundle: Bundle, config: ServiceConfig) -> None:
        rules = stepping_rules(config)
        self.bundle, self.predictor = bundle, Predictor.of(bundle, "numpy", **rules._asdict())
        self.operator = Operator(rules.decision_rules)
        self.config = config
        self.kept: list[Numbered] = []
        self.commands: dict[str, Command] = {}
        self.payloads: list[str] = []
        self.answers: dict[str, dict[str, Any]] = {}
        self.checks = CommandChecks(config.feedback, self.predictor, self._kept, self.commands.get)

    def _kept(self, stream: str) -> tuple[list[Numbered], bool]:
        return [one for one in self.kept if one[1].stream == stream], True

    def read(self, reading: Reading) -> None:
        self.kept.append((len(self.kept), reading))
        found = self.predictor.feed([reading])
        self.payloads += [encode_prediction(one, self.bundle.id) for one in found]

    def take(self, payload: str) -> None:
        command = self.checks.command(request_of(payload.encode()))
        change = apply(self.predictor, self.operator, command, lambda: self._kept(command.stream)[0])
        self.commands[command.id] = command
        self.answers[command.id] = json.loads(answers.taken(command, change, self.config.feedback.most))


def next_command(number: int, stream: str, run: Undisturbed) -> dict[str, Any]:
    """A command of each kind in turn; a false alarm only where there is an event to mark."""
    record = run.predictor.table.current[run.predictor.table.slot(stream)]
    last = float(record["time"])
    if number % 7 == 2:
        return {"command": "maintenance", "stream": stream, "until": last + 300}
    if number % 7 == 4:
        return {"command": "recalibrate", "stream": stream, "from": last - 60 * 90}
    if number % 28 == 5:
        return {"command": "sensor_replaced", "stream": stream, "sensor": "level"}
    former = f"c{number - 1}"
    if number % 7 == 3 and run.commands[former].kind != "sensor_replaced":
        return {"command": "revert", "of": former}
    if record["alarm_begins"][0] and record["alarm_begins"][0] not in record["move_events"]:
        event = f"{stream}@{format_time(float(record['alarm_begins'][0]))}"
        return {"command": "false_alarm", "event": event, "residuals": number % 2 == 0}
    return {"command": "missed", "stream": stream, "from": last - 60, "to": last}


@pytest.mark.timeout(300)
def test_commands_under_kills_change_what_they_change_once(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    network = random_network(inputs=1, outputs=1)
    alarm = Alarm(span_steps=5, settle_steps=3, calibrate_steps=40, quantile=0.9, factor=1.0)
    contract = contract_of(network, task="anomaly", alarm=alarm, horizons=[1], clock=[])
    bundle = make_bundle(tmp_path / "tank.elstm", network, contract)
    kills = {CONNECTED: 1, BEFORE_COMMIT: 1, BEFORE_PUBLISH: 1, BEFORE_ACKNOWLEDGE: 2}
    said = subscribe(mosquitto.address, f"{TOPIC}/answers")
    rig = Rig(tmp_path / "tank.elstm", mosquitto, start_service, subscribe, kills, EXTRA)
    run = Undisturbed(bundle, read_service_config(tmp_path / "service.toml"))
    messages: list[tuple[str, str]] = []
    for index, reading in enumerate(readings_of(READINGS // 20, STREAMS)):
        run.read(reading)
        messages.append((f"sensors/{reading.stream}", encode_reading(reading)))
        if index % EVERY == 0 and index > 60 * STREAMS:
            number = len(run.commands)
            payload = json.dumps({"id": f"c{number}", **next_command(number, f"tank-{number % STREAMS}", run)})
            run.take(payload)
            messages += [(TOPIC, payload)] * (1 + number % 3)  # some come again
    assert {one.kind for one in run.commands.values()} == set(KEYS)
    rig.publish(messages, restarts=0)
    rig.wait_for(sorted(set(run.payloads)), payloads_of(bundle), "the predictions equal those of the undisturbed run")
    assert rig.hits == kills
    rig.close()
    found: dict[str, dict[str, Any]] = {}
    for answer in said.payloads():
        assert found.setdefault(answer["id"], answer) == answer
    assert found == run.answers
    assert stored_as_in(run.predictor, tmp_path / "state.db")
    arguments = ["replay", str(tmp_path / "tank.elstm"), "--history", str(tmp_path / "state.db"), "--json"]
    replayed = CliRunner().invoke(main, [*arguments, "--backend", "numpy"])
    assert sorted(replayed.stdout.splitlines()) == sorted(run.payloads)


def payloads_of(bundle: Bundle) -> Callable[[Any], list[str]]:
    """What a subscriber has: the payloads, each once."""
    return lambda predictions: sorted({encode_prediction(one, bundle.id) for one in predictions})


def stored_as_in(predictor: Predictor, path: Path) -> bool:
    """Whether a database has the predictor's rows, but for what a service notes of its messages about events."""
    with sqlite3.connect(path) as database:
        stored = dict(database.execute("select stream, row from streams"))
    database.close()
    table, names = predictor.table, sorted(predictor.table.names)
    steps = [table.row(name) for name in names]
    for name in names:
        table.put_row(name, stored.pop(name), table.layout)
        table.announced[table.slot(name)] = 0
        table.reported_faults[table.slot(name)] = 0
    return not stored and [table.row(name) for name in names] == steps


def test_a_command_from_a_shell_is_answered(
    tmp_path: Path, bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    predicted = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address, "feedback.enabled = true")
    service.wait_connected()
    for reading in readings_of(3, 1):
        predicted.publish(f"sensors/{reading.stream}", encode_reading(reading))
    wait_until(lambda: len(predicted.messages) == 3, "three predictions")
    program = ["feedback", str(tmp_path / "service.toml")]
    result = CliRunner().invoke(
        main, [*program[:1], "--id", "a1", program[1], "maintenance", "tank-0", "2023-11-15T00:00Z"]
    )
    assert result.exit_code == 0, result.output
    until = "no alarms and nothing learned until 2023-11-15T00:00:00Z; the state goes on"
    assert result.stdout == f"tank-0: {until}\nid: a1\n"
    refused = CliRunner().invoke(main, [*program, "recalibrate", "tank-1"])
    assert refused.exit_code == 1
    assert refused.stderr.startswith('error: recalibrate: expected a stream that had readings, found "tank-1"')
    service.stop()
    silent = CliRunner().invoke(main, ["feedback", "--timeout", "0.5", program[1], "revert", "a1"])
    assert silent.exit_code == 1
    assert "within 0.5 s, found none" in silent.stderr
    exported = CliRunner().invoke(main, [*program, "export"])
    assert exported.stdout.splitlines()[1].startswith("2023-11-14T22:15:20Z,2023-11-15T00:00:00Z,tank-0,maintenance,a1")
