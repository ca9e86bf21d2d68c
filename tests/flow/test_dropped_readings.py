"""Readings that a service does not use: in the log once, in the stats and in `edge-lstm status` by stream."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_lstm import Reading
from edge_lstm.messages.decoder import encode_reading
from tests.deadline import wait_until

Make = Callable[..., Any]


def reading(minute: float, stream: str = "tank-0") -> Reading:
    return Reading(stream, 1_700_000_000.0 + 60 * minute, {"level": round(minute % 7, 2)})


def test_each_dropped_reading_is_counted_and_the_first_ones_are_logged(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address, extra="stats_interval_s = 0.2\nmax_rewind = 3")
    service.wait_connected()
    sent = [reading(minute) for minute in range(20)]
    sent += [reading(2.5), reading(3.5), reading(19), reading(17.5), reading(0, "tank-1"), reading(0, "tank-1")]
    for one in sent:
        subscriber.publish(f"sensors/{one.stream}", encode_reading(one))
    subscriber.publish("sensors/tank-2", "21.5 degrees")
    command = [sys.executable, "-m", "edge_lstm", "status", str(bundle_path.parent / "service.toml")]

    def facts() -> dict[str, Any]:
        return dict(json.loads(subprocess.run([*command, "--json"], capture_output=True, check=True).stdout))

    wait_until(lambda: facts().get("refused") == 1, "the stats have all messages")
    found = facts()
    assert (found["readings"], found["used"], found["duplicate"], found["late"]) == (26, 22, 2, 2)
    assert found["dropped_by_stream"] == [
        {"stream": "tank-0", "late": 2, "duplicate": 1},
        {"stream": "tank-1", "duplicate": 1},
        {"stream": "tank-2", "refused": 1},
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "order     22 used, 1 rewound, 2 late, 2 duplicate, 0 repeated\n" in shown
    assert "dropped   tank-0: 2 late, 1 duplicate\ndropped   tank-1: 1 duplicate\n" in shown
    assert service.stop() == 0
    log = service.log.read_text()
    assert log.count("WARNING reading dropped fate=late stream=tank-0: it lies 990.0 s before") == 1
    assert log.count("WARNING reading dropped fate=duplicate stream=tank-0: its time ") == 1
    assert log.count("WARNING reading dropped fate=duplicate stream=tank-1: its time ") == 1
    assert log.count("WARNING payload refused topic=sensors/tank-2 refused=1: ") == 1


def test_a_stream_that_restarts_at_each_reading_is_one_warning(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address)
    service.wait_connected()
    for number in range(5):
        subscriber.publish("sensors/tank-0", json.dumps({"time": 120_000 + 60_000 * number, "level": 1.0}))
    wait_until(lambda: len(subscriber.messages) == 5, "all readings are predicted")
    assert service.stop() == 0
    log = service.log.read_text()
    assert log.count("WARNING stream restarts at most of its readings stream=tank-0 restarts=3 gap_s=60000.0") == 1
    assert "its times lie before 2000" in log
    assert log.count("stream restarts stream=tank-0") == 1
