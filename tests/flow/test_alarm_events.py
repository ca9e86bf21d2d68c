"""Messages about alarms from a real service: each change of each event once, under kills and evictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm import Bundle, Predictor, Reading
from edge_lstm.bundle.contract import Alarm
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.messages.events.alarm_events import AlarmEvents, decode_event, encode_event
from edge_lstm.service.database.history_reader import read_parts
from tests.deadline import wait_until
from tests.flow.killed_service import BEFORE_ACKNOWLEDGE, BEFORE_COMMIT, BEFORE_PUBLISH
from tests.flow.test_exactly_once import CONNECTED, Rig
from tests.networks import contract_of, random_network

Make = Callable[..., Any]
STREAMS, STEPS = 4, 200


def faulty_readings() -> list[Reading]:
    """Normal values of some tanks; each has faults of different lengths and sizes after its calibration."""
    rng = np.random.default_rng(5)
    levels = rng.normal(1, 0.3, (STEPS, STREAMS))
    for stream in range(STREAMS):
        for begin in (80 + 3 * stream, 140 + 2 * stream):
            levels[begin : begin + 8 + stream, stream] += 3.0 + stream
    return [
        Reading(f"tank-{stream}", 1_700_000_000.0 + 60 * step, {"level": round(float(levels[step, stream]), 4)})
        for step in range(STEPS)
        for stream in range(STREAMS)
    ]


@pytest.mark.timeout(300)
def test_events_come_once_each_under_kills_and_in_a_replay(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    network = random_network(inputs=1, outputs=1)
    alarm = Alarm(span_steps=5, settle_steps=3, calibrate_steps=50, quantile=0.9, factor=1.2, hold_steps=2)
    contract = contract_of(network, task="anomaly", alarm=alarm, horizons=[1], clock=[])
    bundle = tmp_path / "tank.elstm"
    make_bundle(bundle, network, contract)
    readings = faulty_readings()
    predictor = Predictor.of(Bundle.open(bundle), "numpy")
    told = AlarmEvents(Bundle.open(bundle).id, predictor.table)
    expected: list[str] = []
    for reading in readings:
        steps = predictor.feed_columns([reading])
        expected += [] if steps is None else [encode_event(message) for message in told.messages(steps)]
    assert {json.loads(text)["change"] for text in expected} == {"begin", "peak", "end"}
    assert len({decode_event(text).event.id for text in expected}) >= 2 * STREAMS

    events = subscribe(mosquitto.address, "edge-lstm/+/events")
    kills = {CONNECTED: 1, BEFORE_COMMIT: 1, BEFORE_PUBLISH: 1, BEFORE_ACKNOWLEDGE: 1}
    rig = Rig(bundle, mosquitto, start_service, subscribe, kills, "max_streams = 3")
    rig.publish([(f"sensors/{one.stream}", encode_reading(one)) for one in readings], restarts=0)
    wait_until(lambda: len({one.payload for one in events.messages}) >= len(expected), "the events are published", 60)
    rig.close()
    received = [one.payload.decode() for one in events.messages]
    assert set(received) == set(expected)  # a kill sends the last ones again, with the same bytes
    assert {one.topic for one in events.messages} == {"edge-lstm/edge-lstm-test/events"}
    for stream in range(STREAMS):
        name = f'"stream":"tank-{stream}"'
        in_order = list(dict.fromkeys(text for text in received if name in text))
        assert in_order == [text for text in expected if name in text]
    assert rig.hits == kills

    parts = read_parts(tmp_path / "state.db", Bundle.open(bundle).id, None, contract)
    again = Predictor.of(Bundle.open(bundle), "numpy", **(parts[0].rules._asdict() if parts[0].rules else {}))
    replayed = [one for part in parts for one in again.feed(part.readings)]
    ids = {one.event.id for one in replayed if one.event is not None}
    assert ids == {decode_event(text).event.id for text in expected}
