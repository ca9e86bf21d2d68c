"""The recurrent layers in static int8, node by node: integer products, everything else float32.

The scales of x and h come from calibration; values out of range are clipped. A product's sum stays int32 until it is
scaled, so only its factors are rounded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from edge_lstm.bundle.network import CARRIED, GATES, Layer, Network, Quantized, Weight
from edge_lstm_export.writers.onnx_graph import Graph


def write_static_layers(graph: Graph, network: Network, x: str) -> str:
    """All layers over x (batch, inputs); the name of the last hidden state (batch, hidden)."""
    graph.constant("int8_zero", np.array(0, np.int8))
    if network.cell == "gru":
        graph.constant("one", np.array(1, np.float32))
    for index, layer in enumerate(network.layers):
        state = [f"{name}_{index}" for name in CARRIED[network.cell]]
        step = _lstm if network.cell == "lstm" else _gru
        x = step(graph, index, layer, x, state)
    return x


def _lstm(graph: Graph, index: int, layer: Layer, x: str, state: Sequence[str]) -> str:
    (h, c), at = state, f"layer_{index}"
    from_x = _product(graph, x, layer.w_ih, layer.x_step, f"{at}.from_x")
    from_h = _product(graph, h, layer.w_hh, layer.h_step, f"{at}.from_h")
    bias = graph.constant(f"{at}.bias", layer.b_ih + layer.b_hh)
    gates = graph.node("Add", [graph.node("Add", [from_x, from_h], f"{at}.sum"), bias], f"{at}.gates")
    i, f, g, o = _split(graph, gates, "lstm", at, "ifgo")
    i, f, o = (graph.node("Sigmoid", [gate], f"{gate}.open") for gate in (i, f, o))
    entered = graph.node("Mul", [i, graph.node("Tanh", [g], f"{at}.candidate")], f"{at}.entered")
    c = graph.node("Add", [graph.node("Mul", [f, c], f"{at}.kept"), entered], f"next_{state[1]}")
    return graph.node("Mul", [o, graph.node("Tanh", [c], f"{at}.squashed_cell")], f"next_{state[0]}")


def _gru(graph: Graph, index: int, layer: Layer, x: str, state: Sequence[str]) -> str:
    (h,), at = state, f"layer_{index}"
    biases = [graph.constant(f"{at}.{name}", bias) for name, bias in (("b_ih", layer.b_ih), ("b_hh", layer.b_hh))]
    from_x = _product(graph, x, layer.w_ih, layer.x_step, f"{at}.from_x")
    from_h = _product(graph, h, layer.w_hh, layer.h_step, f"{at}.from_h")
    x_r, x_z, x_n = _split(graph, graph.node("Add", [from_x, biases[0]], f"{at}.x"), "gru", f"{at}.x", "rzn")
    h_r, h_z, h_n = _split(graph, graph.node("Add", [from_h, biases[1]], f"{at}.h"), "gru", f"{at}.h", "rzn")
    r = graph.node("Sigmoid", [graph.node("Add", [x_r, h_r], f"{at}.r")], f"{at}.reset_gate")
    z = graph.node("Sigmoid", [graph.node("Add", [x_z, h_z], f"{at}.z")], f"{at}.update_gate")
    past = graph.node("Mul", [r, h_n], f"{at}.past")
    n = graph.node("Tanh", [graph.node("Add", [x_n, past], f"{at}.n")], f"{at}.new")
    enters = graph.node("Mul", [graph.node("Sub", ["one", z], f"{at}.share"), n], f"{at}.enters")
    return graph.node("Add", [enters, graph.node("Mul", [z, h], f"{at}.stays")], f"next_{h}")


def _product(graph: Graph, x: str, weight: Weight, step: float, name: str) -> str:
    """x (batch, columns), rounded, times the int8 weight: (batch, rows) float32."""
    if not isinstance(weight, Quantized):
        raise ValueError(f"expected int8 weights for a static product, found {weight.dtype}")
    size = graph.constant(f"{name}.step", np.array(step, np.float32))
    whole = graph.node("QuantizeLinear", [x, size, "int8_zero"], f"{name}.whole")
    matrix = graph.constant(f"{name}.int8", weight.values.T)
    summed = graph.node("MatMulInteger", [whole, matrix], f"{name}.summed")
    plain = graph.node("Cast", [summed], f"{name}.plain", to=onnx.TensorProto.FLOAT)
    return graph.node("Mul", [plain, graph.constant(f"{name}.scales", np.float32(step) * weight.scales)], name)


def _split(graph: Graph, stacked: str, cell: str, at: str, letters: str) -> list[str]:
    """stacked (batch, gates * hidden) -> the names of its gates, (batch, hidden) each."""
    names = [f"{at}.{letter}_sum" for letter in letters]
    assert len(names) == GATES["lstm" if cell == "lstm" else "gru"]
    graph.nodes.append(onnx.helper.make_node("Split", [stacked], names, name=f"{at}.split", axis=1))
    return names
