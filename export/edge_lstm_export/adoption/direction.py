"""Refuses recurrent layers that carry a state backwards in time: such a layer starts at the end of a sequence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from edge_lstm.foundation.errors import EdgeLstmError

_RECURRENT = ("LSTM", "GRU", "RNN")
_FIRST_STATE = 5  # of a recurrent operator's inputs: initial_h, and initial_c of an LSTM (ONNX operators, LSTM)
_BACKWARDS = ("bidirectional", "reverse")


def refuse_backward_layers(path: Path, model: Any, states: Iterable[str]) -> None:
    """Raises EdgeLstmError if a recurrent layer of the model runs backwards and takes one of `states`, or may take it.

    A backward layer that only runs within one step, over a window in the features, is accepted: it carries nothing.
    """
    carried, reversed_tensors = set(states), set[str]()
    for node in model.graph.node:  # in an order in which every tensor is made before it is used
        if found := _backward(node, carried, reversed_tensors):
            raise _refusal(path, node, found)
        if carried.intersection(node.input):
            carried.update(node.output)
        if node.op_type == "ReverseSequence" or (
            node.op_type not in _RECURRENT and reversed_tensors.intersection(node.input)
        ):
            reversed_tensors.update(node.output)
    for node in _nested(model):  # where its states come from cannot be followed: taken for carried
        if found := _direction(node):
            raise _refusal(path, node, found)


def _backward(node: Any, carried: set[str], reversed_tensors: set[str]) -> str:
    """What makes this node a backward layer with a carried state; empty if it is none."""
    if node.op_type not in _RECURRENT or not carried.intersection(node.input[_FIRST_STATE:]):
        return ""
    return _direction(node) or ("reversed input" if node.input[0] in reversed_tensors else "")


def _direction(node: Any) -> str:
    if node.op_type not in _RECURRENT:
        return ""
    named = [attribute.s.decode() for attribute in node.attribute if attribute.name == "direction"]
    return f'direction = "{named[0]}"' if named and named[0] in _BACKWARDS else ""


def _nested(model: Any) -> Iterator[Any]:
    """The nodes of all functions and of all graphs within nodes, such as the body of a loop."""
    for function in model.functions:
        yield from function.node
        yield from _bodies(function.node)
    yield from _bodies(model.graph.node)


def _bodies(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graph.node
                yield from _bodies(graph.node)


def _refusal(path: Path, node: Any, found: str) -> EdgeLstmError:
    name = f" {node.name}" if node.name else ""
    return EdgeLstmError(
        f"{path}: expected recurrent layers that run forwards, found the {node.op_type} node{name} with {found}",
        "train the model with forward layers only: a backward layer needs readings of the future, "
        "and its state means nothing at the next reading",
    )
