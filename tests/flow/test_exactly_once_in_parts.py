"""Exactly once where a sample comes in parts, and where a device's counter wraps: kills change no bit of any stream."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_lstm import Bundle, Prediction, Predictor, Reading
from edge_lstm.bundle.contract import Feature, Sampling
from edge_lstm.messages.encoder import decode_prediction
from tests.flow.killed_service import BEFORE_ACKNOWLEDGE, BEFORE_COMMIT, BEFORE_PUBLISH
from tests.flow.test_exactly_once import (
    ANY_TIME,
    CONNECTED,
    READINGS,
    Rig,
    by_step,
    last_revisions,
    readings_of,
    untimed_bundle,
)
from tests.networks import contract_of, random_network

Make = Callable[..., Any]

KILLS = {ANY_TIME: 1, CONNECTED: 2, BEFORE_COMMIT: 2, BEFORE_PUBLISH: 1, BEFORE_ACKNOWLEDGE: 2}
STREAMS = 10


def bundle_of_two(folder: Path, make_bundle: Make, grid: bool) -> Path:
    """A bundle with two features."""
    network = random_network(inputs=2)
    features = [Feature("level"), Feature("flow")]
    contract = contract_of(network, features=features, clock=[], sampling=Sampling(60.0, 600.0, grid=grid))
    make_bundle(folder / "tank.elstm", network, contract)
    return folder / "tank.elstm"


def parts_of(samples: int, lost: float) -> list[Reading]:
    """Two parts a sample, of which some are lost; the last samples are complete."""
    rng = random.Random(3)
    return [
        Reading(f"tank-{stream}", 1_700_000_040.0 + 60 * step, {name: round(rng.gauss(0, 1), 4)}, partial=True)
        for step in range(samples)
        for stream in range(STREAMS)
        for name in ("level", "flow")
        if step >= samples - 2 or rng.random() >= lost
    ]


def message(part: Reading) -> tuple[str, str]:
    ((name, value),) = part.values.items()
    return f"sensors/{part.stream}/{name}", json.dumps({"time": part.time, "value": value})


def replayed(bundle: Path) -> list[Prediction]:
    """The predictions that a replay of the kept history gives."""
    history = ["--history", str(bundle.parent / "state.db")]
    command = [sys.executable, "-m", "edge_lstm", "replay", str(bundle), *history, "--backend", "numpy", "--json"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [decode_prediction(line) for line in lines]


def again(rng: random.Random, messages: Sequence[tuple[str, str]], share: float, back: int) -> list[tuple[str, str]]:
    """The messages, some of which a device sends again after up to `back` others."""
    places = [(float(number), one) for number, one in enumerate(messages)]
    places += [(number + rng.uniform(0, back), one) for number, one in places if rng.random() < share]
    return [one for _, one in sorted(places, key=lambda place: place[0])]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("grid", [False, True], ids=["samples", "grid"])
def test_joined_parts_step_exactly_once(
    grid: bool, tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    bundle = bundle_of_two(tmp_path, make_bundle, grid)
    ordered = parts_of(READINGS // 100, lost=0.1)
    rng = random.Random(5)
    shuffled = ordered
    if not grid:  # it takes no late readings
        place = [number + rng.uniform(0, 60) for number in range(len(ordered))]
        shuffled = [ordered[number] for number in sorted(range(len(ordered)), key=place.__getitem__)]
    messages = again(rng, [message(part) for part in shuffled], share=0.1, back=100)
    extra = 'max_rewind = 40\ninput.topic = "sensors/{stream}/{value}"\ninput.value = "value"'
    rig = Rig(bundle, mosquitto, start_service, subscribe, KILLS, extra)
    rig.publish(messages, restarts=0)
    expected = last_revisions(Predictor.of(Bundle.open(bundle), "numpy").feed(ordered))
    rig.wait_for(expected, last_revisions, "the last revisions equal those of the ordered run")
    assert rig.hits == KILLS
    log = rig.close()
    assert grid or "late=0" in log
    assert last_revisions(replayed(bundle)) == expected


@pytest.mark.timeout(300)
def test_a_counter_that_wraps_steps_exactly_once(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    ordered = readings_of(STREAMS * 400, STREAMS)
    rng = random.Random(6)
    place = [number + rng.uniform(0, 50) for number in range(len(ordered))]
    messages = [
        (
            f"sensors/{ordered[number].stream}",
            json.dumps({"time": ordered[number].time, "packet": number // STREAMS % 256, **ordered[number].values}),
        )
        for number in sorted(range(len(ordered)), key=place.__getitem__)
    ]
    extra = 'max_rewind = 40\ninput.sequence = "packet"'
    rig = Rig(bundle_path, mosquitto, start_service, subscribe, KILLS, extra)
    rig.publish(again(rng, messages, share=0.1, back=100), restarts=1)
    expected = last_revisions(Predictor.of(Bundle.open(bundle_path), "numpy").feed(ordered))
    rig.wait_for(expected, last_revisions, "the last revisions equal those of the ordered run")
    assert rig.hits == KILLS
    assert "late=0" in rig.close()


@pytest.mark.timeout(300)
def test_a_counter_that_wraps_without_times_steps_exactly_once(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    bundle = untimed_bundle(tmp_path, make_bundle)
    readings = readings_of(4 * 400, 4)
    messages = [
        (f"sensors/{one.stream}", json.dumps({**one.values, "packet": number // 4 % 256}))
        for number, one in enumerate(readings)
    ]
    kills = {BEFORE_COMMIT: 1, BEFORE_PUBLISH: 1, BEFORE_ACKNOWLEDGE: 1}
    extra = 'input.time_from = "arrival"\ninput.sequence = "packet"'
    rig = Rig(bundle, mosquitto, start_service, subscribe, kills, extra)
    rig.publish(again(random.Random(7), messages, share=0.2, back=100), restarts=0)
    expected = by_step(Predictor.of(Bundle.open(bundle), "numpy").feed(readings))
    rig.wait_for(expected, by_step, "every step equals that of an undisturbed run")
    assert rig.hits == kills
    rig.close()
