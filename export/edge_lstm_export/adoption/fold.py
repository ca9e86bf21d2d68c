"""Removes what a foreign graph decides without its inputs: `If`s with a constant condition, and its own functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import helper, inliner, numpy_helper
from onnx.reference import ReferenceEvaluator

_MOST_NODES = 100  # of the computation of a condition


def folded(model: Any, constants: Mapping[str, float]) -> Any:
    """The model with its functions written out, and with the chosen branch in place of each `If` that always takes it.

    `constants`: values of inputs that never change; they may decide a branch.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    del model.training_info[:]
    inputs = {one.name: one.type.tensor_type for one in model.graph.input}
    known = {
        name: np.full(
            [size.dim_value or 1 for size in inputs[name].shape.dim],
            value,
            helper.tensor_dtype_to_np_dtype(inputs[name].elem_type),
        )
        for name, value in constants.items()
        if name in inputs
    }
    while (found := _constant_branch(model, known)) is not None:
        _replace(model.graph, *found)
    return model


def _constant_branch(model: Any, known: Mapping[str, Any]) -> tuple[int, Any] | None:
    """(index of the first `If` with a constant condition, its chosen branch); None: there is none."""
    for index, node in enumerate(model.graph.node):
        if node.op_type == "If" and node.domain in ("", "ai.onnx"):
            condition = _value(model, node.input[0], known)
            if condition is not None and condition.size == 1:
                wanted = "then_branch" if condition.item() else "else_branch"
                return index, next(one.g for one in node.attribute if one.name == wanted)
    return None


def _value(model: Any, name: str, known: Mapping[str, Any]) -> Any | None:
    """The value of a tensor if it is computed from constants alone by a few nodes, else None."""
    graph = model.graph
    numbers = {tensor.name: tensor for tensor in graph.initializer}
    variable = {one.name for one in graph.input} - set(known) - set(numbers)
    makers = {output: node for node in graph.node for output in node.output}
    wanted, needed = [name], dict[str, Any]()
    while wanted:
        tensor = wanted.pop()
        if tensor in known or tensor in numbers or not tensor:
            continue
        maker = makers.get(tensor)
        if tensor in variable or maker is None or len(needed) > _MOST_NODES or _has_graphs(maker):
            return None
        if tensor not in needed:
            needed[tensor] = maker
            wanted += maker.input
    if name in known:
        return known[name]
    if name in numbers:
        return numpy_helper.to_array(numbers[name])
    wanted_nodes = list(needed.values())
    nodes = [node for node in graph.node if any(node is one for one in wanted_nodes)]
    ports = [helper.make_tensor_value_info(one, 0, None) for one in known]
    initial = [tensor for tensor in graph.initializer if any(tensor.name in node.input for node in nodes)]
    part = helper.make_graph(nodes, "condition", ports, [helper.make_tensor_value_info(name, 0, None)], initial)
    made = helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    return np.asarray(ReferenceEvaluator(made).run([name], dict(known))[0])


def _has_graphs(node: Any) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def _replace(graph: Any, index: int, branch: Any) -> None:
    """Put the nodes of `branch` in place of the node `index`, under names that no other tensor of the graph has."""
    node = graph.node[index]
    taken = set(_tensor_names(graph.node[:index])) | set(_tensor_names(graph.node[index + 1 :]))
    taken |= {tensor.name for tensor in graph.initializer} | {one.name for one in (*graph.input, *graph.output)}
    made = {tensor.name for tensor in branch.initializer} | {output for one in branch.node for output in one.output}
    new = {name: _unused(name, taken) for name in made if name}
    for tensor in branch.initializer:
        tensor.name = new[tensor.name]
        graph.initializer.append(tensor)
    _rename(branch.node, new)
    leave = [
        helper.make_node("Identity", [new.get(one.name, one.name)], [output])
        for one, output in zip(branch.output, node.output, strict=True)
        if output
    ]
    nodes = [*graph.node[:index], *branch.node, *leave, *graph.node[index + 1 :]]
    del graph.node[:]
    graph.node.extend(nodes)


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name = f"{name}_chosen"
    return name


def _tensor_names(nodes: Sequence[Any]) -> Iterator[str]:
    for node in nodes:
        yield from (*node.input, *node.output)
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from (tensor.name for tensor in graph.initializer)
                yield from _tensor_names(graph.node)


def _rename(nodes: Sequence[Any], new: Mapping[str, str]) -> None:
    """Rename tensors in nodes, and in the graphs within them: no graph may make a tensor of an outer name again."""
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = [new.get(name, name) for name in names]
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _rename(graph.node, new)
                for one in graph.output:
                    one.name = new.get(one.name, one.name)
