"""`record` in its own process at a real mosquitto: nothing is lost, and the file reads as a recording."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.times.text import parse_time
from edge_lstm.recordings.columns import ValueColumn
from edge_lstm.recordings.live.recording_file import RecordingFile
from edge_lstm.recordings.recording import Columns, Recording, read_recording
from edge_lstm.streaming.reading import Reading
from tests.deadline import wait_until
from tests.flow.conftest import starter

BEGIN = 1_700_000_000


class RecordProcess:
    """`edge-lstm record` with its output file and its log."""

    def __init__(self, folder: Path, *options: object) -> None:
        self.output = folder / "out.csv"
        self.log = folder / "record.log"
        command = [sys.executable, "-m", "edge_lstm", "record", "-o", str(self.output), "--settle", "0.3"]
        command += map(str, options)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        wait_until(lambda: b"recording from" in self.log.read_bytes() or self.process.poll() is not None, "it records")

    def rows(self) -> list[str]:
        return self.output.read_text().splitlines()[1:] if self.output.exists() else []

    def wait_rows(self, count: int) -> None:
        wait_until(lambda: len(self.rows()) >= count, f"{count} rows are written (log: {self.log.read_text()})")

    def end(self, number: int = signal.SIGINT) -> str:
        """Its last words on stdout."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.communicate(timeout=60)[0]


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Callable[..., RecordProcess]]:
    """record(*options): it runs and listens; ended after the test."""
    yield from starter(lambda *options: RecordProcess(tmp_path, *options))


def publish(client: Any, count: int, first: int = 0) -> None:
    for step in range(first, first + count):
        facts = {"time": BEGIN + 60 * step, "level": step % 7 + 0.25, "note": "ok", "flow": step}
        client.publish(f"plant/pump-{step % 2}/readings", json.dumps(facts))


def recording(path: Path) -> Recording:
    return read_recording(path, Columns({"level": "level", "flow": "flow"}, "time", "stream"))


def test_a_recording_reads_back_as_it_was_sent(mosquitto: Any, record: Any, subscribe: Any) -> None:
    process = record("--from", mosquitto.address, "--topic", "plant/{stream}/readings")
    client = subscribe(mosquitto.address, "nothing")
    publish(client, 50)
    client.publish("plant/pump-0/readings", '{"time": "noon", "level": 1, "flow": 1}')
    client.publish("plant/pump-0/readings", f'{{"time": {BEGIN + 6000}, "level": null, "flow": 7}}')
    process.wait_rows(51)
    said = process.end(signal.SIGTERM)
    assert said == f"51 readings of 2 streams in {process.output} (1 refused)\n"
    assert process.process.returncode == 0
    read = recording(process.output)
    assert read.streams == ["pump-0", "pump-1"]
    np.testing.assert_array_equal(read.times[:50], BEGIN + 60 * np.arange(50))
    np.testing.assert_array_equal(read.values[:50, 0], np.arange(50) % 7 + 0.25)
    np.testing.assert_array_equal(read.values[50], [np.nan, 7])


def test_record_continues_a_file_and_its_session_keeps_the_gap(mosquitto: Any, record: Any, subscribe: Any) -> None:
    options = ("--from", mosquitto.address, "--topic", "plant/{stream}/readings", "--client-id", "notary")
    client = subscribe(mosquitto.address, "nothing")
    process = record(*options)
    publish(client, 10)
    process.wait_rows(10)
    process.end()
    publish(client, 10, 10)
    process = record(*options)
    publish(client, 10, 20)
    process.wait_rows(30)
    process.end()
    np.testing.assert_array_equal(recording(process.output).times, BEGIN + 60 * np.arange(30))


def test_a_killed_recorder_loses_no_reading_of_its_session(mosquitto: Any, record: Any, subscribe: Any) -> None:
    options = ("--from", mosquitto.address, "--topic", "plant/{stream}/readings", "--client-id", "notary")
    client = subscribe(mosquitto.address, "nothing")
    for kill in range(3):
        process = record(*options)
        publish(client, 100, 400 * kill)
        process.wait_rows(400 * kill + 100)
        publish(client, 300, 400 * kill + 100)
        process.wait_rows(400 * kill + 101)  # it records these now
        process.end(signal.SIGKILL)
    process = record(*options)
    wait_until(lambda: len(set(process.rows())) >= 1200, "all came")
    process.end()
    steps = (np.unique(recording(process.output).times) - BEGIN) / 60
    np.testing.assert_array_equal(steps, np.arange(1200))


def test_partial_values_are_joined_at_the_time_of_the_last(mosquitto: Any, record: Any, subscribe: Any) -> None:
    options = ("--topic", "home/{stream}/{value}/state", "--feature", "t", "--feature", "h")
    process = record("--from", mosquitto.address, *options)
    client = subscribe(mosquitto.address, "nothing")
    for text in ("20.5", "21.5"):
        client.publish("home/hall/t/state", text)
        client.publish("home/hall/h/state", "55")
    client.publish("home/attic/h/state", "60")
    process.wait_rows(2)
    said = process.end()
    assert said.startswith("3 readings of 2 streams")  # at the end what waited is written as it is
    cells = [row.split(",") for row in process.rows()]
    assert [row[1:] for row in cells] == [["hall", "20.5", "55.0"], ["hall", "21.5", "55.0"], ["attic", "", "60.0"]]
    assert parse_time(cells[0][0]) < parse_time(cells[1][0])  # as texts a whole millisecond would come last


def test_readings_of_one_message_get_different_times(mosquitto: Any, record: Any, subscribe: Any) -> None:
    process = record("--from", mosquitto.address, "--topic", "plant/{stream}", "--feature", "x=a.x")
    subscribe(mosquitto.address, "nothing").publish("plant/p", '[{"a": {"x": 1}}, {"a": {"x": 2}}]')
    process.wait_rows(2)
    process.end()
    read = read_recording(process.output, Columns({"x": "x"}, "time", "stream"))
    assert np.diff(read.times) == pytest.approx([1e-6], abs=5e-7)


def test_record_uses_the_mapping_of_the_service_config(
    mosquitto: Any, record: Any, subscribe: Any, tmp_path: Path
) -> None:
    config = tmp_path / "service.toml"
    config.write_text(
        f'bundle = "none-yet.elstm"\n[mqtt]\nurl = "{mosquitto.address}"\n'
        '[input]\ntopic = "plant/{stream}/readings"\ntime_from = "arrival"\n'
        '[input.values]\nmillibar = {path = "level", scale = 1000}\n'
    )
    process = record("--config", config, "--feature", "millibar")
    publish(subscribe(mosquitto.address, "nothing"), 2)
    process.wait_rows(2)
    process.end()
    assert [row.split(",")[1:] for row in process.rows()] == [["pump-0", "250.0"], ["pump-1", "1250.0"]]


@pytest.mark.parametrize(
    ("options", "code", "found"),
    [
        (["--topic", "x/{stream}"], 2, "expected --from mqtt://HOST:PORT or --config SERVICE.toml, found neither"),
        (["--from", "mqtt://localhost:1"], 2, "expected --topic, --preset or --config, found none of them"),
        (
            ["--from", "mqtt://localhost:1", "--topic", "x"],
            1,
            'expected {stream} in the topic (or stream = "path"), found "x"',
        ),
        (["--from", "mqtt://127.0.0.1:1", "--topic", "{stream}"], 1, "mqtt://127.0.0.1:1"),
        (["--from", "mqtt://127.0.0.1:1", "--preset", "tasmoto"], 1, 'did you mean "tasmota"?'),
    ],
)
def test_a_wrong_command_is_refused_with_a_message(record: Any, options: list[str], code: int, found: str) -> None:
    process = record(*options)
    process.end()
    assert process.process.returncode == code
    assert found in process.log.read_text()
    assert "Traceback" not in process.log.read_text()


def test_a_file_with_other_columns_is_left_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("time,stream,x\n1,a,2\n")
    with pytest.raises(EdgeLstmError, match="expected the columns time, stream, y, found time,stream,x"):
        RecordingFile(path, ["y"])
    assert path.read_text() == "time,stream,x\n1,a,2\n"


def test_a_category_is_written_as_its_text(tmp_path: Path) -> None:
    sheet = RecordingFile(tmp_path / "out.csv", ["sky"], {"sky": ["sun", "rain, heavy"]})
    sheet.append([Reading("a", 1.0, {"sky": 1.0}), Reading("a", 2.0, {})])
    sheet.close()
    read = read_recording(sheet.path, Columns({"sky": ValueColumn("sky", categories=["sun", "rain, heavy"])}))
    np.testing.assert_array_equal(read.values[:, 0], [1, np.nan])


def test_a_partial_row_of_a_crash_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "out.csv"
    path.write_text("time,stream,x\n1,a,2\n2,a")
    sheet = RecordingFile(path, ["x"])
    sheet.append([Reading("a, b", 3.5, {"x": 0.1}), Reading("c", 4.000001, {})])
    sheet.close()
    expected = '1,a,2\n1970-01-01T00:00:03.500Z,"a, b",0.1\n1970-01-01T00:00:04.000001Z,c,\n'
    assert path.read_text() == f"time,stream,x\n{expected}"
    assert f"half a row removed file={path} bytes=3" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_on_a_full_disk_the_file_ends_with_a_complete_row(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from edge_lstm.foundation.errors import EdgeLstmError\n"
        "from edge_lstm.streaming.reading import Reading\n"
        "from edge_lstm.recordings.live.recording_file import RecordingFile\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))\n"
        "sheet = RecordingFile(Path(sys.argv[1]), ['x'])\n"
        "sheet.append([Reading('a', 1.0, {'x': 2.0})])\n"
        "try:\n"
        "    sheet.append([Reading('a', 2.0, {'x': 2.0})] * 3)\n"
        "except EdgeLstmError as error:\n"
        "    print(error.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"expected to write {path}, found: File too large\n"
    assert path.read_text() == "time,stream,x\n1970-01-01T00:00:01Z,a,2.0\n"


def test_a_delayed_recorder_writes_all_queued_messages_at_its_end(mosquitto: Any, record: Any, subscribe: Any) -> None:
    process = record("--from", mosquitto.address, "--topic", "plant/{stream}/readings")
    client = subscribe(mosquitto.address, "nothing")
    publish(client, 1)
    process.wait_rows(1)
    process.process.send_signal(signal.SIGSTOP)
    for step in range(3000):
        facts = {"time": BEGIN + step, "level": 1, "flow": step}
        last = client.client.publish("plant/late/readings", json.dumps(facts), qos=1)
    last.wait_for_publish(60)
    process.process.send_signal(signal.SIGINT)  # is heard when it goes on; a second one would end it at once
    process.process.send_signal(signal.SIGCONT)
    assert process.process.communicate(timeout=60)[0].startswith("3001 readings of 2 streams")
    np.testing.assert_array_equal(recording(process.output).values[1:, 1], np.arange(3000))


def test_columns_are_the_union_of_what_comes_first(mosquitto: Any, record: Any, subscribe: Any) -> None:
    client = subscribe(mosquitto.address, "nothing")
    client.publish("zigbee2mqtt/door", '{"contact": true, "battery": 97}', retain=True)  # an old value has keys too
    process = record("--from", mosquitto.address, "--preset", "zigbee2mqtt", "--settle", "3")
    client.publish("zigbee2mqtt/attic/set", '{"brightness": 3}')
    for step in range(3):
        client.publish("zigbee2mqtt/attic", json.dumps({"temperature": 20 + step, "humidity": 50, "note": "ok"}))
        client.publish("zigbee2mqtt/meter", json.dumps({"energy": {"total": 1000.5 + step}, "state": "ON"}))
    process.wait_rows(6)
    client.publish("zigbee2mqtt/cellar/pipe/availability", '{"state": "online", "pressure": 1}')
    client.publish("zigbee2mqtt/cellar/pipe", '{"temperature": 12, "pressure": 1013}')
    client.publish("zigbee2mqtt/stairs", '{"pressure": 1013}')
    process.wait_rows(7)
    said = process.end()
    header = process.output.read_text().splitlines()[0]
    assert header == "time,stream,contact,battery,temperature,humidity,energy.total,state"
    cells = [row.split(",")[1:] for row in process.rows()]
    assert cells[0] == ["attic", "", "", "20.0", "50.0", "", ""]
    assert cells[1] == ["meter", "", "", "", "", "1000.5", "1.0"]
    assert cells[6] == ["cellar.pipe", "", "", "12.0", "", "", ""]
    assert "not recorded: pressure of 2 devices\n" in said
    log = process.log.read_text()
    assert log.count("key not recorded, it came after the columns were chosen key=pressure device=cellar") == 1


def test_a_column_never_mixes_two_kinds_of_devices(mosquitto: Any, record: Any, subscribe: Any) -> None:
    options = ("--from", mosquitto.address, "--preset", "zigbee2mqtt", "--settle", "2", "--client-id", "notary")
    process = record(*options)
    client = subscribe(mosquitto.address, "nothing")

    def send(names: str) -> None:
        for name in names:
            client.publish(f"zigbee2mqtt/plug-{name}", '{"voltage": 228, "power": 40}')
            client.publish(f"zigbee2mqtt/sensor-{name}", '{"voltage": 2900, "temperature": 21}')

    client.publish("zigbee2mqtt/plug-a", '{"voltage": 231, "power": 2000}')
    send("a")
    process.wait_rows(3)
    send("b")
    process.wait_rows(5)
    process.end()
    process = record(*options)  # goes on with the columns of the file
    send("c")
    client.publish("zigbee2mqtt/meter", '{"voltage": 0.004, "power": 3}')
    process.wait_rows(8)
    said = process.end()
    columns = process.output.read_text().splitlines()[0].split(",")[1:]
    assert columns == ["stream", "voltage", "voltage_2", "power", "temperature"]
    found = {row.split(",")[1]: row.split(",")[2:] for row in process.rows()}
    for name in "abc":
        assert found[f"plug-{name}"] == ["228.0", "", "40.0", ""]
        assert found[f"sensor-{name}"] == ["", "2900.0", "", "21.0"]
    assert found["meter"] == ["", "", "3.0", ""]
    assert "not recorded: voltage of 1 device\n" in said


def test_a_row_of_joined_values_has_the_keys_of_its_device(mosquitto: Any, record: Any, subscribe: Any) -> None:
    process = record("--from", mosquitto.address, "--preset", "esphome", "--settle", "1")
    client = subscribe(mosquitto.address, "nothing")
    for step in range(3):
        client.publish("hall/sensor/t/state", f"{20 + step}")
        client.publish("hall/sensor/h/state", "55")
        client.publish("attic/sensor/t/state", f"{10 + step}")
        client.publish("attic/sensor/t/state", f"{11 + step}")
    process.wait_rows(9)
    process.end()
    rows = [row.split(",")[1:] for row in process.rows()]
    assert [row for row in rows if row[0] == "hall"] == [["hall", f"{20.0 + step}", "55.0"] for step in range(3)]
    assert [row[1] for row in rows if row[0] == "attic"] == ["10.0", "11.0", "11.0", "12.0", "12.0", "13.0"]


def test_record_takes_a_config_before_there_is_a_bundle(
    mosquitto: Any, record: Any, subscribe: Any, tmp_path: Path
) -> None:
    config = tmp_path / "service.toml"
    config.write_text(
        f'bundle = "none-yet.elstm"\n[mqtt]\nurl = "{mosquitto.address}"\n'
        '[input]\ntopic = "plant/{stream}/readings"\ntime_from = "arrival"\n[input.values]\nmillibar = "level"\n'
    )
    process = record("--config", config)
    publish(subscribe(mosquitto.address, "nothing"), 2)
    process.wait_rows(2)
    process.end()
    assert process.output.read_text().splitlines()[0] == "time,stream,millibar,flow"
