"""What every model file calls its tensors, and what it says of itself to whoever opens it without its bundle."""

from __future__ import annotations

import json

import edge_lstm
from edge_lstm.bundle.archive import TensorPair
from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.network import Network

FEATURES = "features"
PREDICTION = "prediction"


def state_pairs(network: Network) -> list[TensorPair]:
    """The tensors that carry each state: hidden_state_0 goes in, next_hidden_state_0 comes out."""
    return [TensorPair(name, name, f"next_{name}") for name in network.state_names]


def facts(contract: Contract) -> dict[str, str]:
    """Name, version, inputs and outputs with their units, horizons: texts for a model file's metadata."""
    units = {feature.name: feature.unit for feature in contract.features}
    return {
        "name": contract.name,
        "made by": f"edge-lstm {edge_lstm.__version__}",
        "task": contract.task,
        "inputs": _json({name: units.get(name, "") for name in contract.inputs}),
        "targets": _json(contract.target_units),
        "horizons": _json(contract.horizons),
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
