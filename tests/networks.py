"""Small random networks and contracts, made without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_lstm.bundle.contract import Contract, Feature, KnownAhead, Sampling, StateTensor
from edge_lstm.bundle.network import GATES, Cell, Layer, Network


def random_network(
    cell: Cell = "lstm", *, inputs: int = 3, hidden: int = 8, layers: int = 1, outputs: int = 2
) -> Network:
    """A network of random weights that predicts changes of its first feature."""
    rng = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.4, shape).astype(np.float32)

    rows = GATES[cell] * hidden
    stack = tuple(
        Layer(array(rows, inputs if index == 0 else hidden), array(rows, hidden), array(rows), array(rows))
        for index in range(layers)
    )
    mean, scale = array(inputs), np.abs(array(inputs)) + 1
    return Network(cell, mean, scale, stack, array(outputs, hidden), array(outputs), np.zeros(outputs, np.int32))


def linear_network(earlier: int = 5, *, inputs: int = 3, outputs: int = 2) -> Network:
    """A network without layers, of random weights over the newest samples; its register starts full."""
    rng = np.random.default_rng(0)
    taps = rng.normal(0, 0.3, (outputs, (1 + earlier) * inputs)).astype(np.float32)
    head, bias = np.zeros((outputs, 0), np.float32), rng.normal(0, 1, outputs).astype(np.float32)
    mean, scale = rng.normal(0, 1, inputs).astype(np.float32), np.full(inputs, 1.5, np.float32)
    return Network("none", mean, scale, (), head, bias, np.zeros(outputs, np.int32), taps, filled=True)


def contract_of(network: Network, **changes: object) -> Contract:
    """A contract for `random_network`: feature `level` with a clock of the day, two horizons."""
    states = [StateTensor(name, [size]) for name, size in network.state_sizes.items()]
    sampling = Sampling(interval_s=60.0, max_gap_s=600.0)
    facts = {
        "name": "tank",
        "task": "forecast",
        "features": [Feature("level", "m", 1.0, 2.0)],
        "targets": ["level"],
        "horizons": [1, 5],
        "states": states,
        "clock": ["time_of_day"],
        "sampling": sampling,
    }
    return Contract(**{**facts, **changes})  # type: ignore[arg-type]


def forecast_contract(
    *known: KnownAhead, measured: Sequence[str] = ("level",), **changes: object
) -> tuple[Network, Contract]:
    """A random network whose inputs are measured values and values that are known ahead, and its contract."""
    names = [*measured, *(name for one in known for name in one.features)]
    network = random_network(inputs=len(names))
    features = [Feature(name, "", 1.0, 2.0) for name in names]
    facts: dict[str, object] = {"features": features, "known_ahead": list(known), "clock": []}
    return network, contract_of(network, **{**facts, **changes})


def write_recurrent_onnx(path: Path) -> None:
    """A small ONNX model with an explicit state: y = next_h = tanh(x + h)."""
    import onnx
    from onnx import TensorProto, helper

    port = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Add", ["x", "h"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["next_h"]),
        helper.make_node("Identity", ["next_h"], ["y"]),
    ]
    ports = [port(name, TensorProto.FLOAT, ["batch", 1]) for name in ("x", "h", "y", "next_h")]
    model = helper.make_model(helper.make_graph(nodes, path.stem, ports[:2], ports[2:]), ir_version=8)
    model.opset_import[0].version = 17
    onnx.save(model, path)
