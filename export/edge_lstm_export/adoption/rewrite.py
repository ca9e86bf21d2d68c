"""The rewriting of a foreign graph into one step: features (batch, width) in, predictions (batch, outputs) out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge_lstm.bundle.network import RECENT
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm_export.adoption.foreign_graph import ForeignGraph, Shape, TensorInfo, shown


@dataclass(frozen=True, eq=False)
class _Context:
    """Nodes and tensors that keep the samples before the features as a state."""

    row: str  # the tensor of context and features, (batch, context + width)
    nodes: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)


def rewrite(foreign: ForeignGraph, constants: Mapping[str, float], context: int) -> tuple[str, str]:
    """Rewrite the model in place; returns the names of the tensors of features and predictions.

    Constants become initializers, and `context` earlier samples become a state pair. Features and predictions become
    rows, and every input and output declares its shape.
    """
    graph = foreign.model.graph
    used = _names(graph)
    features = _unused("features", used)
    _fix_constants(graph, constants)
    kept = _keep_context(foreign.path, graph, features, context, used)
    enter = _enter_node(graph, foreign.features, kept.row, foreign.width + context, used)
    prediction, outputs, leave = _leave_nodes(foreign.path, graph, foreign.prediction, used)
    nodes = [*kept.nodes, enter, *graph.node, *leave]
    states = foreign.state_shapes
    inputs_declared = [
        _declared(features, (None, foreign.width)),
        *[_declared(name, shape) for name, shape in states.items()],
        *kept.inputs,
    ]
    outputs_declared = [
        _declared(prediction, (None, outputs)),
        *[_declared(foreign.pairs[name], shape) for name, shape in states.items()],
        *kept.outputs,
    ]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs_declared)
    graph.output.extend(outputs_declared)
    del graph.value_info[:]
    return features, prediction


def _fix_constants(graph: Any, constants: Mapping[str, float]) -> None:
    inputs = {one.name: one.type.tensor_type for one in graph.input}
    for name, value in constants.items():
        kind = helper.tensor_dtype_to_np_dtype(inputs[name].elem_type)
        shape = [size.dim_value or 1 for size in inputs[name].shape.dim]
        graph.initializer.append(numpy_helper.from_array(np.full(shape, value, kind), name))


def _keep_context(path: Path, graph: Any, features: str, context: int, used: set[str]) -> _Context:
    """The last `context` values before the features as a state, which a wrapper around the model kept before."""
    if not context:
        return _Context(features)
    if clash := used & {RECENT, f"next_{RECENT}"}:
        raise EdgeLstmError(f"{path}: expected no tensor named {RECENT}, found {', '.join(clash)}", "rename it")
    row = _unused("with_context", used)
    bounds = {"from": -context, "to": np.iinfo(np.int64).max, "along": 1}
    limits = [_constant(graph, f"{RECENT}.{name}", int(value)) for name, value in bounds.items()]
    return _Context(
        row,
        [
            helper.make_node("Concat", [RECENT, features], [row], name="with_context", axis=1),
            helper.make_node("Slice", [row, *limits], [f"next_{RECENT}"]),
        ],
        [_declared(RECENT, (None, context))],
        [_declared(f"next_{RECENT}", (None, context))],
    )


def _enter_node(graph: Any, features: TensorInfo, row: str, width: int, used: set[str]) -> Any:
    """The node from the row (batch, width) to the graph's own input, as a row or a sequence of one step."""
    if len(features.shape) == 2:
        return helper.make_node("Identity", [row], [features.name], name="as_given")
    sizes = [size or -1 for size in (*features.shape[:2], width)]
    axes = _constant(graph, _unused("step_shape", used), *sizes)
    return helper.make_node("Reshape", [row, axes], [features.name], name="as_a_sequence")


def _leave_nodes(path: Path, graph: Any, prediction: TensorInfo, used: set[str]) -> tuple[str, int, list[Any]]:
    """The name of the predictions (batch, outputs), the number of outputs, and the nodes that give them that shape."""
    if len(prediction.shape) == 2 or not prediction.shape:
        outputs = prediction.shape[1] if prediction.shape else None
        return prediction.name, outputs or 1, []
    outputs = _outputs_per_row(path, prediction)
    name = _unused("prediction", used)
    axes = _constant(graph, _unused("prediction_shape", used), -1, outputs)
    return name, outputs, [helper.make_node("Reshape", [prediction.name, axes], [name], name="as_rows")]


def _outputs_per_row(path: Path, prediction: TensorInfo) -> int:
    """The numbers per row of an output of another shape than (batch, outputs)."""
    shape = prediction.shape
    free = [axis for axis, size in enumerate(shape) if size is None]
    if len(free) != 1 or prod(size or 1 for size in shape[: free[0]]) != 1:
        raise EdgeLstmError(
            f"{path}: expected an output with one axis of any size, the batch, before all others that are not 1, found "
            f"{prediction.name} of shape {shown(shape)}",
            "export the model again for a sequence of one step, with a free batch axis",
        )
    return prod(size for size in shape if size is not None)


def _declared(name: str, shape: Shape) -> Any:
    """The declaration of a float32 input or output; its free axis is the batch."""
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [size or "batch" for size in shape])


def _constant(graph: Any, name: str, *numbers: int) -> str:
    graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), name))
    return name


def _names(graph: Any) -> set[str]:
    """The names of all tensors, including those in branches."""
    names = {tensor.name for tensor in graph.initializer} | {one.name for one in (*graph.input, *graph.output)}
    for node in graph.node:
        names.update(node.input, node.output)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                names |= _names(attribute.g)
    return names


def _unused(name: str, used: set[str]) -> str:
    while name in used:
        name = f"step_{name}"
    return name


def size_of(graph: Any) -> tuple[int, int]:
    """The numbers of recurrent nodes and of parameters in a graph, including those in branches."""
    recurrent = sum(node.op_type in ("LSTM", "GRU", "RNN") for node in graph.node)
    numbers = sum(prod(tensor.dims) for tensor in graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                more_recurrent, more_numbers = size_of(attribute.g)
                recurrent, numbers = recurrent + more_recurrent, numbers + more_numbers
            elif attribute.HasField("t"):
                numbers += prod(attribute.t.dims)
    return recurrent, numbers
