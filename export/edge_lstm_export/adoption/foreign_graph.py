"""A foreign ONNX model as read: its features, its state pairs and its prediction; refused if it cannot be streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm_export.adoption.direction import refuse_backward_layers
from edge_lstm_export.adoption.fold import folded
from edge_lstm_export.adoption.state_pairs import find_state_pairs

Shape = tuple[int | None, ...]  # None: an axis of any size

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)


@dataclass(frozen=True)
class AdoptOptions:
    """Facts that a graph does not hold; what is left out is found, or refused if it cannot be found."""

    name: str
    states: Mapping[str, str] = field(default_factory=dict)  # input -> output
    constants: Mapping[str, float] = field(default_factory=dict)  # inputs that never change
    width: int | None = None  # features per step, if the graph takes any number
    context: int = 0  # earlier samples that the graph expects before the features
    interval_s: float | None = None


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a graph."""

    name: str
    type: int  # of onnx.TensorProto
    shape: Shape


@dataclass(frozen=True, eq=False)
class ForeignGraph:
    """A foreign model and the roles of its inputs and outputs."""

    path: Path
    model: Any  # onnx.ModelProto
    features: TensorInfo
    prediction: TensorInfo  # the first output that is not a state
    pairs: Mapping[str, str]  # state input -> state output
    state_shapes: Mapping[str, Shape]  # by state input, with exactly one free axis, the batch
    width: int  # features per step, without the context
    left_out: list[str]  # all other outputs


def read_foreign_graph(path: Path, options: AdoptOptions) -> ForeignGraph:
    """Read an .onnx file. Raises EdgeLstmError if it is no model with float states, one input and an output, or runs
    backwards in time."""
    model = folded(_read(path), options.constants)
    inputs = {one.name: one for one in _tensors(model.graph.input) if one.name not in options.constants}
    outputs = {one.name: one for one in _tensors(model.graph.output)}
    pairs = dict(options.states) or find_state_pairs(_shapes(inputs), _shapes(outputs))
    _refuse_unsuitable(path, options, model, inputs, outputs, pairs)
    refuse_backward_layers(path, model, pairs)
    (features,) = [one for one in inputs.values() if one.name not in pairs]
    prediction, *others = [one for one in outputs.values() if one.name not in pairs.values()]
    width = _width(path, features, options)
    for name in pairs:
        _refuse_fixed_batch(path, inputs[name])
    state_shapes = {name: inputs[name].shape for name in pairs}
    return ForeignGraph(path, model, features, prediction, pairs, state_shapes, width, [one.name for one in others])


def shown(shape: Shape) -> str:
    """A shape for messages, such as (1, any, 64)."""
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"


def _read(path: Path) -> Any:
    try:
        model = onnx.load(path)  # with weights in separate files beside it
        onnx.checker.check_model(model)
    except OSError as error:
        raise EdgeLstmError(f"expected a model at {path}, found: {error.strerror}", "check the path") from None
    except Exception as error:  # noqa: BLE001 - protobuf's and the checker's errors have no common base
        found = (str(error).splitlines() or [type(error).__name__])[0]
        raise EdgeLstmError(f"expected an ONNX model at {path}, found: {found}", "name an .onnx file") from None
    return model


def _tensors(listed: Sequence[Any]) -> Iterator[TensorInfo]:
    for one in listed:
        tensor = one.type.tensor_type
        yield TensorInfo(one.name, tensor.elem_type, tuple(size.dim_value or None for size in tensor.shape.dim))


def _shapes(tensors: Mapping[str, TensorInfo]) -> dict[str, Shape]:
    return {name: one.shape for name, one in tensors.items()}


def _refuse_unsuitable(
    path: Path,
    options: AdoptOptions,
    model: Any,
    inputs: Mapping[str, TensorInfo],
    outputs: Mapping[str, TensorInfo],
    pairs: Mapping[str, str],
) -> None:
    has = f"inputs {', '.join(inputs)} and outputs {', '.join(outputs)}"
    unknown = [name for name in [*pairs, *options.constants] if name not in {one.name for one in model.graph.input}]
    unknown += [name for name in pairs.values() if name not in outputs]
    if unknown:
        raise EdgeLstmError(f"{path}: expected tensors named {', '.join(unknown)}, found {has}", "correct the names")
    if not pairs:
        raise EdgeLstmError(
            f"{path}: expected states that go in and come out, found none among {has}",
            "name them with --state IN=OUT; a model without explicit states cannot be streamed",
        )
    rest = [one for one in inputs.values() if one.name not in pairs]
    if len(rest) != 1 or rest[0].type not in _FLOATS:
        raise EdgeLstmError(
            f"{path}: expected one float input besides the states, found {', '.join(p.name for p in rest) or 'none'}",
            "fix the others with --constant NAME=VALUE, or name more states with --state IN=OUT",
        )
    tensors = [*rest, *(inputs[name] for name in pairs if name in inputs), *outputs.values()]
    if odd := [one.name for one in tensors if one.type != onnx.TensorProto.FLOAT]:
        raise EdgeLstmError(
            f"{path}: expected inputs, states and outputs of float (32 bit), found another type in {', '.join(odd)}",
            "convert the model to float32, or cast within it",
        )
    if len(outputs) == len(set(pairs.values())):
        raise EdgeLstmError(f"{path}: expected an output besides the states, found {has}", "check --state")


def _width(path: Path, features: TensorInfo, options: AdoptOptions) -> int:
    """The features per step, without the context before them."""
    shape = features.shape
    if len(shape) != 2 and not (len(shape) == 3 and sorted(shape[:2], key=str) == [1, None]):
        raise EdgeLstmError(
            f"{path}: expected an input (batch, features), (1, batch, features) or (batch, 1, features), found "
            f"{features.name} of shape {shown(shape)}",
            "export the model again for a sequence of one step, with a free batch axis",
        )
    width = options.width or (shape[-1] or 0) - options.context
    if width < 1:
        raise EdgeLstmError(f"{path}: expected a number of features, found any", "give it with --width")
    return width


def _refuse_fixed_batch(path: Path, state: TensorInfo) -> None:
    if sum(size is None for size in state.shape) != 1:
        raise EdgeLstmError(
            f"{path}: expected one axis of any size, the batch, in the state {state.name}, "
            f"found shape {shown(state.shape)}",
            "export the model again with a free batch axis",
        )
