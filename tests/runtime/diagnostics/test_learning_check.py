"""The doctor says whether [learn] can correct anything that the bundle predicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_lstm.diagnostics.model import learning
from edge_lstm.mqtt.address import Address
from edge_lstm.service.config import LearnConfig, MqttConfig, ServiceConfig
from tests.networks import contract_of, random_network


def test_a_forecast_is_green_and_an_estimate_without_truth_is_amber(
    tmp_path: Path, make_bundle: Callable[..., Any]
) -> None:
    config = ServiceConfig("tank.elstm", MqttConfig(str(Address("localhost", 1883))), learn=LearnConfig(enabled=True))
    network = random_network()
    forecast = make_bundle(tmp_path / "forecast.elstm", network, contract_of(network))
    assert learning(config, forecast).light == "green"
    estimate = contract_of(network, task="estimate", targets=["load"], horizons=[0, 1])
    found = learning(config, make_bundle(tmp_path / "estimate.elstm", network, estimate))
    assert (found.light, found.check) == ("amber", "learning")
    assert "none of its targets is measured later" in found.found
