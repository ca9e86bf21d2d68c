"""What a stopped service kept becomes a recording that a training reads, with what operators said as labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_lstm import Reading
from edge_lstm.bundle.contract import Alarm, Feature
from edge_lstm.cli.main import main
from edge_lstm.recordings.recording import Columns, read_recording
from edge_lstm.service.database.history_reader import Part
from edge_lstm.service.database.spans import SteppingRules
from edge_lstm.service.database.stored_streams import forget_streams
from edge_lstm.service.kept_recording import history_csv, readings_by_stream
from edge_lstm.streaming.reading import Command
from tests.networks import contract_of, random_network
from tests.runtime.service.test_feedback import START, Operated, readings

Make = Callable[..., Any]


def bundle_in(folder: Path, make_bundle: Make, file: str = "tank.elstm", **changes: object) -> None:
    network = random_network(inputs=len(changes.get("features", "1")), outputs=1)  # type: ignore[arg-type]
    alarm = Alarm(span_steps=3, settle_steps=3, calibrate_steps=30, quantile=0.9, factor=1.0)
    contract = contract_of(network, task="anomaly", alarm=alarm, horizons=[1], clock=[], **changes)
    make_bundle(folder / file, network, contract)


def exported(folder: Path, *options: str) -> Any:
    return CliRunner().invoke(main, ["history", "export", str(folder / "service.toml"), *options])


def test_the_kept_readings_read_back_the_same_with_their_labels(tmp_path: Path, make_bundle: Make) -> None:
    bundle_in(tmp_path, make_bundle)
    operated = Operated(tmp_path)
    operated.read("b", 0, 10)
    operated.read("a", 0, 10)
    operated.ask(id="1", command="missed", stream="a", **{"from": START + 60, "to": START + 120})
    operated.ask(id="2", command="missed", stream="a", **{"from": START + 180, "to": START + 240})
    operated.ask(id="3", command="revert", of="2")
    operated.service._store.close(0)
    result = exported(tmp_path, "-o", str(tmp_path / "kept.csv"))
    assert result.exit_code == 0, result.output
    columns = Columns({name: name for name in ("level", "missed", "maintenance")}, stream_column="stream")
    recorded = list(read_recording(tmp_path / "kept.csv", columns).readings())
    expected = [(one.stream, one.time, one.values["level"]) for name in "ab" for one in readings(name)[:10]]
    assert sorted((one.stream, one.time, one.values["level"]) for one in recorded) == expected
    missed = [(one.stream, one.time - START) for one in recorded if one.values["missed"]]
    assert missed == [("a", 60), ("a", 120)]
    assert {one.values["maintenance"] for one in recorded} == {0}
    only = exported(tmp_path, "--stream", "b")
    assert [line.split(",")[1] for line in only.stdout.splitlines()[1:]] == ["b"] * 10


def test_readings_of_another_bundle_are_refused(tmp_path: Path, make_bundle: Make) -> None:
    bundle_in(tmp_path, make_bundle)
    bundle_in(tmp_path, make_bundle, "other.elstm", name="other")
    operated = Operated(tmp_path)
    operated.read("a", 0, 10)
    operated.service._store.close(0)
    result = exported(tmp_path, "--bundle", str(tmp_path / "other.elstm"))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: expected readings in {tmp_path / 'state.db'} that bundle ")
    assert "name the bundle that ran (--bundle)" in result.stderr


def test_parts_of_a_sample_are_one_row_as_they_were_one_step(tmp_path: Path, make_bundle: Make) -> None:
    bundle_in(tmp_path, make_bundle, features=[Feature("level"), Feature("flow")])
    operated = Operated(tmp_path, "[input]\njoin = { within_s = 5 }")

    def part(second: float, **values: float) -> None:
        content = json.dumps({"time": START + second, **values}).encode()
        operated.take(operated.message("sensors/a", content))

    part(0, level=1.25)
    part(2, flow=7.0)
    part(60, level=2.25)  # its other part is lost
    part(120, flow=9.0)
    part(121, flow=9.5)
    part(2, flow=7.0)  # comes again
    part(123, level=3.25)
    part(180, level=4.25, flow=8.0)
    part(123, level=3.25)
    part(240, level=5.25)
    part(241, level=5.5, flow=6.0)  # whole
    stepped = [json.loads(one)["time"] for one in operated.published("predictions/")]
    operated.service._store.close(0)
    rows = [line.split(",")[:4] for line in exported(tmp_path).stdout.splitlines()[1:]]
    assert rows == [
        ["2023-11-14T22:13:22Z", "a", "1.25", "7.0"],
        ["2023-11-14T22:14:20Z", "a", "2.25", ""],
        ["2023-11-14T22:15:23Z", "a", "3.25", "9.5"],
        ["2023-11-14T22:16:20Z", "a", "4.25", "8.0"],
        ["2023-11-14T22:17:21Z", "a", "5.5", "6.0"],
    ]
    assert [row[0] for row in rows] == stepped


def test_a_forgotten_stream_is_left_out_up_to_then(tmp_path: Path, make_bundle: Make) -> None:
    bundle_in(tmp_path, make_bundle)
    operated = Operated(tmp_path)
    operated.read("a", 0, 10)
    operated.read("b", 0, 10)
    operated.service._store.close(0)
    forget_streams(tmp_path / "state.db", ["a"])
    operated = Operated(tmp_path)
    operated.read("a", 10, 12)
    operated.service._store.close(0)
    rows = [line.split(",")[:3] for line in exported(tmp_path).stdout.splitlines()[1:]]
    expected = [(one.stream, str(one.values["level"])) for one in (*readings("a")[10:12], *readings("b")[:10])]
    assert [(stream, value) for _, stream, value in rows] == expected


def test_readings_with_a_wrong_clock_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    times = [START, START + 9000, START + 60, START + 120]
    made = [Reading("a", time, {"level": 1.0}, restart=time == START + 60) for time in times]
    (kept,) = readings_by_stream([Part(made, SteppingRules())])
    assert [one.time - START for one in kept] == [0, 60, 120]
    assert caplog.messages == ["wrong clock, readings left out stream=a readings=1 from=2023-11-14T22:14:20Z"]


def test_a_running_service_keeps_its_database_to_itself(tmp_path: Path, make_bundle: Make) -> None:
    bundle_in(tmp_path, make_bundle)
    operated = Operated(tmp_path)
    operated.read("a", 0, 10)
    result = exported(tmp_path)
    operated.service._store.close(0)
    assert result.exit_code == 1
    assert "stop the service" in result.stderr


def test_a_category_is_a_text_again_and_a_missing_value_an_empty_cell() -> None:
    features = [Feature("sky", categories=["clear", "rain"]), Feature("level")]
    readings = [Reading("a", START, {"sky": 1.0, "level": float("nan")}), Reading("a", START + 0.25, {"level": 2.5})]
    command = Command("a", "1", "maintenance", START, {"from": START + 0.1, "to": START + 9})
    assert history_csv(readings, features, [command]).splitlines() == [
        "time,stream,sky,level,false_alarm,missed,maintenance",
        "2023-11-14T22:13:20Z,a,rain,,0,0,0",
        "2023-11-14T22:13:20.250Z,a,,2.5,0,0,1",
    ]


def test_a_feature_with_the_name_of_a_label_is_refused(tmp_path: Path, make_bundle: Make) -> None:
    bundle_in(tmp_path, make_bundle, features=[Feature("missed")], targets=["missed"])
    Operated(tmp_path).service._store.close(0)
    result = exported(tmp_path)
    assert result.exit_code == 1
    assert "found missed" in result.stderr
