"""A service that adapts bands, learns, judges its model, watches its sensors and takes commands, under kills."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_lstm import Reading
from edge_lstm.bundle.contract import Contract, Feature
from edge_lstm.bundle.health import ErrorLimits, Health
from edge_lstm.bundle.intervals import SHARES, Intervals
from edge_lstm.bundle.network import Network
from edge_lstm.bundle.sensor import Sensor
from edge_lstm.cli.main import main
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.service.config import read_service_config
from tests.flow.killed_service import BEFORE_ACKNOWLEDGE, BEFORE_COMMIT, BEFORE_PUBLISH
from tests.flow.test_exactly_once import Rig
from tests.flow.test_operator_commands import TOPIC, Undisturbed, payloads_of, stored_as_in
from tests.networks import contract_of, random_network

Make = Callable[..., Any]

STREAMS, STEPS = 4, 120
DIES, MAINTAINED = 60, (30, 90)  # steps
EXTRA = "[learn]\nenabled = true\nmemory_steps = 40\n[feedback]\nenabled = true"


def contract(network: Network) -> Contract:
    sensor = Sensor(still=0.001, still_steps=3, equal_steps=3, least=-4.0, most=6.0)
    return contract_of(
        network,
        features=[Feature("level", "m", 1.0, 2.0, sensor=sensor)],
        intervals=Intervals(0.9, [1.0, 1.0], [4.0 * share for share in SHARES] * 2),
        health=Health(0.1, 1.0, ErrorLimits(20, [0.3, 0.3], 1.5, 1.1, 5.0, 0.1, [0.5, 1.0])),
    )


def waves() -> list[Reading]:
    """Levels that the random network forecasts badly; one sensor is stuck from `DIES` on."""
    readings, levels = [], [1.0] * STREAMS
    rng = random.Random(3)
    for step in range(STEPS):
        for stream in range(STREAMS):
            levels[stream] = round(levels[stream] + 0.1 * (1 - levels[stream]) + rng.gauss(0, 0.5), 4)
            level = 1.0 if stream == 1 and step >= DIES else levels[stream]
            readings.append(Reading(f"tank-{stream}", 1_700_000_000.0 + 60 * step, {"level": level}))
    return readings


@pytest.mark.timeout(300)
def test_kills_change_no_bit_with_everything_on(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    network = random_network()
    bundle = make_bundle(tmp_path / "tank.elstm", network, contract(network))
    kills = {BEFORE_COMMIT: 1, BEFORE_PUBLISH: 1, BEFORE_ACKNOWLEDGE: 1}
    rig = Rig(tmp_path / "tank.elstm", mosquitto, start_service, subscribe, kills, EXTRA)
    run = Undisturbed(bundle, read_service_config(tmp_path / "service.toml"))
    messages: list[tuple[str, str]] = []
    for index, reading in enumerate(waves()):
        run.read(reading)
        messages.append((f"sensors/{reading.stream}", encode_reading(reading)))
        if index in [STREAMS * step for step in MAINTAINED]:
            command = {"id": f"c{index}", "command": "maintenance", "stream": "tank-0", "until": reading.time + 900}
            run.take(json.dumps(command))
            messages += [(TOPIC, json.dumps(command))] * 2
    rig.publish(messages, restarts=0)
    rig.wait_for(sorted(set(run.payloads)), payloads_of(bundle), "the predictions equal those of the undisturbed run")
    assert rig.hits == kills
    rig.close()
    assert stored_as_in(run.predictor, tmp_path / "state.db")
    arguments = ["replay", str(tmp_path / "tank.elstm"), "--history", str(tmp_path / "state.db"), "--json"]
    replayed = CliRunner().invoke(main, [*arguments, "--backend", "numpy"])
    assert sorted(replayed.stdout.splitlines()) == sorted(run.payloads)
    final = {one["stream"]: one for one in map(json.loads, run.payloads)}
    assert final["tank-1"]["degraded"] == ["level"]
    assert final["tank-1"]["bands"]["level"]["1"] == [None, None]
    current, slots = run.predictor.table.current, run.predictor.table.slots([f"tank-{at}" for at in range(STREAMS)])
    assert (current["verdict"][slots] > 0).any()  # the model is random
    assert (current["band_share"][slots] != 0.9).any()
