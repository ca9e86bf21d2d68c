"""A network as an ONNX graph of one step, written node by node without torch.

Opset 17 and IR version 8 load in onnxruntime 1.17 and later. Inputs are `features` (batch, inputs) in raw units and
each state (1, batch, hidden). Outputs are `prediction` (batch, outputs) in the targets' units and each next state.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.network import CARRIED, GATES, RECENT, STARTED, Cell, Layer, Network, Quantized, Weight
from edge_lstm.foundation.arrays import Floats
from edge_lstm_export.writers.input_scaling import InputScaling, input_scaling_of
from edge_lstm_export.writers.onnx_graph import Graph
from edge_lstm_export.writers.onnx_static import write_static_layers
from edge_lstm_export.writers.tensor_names import FEATURES, PREDICTION, metadata, state_pairs

OPSET = 17
IR_VERSION = 8
_AXIS_OF_STEPS = "axis_of_steps"
_CONTRIBUTED = "com.microsoft"  # the domain of operators that onnxruntime adds

# Torch stacks i, f, g, o and r, z, n; ONNX stacks i, o, f, c and z, r, h: the place of each ONNX gate in torch's order.
_GATE_ORDER: dict[Cell, tuple[int, ...]] = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
# Torch's GRU multiplies the reset gate after the matrix product and its bias.
_ATTRIBUTES: dict[Cell, dict[str, int]] = {"lstm": {}, "gru": {"linear_before_reset": 1}}


def write_onnx(network: Network, contract: Contract) -> bytes:
    """The network as an .onnx file, checked by onnx itself; equal arguments give equal bytes."""
    graph = Graph()
    if network.layers:
        graph.constant(_AXIS_OF_STEPS, np.array([0], np.int64))
    scaling = input_scaling_of(network, columns_at_load=True)
    standardized = _write_input_scaling(graph, scaling)
    if not network.layers:
        x = None
    elif network.arithmetic == "static":
        x = write_static_layers(graph, network, standardized)
    else:
        x = graph.node("Unsqueeze", [standardized, _AXIS_OF_STEPS], "sequence")  # (1, batch, inputs): one step
        for index, layer in enumerate((*scaling.first, *network.layers[1:])):
            columns = scaling.columns if index == 0 else None
            x = _write_layer(graph, network, index, layer, x, columns)  # (1, batch, hidden)
        x = graph.node("Squeeze", [x, _AXIS_OF_STEPS], "hidden")  # (batch, hidden)
    _write_head(graph, network, x, standardized)
    model = helper.make_model(
        _with_inputs_and_outputs(graph, network, contract),
        opset_imports=[
            helper.make_opsetid("", OPSET),
            *([helper.make_opsetid(_CONTRIBUTED, 1)] if network.arithmetic == "dynamic" else []),
        ],
        ir_version=IR_VERSION,
        producer_name="edge-lstm",
    )
    helper.set_model_props(model, metadata(contract))
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _write_input_scaling(graph: Graph, scaling: InputScaling) -> str:
    """The features (batch, inputs), scaled for the first layer."""
    x = FEATURES
    if scaling.offset is not None:
        x = graph.node("Sub", [x, graph.constant("mean", scaling.offset)], "centred")
    if scaling.factor is not None:
        x = graph.node("Mul", [x, graph.constant("inverse_scale", scaling.factor)], "standardized")
    return x


def _write_layer(graph: Graph, network: Network, index: int, layer: Layer, x: str, columns: Floats | None) -> str:
    """One LSTM or GRU node over x (1, batch, inputs); the name of its next hidden state (1, batch, hidden)."""
    rows, name = GATES[network.cell] * network.hidden, f"layer_{index}"
    w_ih, w_hh = (_reordered(weight, network.cell) for weight in (layer.w_ih, layer.w_hh))
    biases = [_reorder_rows(bias, network.cell) for bias in (layer.b_ih, layer.b_hh)]
    if network.arithmetic == "dynamic":
        return _write_dynamic_layer(graph, network, index, (w_ih, w_hh), np.concatenate(biases)[None], x)
    inputs = [
        x,
        graph.matrix(f"{name}.w_ih", w_ih, (1, rows, w_ih.shape[1]), columns),
        graph.matrix(f"{name}.w_hh", w_hh, (1, rows, network.hidden)),
        graph.constant(f"{name}.bias", np.concatenate(biases)[None]),
        "",  # sequence lengths: all one
        *[f"{state}_{index}" for state in CARRIED[network.cell]],
    ]
    outputs = ["", *[f"next_{state}_{index}" for state in CARRIED[network.cell]]]  # the whole sequence is left out
    node = helper.make_node(
        network.cell.upper(), inputs, outputs, name=name, hidden_size=network.hidden, **_ATTRIBUTES[network.cell]
    )
    graph.nodes.append(node)
    return outputs[1]


def _write_dynamic_layer(
    graph: Graph, network: Network, index: int, weights: tuple[Weight, Weight], bias: Floats, x: str
) -> str:
    """One DynamicQuantizeLSTM of onnxruntime, which finds the activations' scale at each step, over the batch."""
    name = f"layer_{index}"
    stored, found = [], []
    for what, weight in zip(("w_ih", "w_hh"), weights, strict=True):
        if not isinstance(weight, Quantized):
            raise ValueError(f"expected int8 weights for dynamic kernels, found {weight.dtype}")
        stored.append(graph.constant(f"{name}.{what}.int8", weight.values.T[None]))  # (1, columns, rows)
        found += [
            graph.constant(f"{name}.{what}.scale", weight.scales[:1]),
            graph.constant(f"{name}.{what}.zero_point", np.zeros(1, np.int8)),
        ]
    states = [f"{state}_{index}" for state in CARRIED[network.cell]]
    inputs = [x, *stored, graph.constant(f"{name}.bias", bias), "", *states, "", *found]
    outputs = ["", *[f"next_{state}" for state in states]]
    node = helper.make_node(
        "DynamicQuantizeLSTM", inputs, outputs, name=name, domain=_CONTRIBUTED, hidden_size=network.hidden
    )
    graph.nodes.append(node)
    return outputs[1]


def _write_head(graph: Graph, network: Network, hidden: str | None, standardized: str) -> None:
    """The dense layer over hidden (batch, hidden), the highway, and the raw features if changes are predicted.

    These features are selected by a product with ones and zeros that also adds the bias. This is exact, and saves an
    operation compared with a gather and a later sum. Without layers, hidden is None, and there is no dense layer.
    """
    highway, bias = network.highway, graph.constant("head.bias", network.head_bias)
    if network.change_of.size:
        chosen = np.zeros((len(network.head_bias), len(network.mean)), np.float32)
        chosen[np.arange(len(chosen)), network.change_of] = 1
        chosen_of = graph.constant("change_of", chosen)
        bias = graph.node("Gemm", [FEATURES, chosen_of, bias], "level", transB=1)  # (batch, outputs)
    dense = bias
    if hidden is not None:
        weight = graph.matrix("head.weight", network.head_weight, network.head_weight.shape)
        name = PREDICTION if highway is None else "recurrent_part"
        dense = graph.node("Gemm", [hidden, weight, bias], name, transB=1)
    if highway is not None:
        samples = standardized
        if network.recent_size:
            register = _write_filled_register(graph, network, standardized) if network.filled else RECENT
            samples = graph.node("Concat", [standardized, register], "samples", axis=1)  # the newest first
            bounds = [
                graph.constant(name, np.array([value], np.int64))
                for name, value in (("newest", 0), ("oldest", network.recent_size), ("axis_of_columns", 1))
            ]
            graph.node("Slice", [samples, *bounds], f"next_{RECENT}")  # without the oldest
        taps = graph.constant("highway.weight", highway)
        graph.node("Gemm", [samples, taps, dense], PREDICTION, transB=1)


def _write_filled_register(graph: Graph, network: Network, standardized: str) -> str:
    """The shift register, full of the newest sample where a stream starts with it."""
    one = graph.constant("one", np.ones(1, np.float32))
    unfilled = graph.node("Sub", [one, STARTED], "unfilled")  # (batch, 1): 1 at a stream's first sample, then 0
    width, size = len(network.mean), network.recent_size
    columns = graph.constant("columns_of_copies", np.tile(np.arange(width), size // width))
    copies = graph.node("Gather", [standardized, columns], "copies", axis=1)  # (batch, recent size)
    graph.node("Add", [unfilled, STARTED], f"next_{STARTED}")
    return graph.node("Add", [RECENT, graph.node("Mul", [copies, unfilled], "filling")], "register")


def _with_inputs_and_outputs(graph: Graph, network: Network, contract: Contract) -> Any:
    """The ONNX graph with its declared inputs and outputs; the batch has any size."""

    def declared(name: str, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape))

    pairs = state_pairs(network)
    inputs = [declared(FEATURES, "batch", len(network.mean))]
    flat = network.arithmetic == "static"  # only an LSTM node needs an axis of directions
    shapes = [
        ("batch", size) if flat or name in (RECENT, STARTED) else (1, "batch", size)
        for name, size in network.state_sizes.items()
    ]
    inputs += [declared(pair.input, *shape) for pair, shape in zip(pairs, shapes, strict=True)]
    outputs = [declared(PREDICTION, "batch", len(network.head_bias))]
    outputs += [declared(pair.output, *shape) for pair, shape in zip(pairs, shapes, strict=True)]
    return helper.make_graph(graph.nodes, contract.name, inputs, outputs, graph.constants)


def _reordered(weight: Weight, cell: Cell) -> Weight:
    if isinstance(weight, Quantized):
        scales = weight.scales if weight.axis else _reorder_rows(weight.scales, cell)
        return replace(weight, values=_reorder_rows(weight.values, cell), scales=scales)
    return _reorder_rows(weight, cell)


def _reorder_rows(array: NDArray[Any], cell: Cell) -> NDArray[Any]:
    """`array` (gates * hidden, ...) with its gates in ONNX's order."""
    gates = np.split(array, GATES[cell])
    return np.concatenate([gates[gate] for gate in _GATE_ORDER[cell]])
