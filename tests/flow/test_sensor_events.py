"""Messages about dead sensors from a real service: each death and each return once, under kills; and their replay."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm import Bundle, Predictor, Reading
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.messages.encoder import encode_prediction
from edge_lstm.service.database.history_reader import read_parts
from tests.deadline import wait_until
from tests.flow.killed_service import BEFORE_ACKNOWLEDGE, BEFORE_COMMIT, BEFORE_PUBLISH
from tests.flow.test_exactly_once import CONNECTED, Rig
from tests.networks import random_network
from tests.runtime.decisions.test_sensors import sensed_contract

Make = Callable[..., Any]
STREAMS, STEPS = 4, 200


def dying_readings() -> list[Reading]:
    """Each stream has a sensor that sticks for a while, and one that is missing for a while."""
    values = np.random.default_rng(5).standard_normal((STEPS, STREAMS, 2)).clip(-3.9, 3.9).round(4)
    for stream in range(STREAMS):
        values[40 + 3 * stream : 100, stream, 1] = values[39 + 3 * stream, stream, 1]
        values[130 : 160 + stream, stream, 0] = math.nan
    readings = []
    for step in range(STEPS):
        for stream in range(STREAMS):
            flow, pressure = values[step, stream].tolist()
            given = {"pressure": pressure} if math.isnan(flow) else {"flow": flow, "pressure": pressure}
            readings.append(Reading(f"pump-{stream}", 1_700_000_000.0 + 60 * step, given))
    return readings


@pytest.mark.timeout(300)
def test_deaths_and_returns_come_once_each_under_kills_and_in_a_replay(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    contract, bundle = sensed_contract(), tmp_path / "pump.elstm"
    make_bundle(bundle, random_network(inputs=2, outputs=1), contract)
    readings, opened = dying_readings(), Bundle.open(bundle)
    errors = subscribe(mosquitto.address, "edge-lstm/+/errors")
    kills = {CONNECTED: 1, BEFORE_COMMIT: 1, BEFORE_PUBLISH: 1, BEFORE_ACKNOWLEDGE: 1}
    rig = Rig(bundle, mosquitto, start_service, subscribe, kills, "max_streams = 3\nsensor_timeout_s = 300")
    rig.publish([(f"sensors/{one.stream}", encode_reading(one)) for one in readings], restarts=0)
    wanted = [("pressure", "stuck"), ("pressure", "working"), ("flow", "gone"), ("flow", "working")]

    def told() -> list[str]:  # a kill sends the last ones again, with the same bytes
        texts = [one.payload.decode() for one in errors.messages if b'"sensor"' in one.payload]
        return list(dict.fromkeys(texts))

    def published() -> set[str]:
        return {one.payload.decode() for one in rig.subscriber.messages}

    wait_until(lambda: len(told()) >= STREAMS * len(wanted), "the deaths are told", 60)
    wait_until(lambda: len(published()) >= len(readings), "all is published", 60)
    rig.close()
    for stream in range(STREAMS):
        facts = [text for text in map(json.loads, told()) if text["stream"] == f"pump-{stream}"]
        assert [(one["sensor"], one["fault"]) for one in facts] == wanted
    assert rig.hits == kills

    (part,) = read_parts(tmp_path / "state.db", opened.id, None, contract)
    assert part.rules is not None
    assert part.rules.decision_rules.sensor_timeout_s == 300
    again = Predictor.of(opened, "numpy", **part.rules._asdict())
    replayed = {encode_prediction(one, opened.id) for one in again.feed(part.readings)}
    assert published() == replayed
    assert any('"degraded":["flow"]' in text for text in replayed)
