"""A service that learns: kills change no bit of what it publishes, and a replay of its history gives the same."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_lstm import Bundle, Predictor, Reading
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.messages.encoder import encode_prediction
from tests.deadline import wait_until
from tests.flow.killed_service import BEFORE_ACKNOWLEDGE, BEFORE_COMMIT, BEFORE_PUBLISH
from tests.flow.test_exactly_once import Rig, last_revisions
from tests.networks import contract_of, random_network

Make = Callable[..., Any]

LEARN = "[learn]\nenabled = true\nmemory_steps = 40"
STREAMS, STEPS = 5, 150


def waves() -> list[Reading]:
    """Levels that the random network forecasts badly, so that there is much to correct."""
    readings, levels = [], [1.0] * STREAMS
    rng = random.Random(3)
    for step in range(STEPS):
        for stream in range(STREAMS):
            levels[stream] = round(levels[stream] + 0.1 * (1 - levels[stream]) + rng.gauss(0, 0.5), 4)
            readings.append(Reading(f"tank-{stream}", 1_700_000_000.0 + 60 * step, {"level": levels[stream]}))
    return readings


@pytest.mark.timeout(300)
def test_kills_change_no_bit_of_what_is_learned_and_the_history_replays_to_it(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    readings, opened = waves(), Bundle.open(bundle_path)
    rules = DecisionRules(learn=True, learn_memory_steps=40)
    undisturbed = Predictor.of(opened, "numpy", decision_rules=rules).feed(readings)
    bundles_own = Predictor.of(opened, "numpy").feed(readings)
    corrected = sum(one.values != own.values for one, own in zip(undisturbed, bundles_own, strict=True))
    assert corrected > len(readings) / 4
    kills = {BEFORE_COMMIT: 1, BEFORE_PUBLISH: 1, BEFORE_ACKNOWLEDGE: 1}
    rig = Rig(bundle_path, mosquitto, start_service, subscribe, kills, LEARN)
    rig.publish([(f"sensors/{one.stream}", encode_reading(one)) for one in readings], restarts=0)
    rig.wait_for(last_revisions(undisturbed), last_revisions, "the predictions equal those of an undisturbed run")
    assert rig.hits == kills
    rig.close()
    for option, expected in (([], undisturbed), (["--no-learn"], bundles_own)):
        command = [sys.executable, "-m", "edge_lstm", "replay", str(bundle_path), "--backend", "numpy", *option]
        command += ["--history", str(bundle_path.parent / "state.db"), "--json"]
        replayed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        assert sorted(replayed) == sorted(encode_prediction(one, opened.id) for one in expected)


def test_the_stats_say_how_many_outputs_are_corrected(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "edge-lstm/edge-lstm-test/stats")
    service = start_service(bundle_path, mosquitto.address, f"stats_interval_s = 0.1\n{LEARN}")
    service.wait_connected()
    for one in waves():
        subscriber.publish(f"sensors/{one.stream}", encode_reading(one))

    def last() -> dict[str, Any]:
        return json.loads(subscriber.messages[-1].payload) if subscriber.messages else {}

    wait_until(lambda: last().get("used") == STREAMS * STEPS, "the statistics after the last reading")
    assert 3 <= last()["corrected"] <= 2 * STREAMS
    assert 0.1 < last()["corrected_error"] < 0.99
    assert service.stop() == 0


def test_a_service_that_can_learn_nothing_says_so(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make
) -> None:
    network = random_network()
    make_bundle(tmp_path / "tank.elstm", network, contract_of(network, task="estimate", targets=["a"], horizons=[0, 1]))
    service = start_service(tmp_path / "tank.elstm", mosquitto.address, LEARN)
    service.wait_connected()
    assert "nothing is learned, though [learn] is enabled: none of its targets is measured" in service.log.read_text()
    assert service.stop() == 0
