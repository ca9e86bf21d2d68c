"""The tensor names in every model file, and the metadata for users of a model file without its bundle."""

from __future__ import annotations

import json

import edge_lstm
from edge_lstm.bundle.archive import TensorPair
from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.network import Network

FEATURES = "features"
PREDICTION = "prediction"


def state_pairs(network: Network) -> list[TensorPair]:
    """The tensors of each state: the input hidden_state_0 has the output next_hidden_state_0."""
    return [TensorPair(name, name, f"next_{name}") for name in network.state_names]


def metadata(contract: Contract) -> dict[str, str]:
    """A model file's metadata as texts: name, version, horizons, inputs and outputs with their units."""
    units = {feature.name: feature.unit for feature in contract.features}
    return {
        "name": contract.name,
        "made by": f"edge-lstm {edge_lstm.__version__}",
        "task": contract.task,
        "inputs": _json({name: units.get(name, "") for name in contract.inputs}),
        "targets": _json(contract.target_units),
        "horizons": _json(contract.horizons),
        **({"outputs": _json(contract.network_outputs)} if contract.circles else {}),  # a sine and a cosine each
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
