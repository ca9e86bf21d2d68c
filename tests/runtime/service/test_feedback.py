"""An operator's commands to a service: what they change, what they answer, and what a replay makes of them."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edge_lstm import Bundle, Predictor, Reading
from edge_lstm.bundle.contract import Alarm
from edge_lstm.cli.main import main
from edge_lstm.foundation.times.text import format_time
from edge_lstm.mqtt.connection import Message
from edge_lstm.service.config import read_service_config
from edge_lstm.service.feedback.labels import export_labels
from edge_lstm.service.service import Service, stepping_rules
from tests.networks import contract_of, random_network

START = 1_700_000_000
READINGS = 200
COMMANDS, ANSWERS = "edge-lstm/edge-lstm/feedback", "edge-lstm/edge-lstm/feedback/answers"

Make = Callable[..., Any]


class Operated:
    """A service that never finds its broker: the tests hand it messages, and read what it would publish."""

    def __init__(self, folder: Path, extra: str = "", step: float = 1.25) -> None:
        self.folder, self._packet = folder, 0
        config = folder / "service.toml"
        config.write_text(
            f'bundle = "tank.elstm"\nbackend = "numpy"\n{extra}\n[feedback]\nenabled = true\n'
            f'step = {step}\nmost = 1.5\nhalf_life_days = 1\n[mqtt]\nurl = "mqtt://localhost:1"\n'
        )
        self.config = read_service_config(config)
        self.service = Service(self.config, folder)
        self.table = self.service._predictor.table

    def message(self, topic: str, payload: bytes, *, repeated: bool = False, retained: bool = False) -> Message:
        self._packet += not repeated
        return Message(topic, payload, self._packet, 0, 1, repeated, retained)

    def take(self, *messages: Message) -> None:
        service = self.service
        service._inbox.add(messages)
        while service._inbox or service._slices:
            if service._slices:
                service._deliver(service._processor.go_on())
            if service._inbox:
                service._process_next()

    def read(self, stream: str, first: int, last: int) -> None:
        """Hand over the readings with these numbers, a batch of ten at a time."""
        for begin in range(first, last, 10):
            self.take(
                *(
                    self.message(f"sensors/{stream}", json.dumps({"time": one.time, **one.values}).encode())
                    for one in readings(stream)[begin : min(begin + 10, last)]
                )
            )

    def ask(self, **command: Any) -> dict[str, Any]:
        """Hand over a command; its answer."""
        self.take(self.message(COMMANDS, json.dumps(command).encode()))
        return self.answers()[-1]

    def published(self, topic: str) -> list[bytes]:
        """The payloads on the topic that wait for the broker."""
        _, batches, _ = self.service._store.load()
        return [payload for _, messages in batches for at, payload in messages if at.startswith(topic)]

    def answers(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.published(ANSWERS)]

    def record(self, stream: str = "a") -> Any:
        return self.table.current[self.table.slot(stream)]

    def event(self, stream: str = "a") -> str:
        return f"{stream}@{format_time(float(self.record(stream)['alarm_begins'][0]))}"

    def rows(self) -> dict[str, bytes]:
        return {name: self.table.row(name) for name in self.table.names}


def readings(stream: str) -> list[Reading]:
    """Of a tank: first usual levels, then short episodes of others."""
    rng = random.Random(stream)
    return [
        Reading(stream, START + 60.0 * minute, {"level": round(rng.gauss(1 + 4 * (minute % 40 > 36), 1), 3)})
        for minute in range(READINGS)
    ]


@pytest.fixture
def bundle(tmp_path: Path, make_bundle: Make) -> Bundle:
    network = random_network(inputs=1, outputs=1)
    alarm = Alarm(span_steps=3, settle_steps=3, calibrate_steps=30, quantile=0.9, factor=1.0)
    contract = contract_of(network, task="anomaly", alarm=alarm, horizons=[1], clock=[])
    make_bundle(tmp_path / "tank.elstm", network, contract)
    return Bundle.open(tmp_path / "tank.elstm")


@pytest.fixture
def operated(bundle: Bundle, tmp_path: Path) -> Operated:
    found = Operated(tmp_path, "late = 'rewind'\nmax_rewind = 4")
    found.read("a", 0, 120)
    return found


def test_a_false_alarm_raises_the_threshold_of_its_stream_alone(operated: Operated) -> None:
    operated.read("b", 0, 50)
    before = operated.rows()["b"]
    peak = float(operated.record()["alarm_peaks"][0])
    answer = operated.ask(id="1", command="false_alarm", event=operated.event())
    assert peak > 1.5
    assert answer == {
        "id": "1",
        "ok": True,
        "command": "false_alarm",
        "stream": "a",
        "threshold": {"before": 1.0, "after": 1.5, "most": 1.5},
        "text": "a: threshold 1.5 times the calibrated one, before 1 times",
    }
    assert operated.rows()["b"] == before


def test_a_false_alarm_raises_the_threshold_to_its_peak(operated: Operated) -> None:
    record = operated.record()
    record["alarm_peaks"][0] = 1.2
    answer = operated.ask(id="1", command="false_alarm", event=operated.event())
    assert answer["threshold"]["after"] == 1.2


def test_marks_move_the_threshold_no_further_than_most(operated: Operated) -> None:
    last = float(operated.record()["time"])
    for number in range(3):
        times = {"from": last - 600, "to": last}
        operated.ask(id=f"m{number}", command="missed", stream="a", **times)
    assert operated.answers()[-1]["threshold"] == {"before": 0.666667, "after": 0.666667, "most": 1.5}


def test_a_command_that_comes_twice_changes_nothing_again(operated: Operated) -> None:
    event = operated.event()
    first = operated.ask(id="1", command="false_alarm", event=event)
    rows = operated.rows()
    assert operated.ask(id="1", command="false_alarm", event=event) == first
    assert operated.rows() == rows
    answers = operated.answers()
    operated.take(operated.message(COMMANDS, json.dumps({"id": "2"}).encode()))
    operated.take(operated.message(COMMANDS, json.dumps({"id": "2"}).encode(), repeated=True))  # by the broker
    assert len(operated.answers()) == len(answers) + 1
    assert operated.rows() == rows


def test_a_revert_brings_back_the_scores_to_the_bit(operated: Operated) -> None:
    without = operated.rows()["a"]
    operated.ask(id="1", command="false_alarm", event=operated.event(), residuals=True)
    operated.read("a", 120, 124)
    record = operated.record().copy()
    assert record["excused"].any()
    assert operated.ask(id="2", command="revert", of="1")["threshold"]["after"] == 1.0
    operated.read("a", 124, 160)
    reverted = operated.published("predictions/")[-36:]
    operated.table.put_row("a", without)
    operated.read("a", 120, 160)
    assert operated.published("predictions/")[-36:] == reverted
    assert operated.ask(id="3", command="revert", of="1")["ok"] is False


def test_half_of_a_move_is_gone_after_a_half_life(operated: Operated) -> None:
    operated.ask(id="1", command="missed", stream="a", **{"from": START, "to": START + 60})
    operator = operated.service._feedback._operator  # type: ignore[union-attr]
    record = operated.record()
    factors = [operator.factor(record, float(record["time"]) + days * 86_400) for days in (0, 1, 2)]
    assert factors == pytest.approx([1.25**-1, 1.25**-0.5, 1.25**-0.25])


def test_residuals_lower_a_score_by_no_more_than_most(operated: Operated) -> None:
    operator = operated.service._feedback._operator  # type: ignore[union-attr]
    record, slot = operated.record(), np.array([operated.table.slot("a")])
    operator.move(record, 1, float(record["time"]), 0.0, excused=record["whitening"][0] * 1e6)
    far = record["smoothed"][None] + 1e3, np.array([3.0])
    assert operator.scores(operated.table.current, slot, *far) == pytest.approx([2.0])


def test_maintenance_has_no_alarms_and_learns_nothing(bundle: Bundle, tmp_path: Path) -> None:
    operated = Operated(tmp_path)
    operated.read("a", 0, 20)
    answer = operated.ask(id="1", command="maintenance", stream="a", until=START + 60 * 150)
    assert answer["until"] == format_time(START + 60 * 150)
    operated.read("a", 20, 151)
    found = [json.loads(payload) for payload in operated.published("predictions/")]
    assert {one["alarm"] for one in found[20:]} == {False}
    assert int(operated.record()["calibrated"]) == 20 - 3
    assert int(operated.record()["step"]) == 151
    assert operated.ask(id="2", command="revert", of="1")["ok"]
    operated.read("a", 151, 200)
    assert int(operated.record()["calibrated"]) == 30


def test_a_late_reading_keeps_what_a_command_moved(operated: Operated) -> None:
    event = f"a@{format_time(float(operated.record()['alarm_begins'][1]))}"  # the last one may change with the reading
    operated.ask(id="1", command="false_alarm", event=event)
    before = operated.record()["raised"]
    late = {"time": START + 60 * 118.5, "level": 1.0}
    operated.take(operated.message("sensors/a", json.dumps(late).encode()))
    assert int(operated.record()["step"]) == 121
    assert operated.record()["raised"] == before > 0
    assert operated.record()["move_events"][0] in operated.record()["alarm_begins"]
    assert operated.ask(id="2", command="false_alarm", event=event)["ok"] is False  # marked already


@pytest.mark.parametrize("first", [0, 40])
def test_a_recalibrated_stream_equals_a_fresh_one(operated: Operated, bundle: Bundle, first: int) -> None:
    begin = readings("a")[first].time
    answer = operated.ask(id="1", command="recalibrate", stream="a", **{"from": begin})
    assert answer["steps"] == 120 - first, answer
    fresh = Predictor.of(bundle, "numpy", **stepping_rules(operated.config)._asdict())
    for one in readings("a")[first:120]:
        fresh.feed([one])
    assert operated.table.row("a") == fresh.table.row("a")
    operated.read("a", 120, 160)
    for one in readings("a")[120:160]:
        fresh.feed([one])
    operated.table.announced[operated.table.slot("a")] = 0  # what was published of an alarm, which `fresh` has not
    assert operated.table.row("a") == fresh.table.row("a")


def test_a_history_that_does_not_reach_lets_the_stream_begin_now(bundle: Bundle, tmp_path: Path) -> None:
    operated = Operated(tmp_path, "history = 30\nhistory_max_mb = 0.1")
    operated.read("a", 0, 200)
    answer = operated.ask(id="1", command="recalibrate", stream="a", **{"from": START})
    assert answer["steps"] == 0
    assert "since the history does not reach 2023-11-14T22:13:20Z" in answer["text"]
    fresh = Predictor.of(bundle, "numpy", **stepping_rules(operated.config)._asdict())
    fresh.table.slot("a")
    assert operated.table.row("a") == fresh.table.row("a")


def test_a_replaced_sensor_restarts_the_state_and_the_calibration(operated: Operated) -> None:
    assert operated.ask(id="1", command="sensor_replaced", stream="a", sensor="level")["ok"]
    record = operated.record()
    assert (int(record["warm_steps"]), int(record["calibrated"]), int(record["step"])) == (0, 0, 120)
    operated.read("a", 120, 160)
    assert int(operated.record()["calibrated"]) == 30


REFUSED = {
    "not JSON": (b"{", "expected JSON"),
    "no object": (b"[1]", "expected a JSON object"),
    "deeply nested": (b"[" * 4000, "expected JSON"),
    "too large": (b'{"id": "x", "command": "' + b"a" * 4096 + b'"}', "expected a command of at most 4096 bytes"),
    "without id": (b'{"command": "missed"}', "expected an id of 1 to 64 printable characters"),
    "unknown command": (b'{"id": "x", "command": "false_alarms"}', "expected a command"),
    "unknown key": (b'{"id": "x", "command": "revert", "of": "1", "off": 1}', 'revert: expected no key "off"'),
    "missing key": (
        b'{"id": "x", "command": "missed", "stream": "a", "from": 1}',
        "missed: expected to, found nothing",
    ),
    "no time": (b'{"id": "x", "command": "maintenance", "stream": "a", "until": "soon"}', "maintenance: until:"),
    "unknown stream": (b'{"id": "x", "command": "recalibrate", "stream": "z"}', "recalibrate: expected a stream that"),
    "unknown sensor": (b'{"id": "x", "command": "sensor_replaced", "stream": "a", "sensor": "b"}', "sensor_replaced:"),
    "unknown event": (b'{"id": "x", "command": "false_alarm", "event": "a@2001-01-01T00:00:00Z"}', "false_alarm:"),
    "no event": (b'{"id": "x", "command": "false_alarm", "event": "a"}', "false_alarm: expected"),
    "unknown id": (b'{"id": "x", "command": "revert", "of": "y"}', "revert: expected the id of a command"),
    "long maintenance": (
        b'{"id": "x", "command": "maintenance", "stream": "a", "until": "2024-01-01T00:00:00Z"}',
        "maintenance: expected an end at most 72 hours after",
    ),
}


def test_a_command_that_is_wrong_is_answered_with_the_reason(operated: Operated) -> None:
    rows = operated.rows()
    for number, (what, (form, reason)) in enumerate(REFUSED.items()):
        payload = form.replace(b'"x"', f'"x{number}"'.encode())
        operated.take(operated.message(COMMANDS, payload))
        answer = operated.answers()[-1]
        assert answer["ok"] is False, what
        assert answer["error"].startswith(reason), what
        assert answer["hint"], what
        assert ("id" in answer) == (b'"id"' in payload and what != "too large"), what
    assert operated.rows() == rows
    assert operated.service._store.answer("x5") is not None
    operated.take(operated.message(COMMANDS, b'{"id": "r", "command": "recalibrate", "stream": "a"}', retained=True))
    assert operated.answers()[-1]["error"] == "expected a command that is not retained, found a retained one"
    assert operated.rows() == rows


def test_commands_replay_at_their_place(operated: Operated, tmp_path: Path) -> None:
    operated.ask(id="1", command="false_alarm", event=operated.event(), residuals=True)
    operated.read("a", 120, 130)
    operated.read("b", 0, 100)
    operated.ask(id="2", command="recalibrate", stream="a", **{"from": START + 60 * 20})
    operated.ask(id="3", command="maintenance", stream="b", until=START + 60 * 120)
    operated.read("b", 100, 130)
    operated.read("a", 130, 170)
    operated.ask(id="4", command="missed", stream="a", **{"from": START, "to": START + 60})
    operated.ask(id="5", command="sensor_replaced", stream="b", sensor="level")
    operated.ask(id="6", command="revert", of="4")
    operated.read("a", 170, 200)
    operated.read("b", 130, 200)
    assert all(answer["ok"] for answer in operated.answers())
    published = sorted(payload.decode() for payload in operated.published("predictions/"))
    operated.service._store.close(0)
    arguments = ["replay", str(tmp_path / "tank.elstm"), "--history", str(tmp_path / "state.db"), "--json"]
    result = CliRunner().invoke(main, [*arguments, "--backend", "numpy"])
    assert result.exit_code == 0, result.output
    assert sorted(result.stdout.splitlines()) == published
    assert len(published) == 400


def test_labels_hold_what_was_said_and_not_reverted(operated: Operated, tmp_path: Path) -> None:
    event = operated.event()
    end = format_time(float(operated.record()["alarm_ends"][0]))
    operated.ask(id="1", command="false_alarm", event=event)
    operated.ask(id="2", command="missed", stream="a", **{"from": START, "to": START + 60})
    operated.ask(id="3", command="missed", stream="a", **{"from": START, "to": START + 90})
    operated.ask(id="4", command="revert", of="3")
    operated.service._store.close(0)
    result = CliRunner().invoke(main, ["feedback", str(tmp_path / "service.toml"), "export"])
    assert result.stdout.splitlines() == [
        "from,to,stream,kind,id",
        f"{event.partition('@')[2]},{end},a,false_alarm,1",
        "2023-11-14T22:13:20Z,2023-11-14T22:14:20Z,a,missed,2",
    ]


def test_commands_are_readings_like_others_where_feedback_is_off(bundle: Bundle, tmp_path: Path) -> None:
    operated = Operated(tmp_path)
    operated.service._store.close(0)
    config = tmp_path / "service.toml"
    config.write_text(config.read_text().replace("enabled = true", "enabled = false"))
    assert read_service_config(config).subscriptions == ["sensors/+"]
    service = Service(read_service_config(config), tmp_path)
    assert "maintenance" not in (service._predictor.table.current.dtype.names or ())
    result = CliRunner().invoke(main, ["feedback", str(config), "revert", "1"])
    assert result.exit_code == 1
    assert "set enabled = true under [feedback]" in result.stderr


def test_a_missed_alarm_is_a_label_alone_where_its_step_is_one(bundle: Bundle, tmp_path: Path) -> None:
    operated = Operated(tmp_path, step=1.0)
    operated.read("a", 0, 60)
    answer = operated.ask(id="1", command="missed", stream="a", **{"from": START, "to": START + 60})
    assert answer["text"] == "a: kept as a label; the threshold stays"
    assert operated.ask(id="2", command="revert", of="1")["text"] == "a: the command 1 does not hold any more"
    assert not operated.record()["is_moved"]


def test_a_damaged_command_is_unknown(operated: Operated, caplog: pytest.LogCaptureFixture) -> None:
    operated.ask(id="1", command="missed", stream="a", **{"from": START, "to": START + 60})
    operated.service._store.close(0)
    with sqlite3.connect(operated.folder / "state.db") as database:
        database.execute("update commands set answer = '{}'")
    database.close()
    assert export_labels(operated.folder / "state.db") == "from,to,stream,kind,id\n"
    assert "command of an operator damaged, it is not known any more id=1" in caplog.text
