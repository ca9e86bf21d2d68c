"""A direction and a meter through the service, killed on the way: the predictions that a replay gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_lstm import Reading
from edge_lstm.bundle.contract import Feature, Sampling
from edge_lstm.messages.decoder import encode_reading
from tests.deadline import wait_until
from tests.flow.test_service import by_stream_without_repeats, undisturbed
from tests.networks import contract_of, random_network

Make = Callable[..., Any]
FEATURES = [Feature("wind", "degree", 350.0, 40.0, period=360.0), Feature("energy", "kWh", 2.0, 1.0, counter=True)]


def readings_of(steps: int) -> list[Reading]:
    """A reading every 20 s: a wind that turns through north, a meter near 2^24 that is reset once."""
    return [
        Reading(
            "mast",
            1_700_000_000.0 + 20 * step,
            {"wind": (300.0 + 7 * step) % 360, "energy": 16_777_216.0 + step if step < 70 else 3.0 * step - 200},
        )
        for step in range(steps)
    ]


@pytest.mark.parametrize("grid", [False, True])
def test_a_killed_service_counts_and_turns_on_where_it_was(
    tmp_path: Path, make_bundle: Make, start_service: Make, mosquitto: Any, subscribe: Make, grid: bool
) -> None:
    sampling = Sampling(interval_s=60.0, max_gap_s=600.0, grid=grid)
    facts: dict[str, Any] = {"features": FEATURES, "targets": ["wind", "energy"], "clock": [], "sampling": sampling}
    contract = contract_of(random_network(), **facts)
    network = random_network(inputs=len(contract.inputs), outputs=len(contract.network_outputs))
    make_bundle(tmp_path / "mast.elstm", network, contract)
    readings = readings_of(120)
    expected = undisturbed(tmp_path / "mast.elstm", readings)
    assert len(expected["mast"]) == (40 if grid else 120)  # the last interval is open
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(tmp_path / "mast.elstm", mosquitto.address)
    service.wait_connected()
    for index, reading in enumerate(readings):
        subscriber.publish("sensors/mast", encode_reading(reading))
        if index in (40, 75):
            wait_until(lambda: bool(subscriber.messages), "something was predicted")
            service.kill()
            service = start_service(tmp_path / "mast.elstm", mosquitto.address)
            service.wait_connected()
    wait_until(lambda: by_stream_without_repeats(subscriber.messages) == expected, "every step is predicted")
    assert service.stop() == 0
