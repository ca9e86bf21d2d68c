"""Forecasts in the service: kills, late and repeated messages change no bit, and the history replays without them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_lstm import Bundle, Predictor, Reading
from edge_lstm.bundle.contract import Contract, KnownAhead
from edge_lstm.foundation.times.text import format_time
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.messages.encoder import decode_prediction
from edge_lstm.recordings.replay import replay
from edge_lstm.service.database.history_reader import read_parts
from edge_lstm.streaming.forecasts import Forecast, ForecastFeatures
from tests.flow.killed_service import BEFORE_ACKNOWLEDGE, BEFORE_COMMIT, BEFORE_PUBLISH
from tests.flow.test_exactly_once import Rig, last_revisions
from tests.networks import forecast_contract

Make = Callable[..., Any]

START = 1_700_000_000.0
OUTDOOR = KnownAhead("outdoor", "weather/{stream}/forecast", [1, 6])
TARIFF = KnownAhead("tariff", "tariff", [0, 3], between="previous")


def forecast_message(stream: str, first: float, values: Sequence[float]) -> tuple[str, str]:
    """A list of hourly points, as Home Assistant gives them."""
    points = [{"datetime": format_time(first + 3600 * index), "outdoor": v} for index, v in enumerate(values)]
    return f"weather/{stream}/forecast", json.dumps(points)


def expected_readings(contract: Contract, items: Sequence[Any]) -> list[Reading]:
    """The readings of a sequence of (stream or None, quantity, Forecast) and readings, filled in that order."""
    features = ForecastFeatures(contract)
    newest: dict[tuple[str | None, str], Forecast] = {}
    found = []
    for one in items:
        if isinstance(one, Reading):
            own = {name: [forecast] for (stream, name), forecast in newest.items() if stream in (None, one.stream)}
            found.append(features.filled(one, own))
        else:
            newest[one[0], one[1]] = one[2]
    return found


def traffic(steps: int, streams: int) -> tuple[list[Any], list[tuple[str, str]]]:
    """Readings and forecasts in the order of their arrival, and as messages: some come twice, late, or are missing."""
    rng = random.Random(5)
    items: list[Any] = []
    messages: list[tuple[str, str]] = []
    late: Reading | None = None
    for step in range(steps):
        time = START + 60 * step
        for number in range(streams):
            stream = f"tank-{number}"
            if number and rng.random() < 0.1:  # the stream tank-0 has no forecast
                values = [round(rng.gauss(10, 3), 2) for _ in range(6)]
                times = [time + 3600 * index for index in range(6)]
                items.append((stream, "outdoor", Forecast(times, values)))
                messages += [forecast_message(stream, time, values)] * (1 + (rng.random() < 0.2))
            reading = Reading(stream, time, {"level": round(rng.gauss(1, 2), 3)})
            if late is None and rng.random() < 0.05:
                late = reading
                continue
            for one in [reading] if late is None or late.stream != stream else [reading, late]:
                items.append(one)
                messages.append((f"sensors/{one.stream}", encode_reading(one)))
            late = None if late is not None and late.stream == stream else late
        if rng.random() < 0.05:
            values = [round(rng.random(), 2) for _ in range(3)]
            items.append((None, "tariff", Forecast([time + 120 * index for index in range(3)], values)))
            payload = {"time": format_time(time), "values": values, "interval": 120}
            messages.append(("tariff", json.dumps(payload)))
    return items, messages


@pytest.mark.timeout(300)
def test_forecasts_that_come_late_twice_or_never_change_no_bit_under_kills(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    network, contract = forecast_contract(OUTDOOR, TARIFF)
    bundle = tmp_path / "tank.elstm"
    make_bundle(bundle, network, contract)
    items, messages = traffic(steps=150, streams=5)
    kills = {BEFORE_COMMIT: 2, BEFORE_PUBLISH: 2, BEFORE_ACKNOWLEDGE: 2}
    extra = '[forecasts.outdoor]\ntime = "datetime"\n[forecasts.tariff]\ninterval_s = 120'
    rig = Rig(bundle, mosquitto, start_service, subscribe, kills, extra)
    rig.publish(messages, restarts=0)
    readings = expected_readings(contract, items)
    expected = last_revisions(Predictor.of(Bundle.open(bundle), "numpy", max_rewind=8).feed(readings))
    rig.wait_for(expected, last_revisions, "the predictions equal those of an undisturbed run")
    assert rig.hits == kills
    rig.close()
    degraded = {one.stream for one in map(_decoded, rig.subscriber.messages) if "outdoor" in one.degraded}
    assert degraded >= {"tank-0"}  # of which no forecast ever came
    assert any(not one.degraded for one in map(_decoded, rig.subscriber.messages))
    parts = read_parts(tmp_path / "state.db", Bundle.open(bundle).id, None, contract)
    replayed = [
        one
        for part in parts
        for one in replay(Predictor.of(Bundle.open(bundle), "numpy", max_rewind=8), part.readings, part.batches)
    ]
    assert last_revisions(replayed) == expected


def _decoded(message: Any) -> Any:
    return decode_prediction(message.payload.decode())
