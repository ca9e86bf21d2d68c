"""Adopting: a recurrent ONNX model that others made becomes a bundle like any other.

Its states are explicit inputs and outputs, found by shape and name or told. Of its other outputs the first is what it
says; a step is one row, whether the graph takes it as such or as a sequence of one. State that lives outside of it, as
the samples before a frame that a wrapper keeps, becomes a state pair too. It refuses a model without states, and one
whose outputs do not depend on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import edge_lstm
from edge_lstm.backends.onnx import load as load_onnx
from edge_lstm.backends.registry import load, runnable
from edge_lstm.backends.selftest import Verdict, initial_states, replay_tape, smallest_isolated_batch, verify
from edge_lstm.bundle.archive import (
    CARD,
    FORMAT_VERSION,
    GOLDEN,
    Architecture,
    Bundle,
    Manifest,
    TensorPair,
    Variant,
    pack,
)
from edge_lstm.bundle.contract import Contract, Feature, Sampling, StateTensor
from edge_lstm.bundle.golden import Expected, GoldenVectors
from edge_lstm.bundle.golden import to_npz as golden_npz
from edge_lstm.bundle.network import RECENT
from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.files import write_file

LEFT_OUT = "outputs left out"  # in the provenance
_STEPS, _MARKS = 300, (1, 10, 100, 300)
_PARITY = 1e-4  # others' graphs hold operators of every kind, and optimizers reorder their sums


_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)  # no constants, by their type
# What says of a state's tensor that it goes in, or comes out, and is no part of its name.
_BEGINS = re.compile(r"^(prev|initial|init|old)_|_?(0|in|prev|init|old|input)$")
_ENDS = re.compile(r"^(next|new|final)_|_?(n|out|next|new|final|output)$")


@dataclass(frozen=True)
class AdoptOptions:
    """What a graph does not say of itself; what is left out is found, or refused where it cannot be."""

    name: str
    states: Mapping[str, str] = field(default_factory=dict)  # input to output
    constants: Mapping[str, float] = field(default_factory=dict)  # inputs that never change
    width: int | None = None  # features, where the graph takes any number
    context: int = 0  # earlier samples that the graph wants in front of the features
    interval_s: float | None = None


@dataclass(frozen=True)
class _Port:
    name: str
    type: int
    shape: tuple[int | None, ...]  # None: of any size


def adopt(path: Path, output: Path, told: AdoptOptions) -> tuple[Bundle, list[Verdict]]:
    """Write the model's bundle at `output`, whole or not at all. Raises EdgeLstmError where it is no stream's model."""
    model = _read(path)
    inputs = {port.name: port for port in _ports(model.graph.input) if port.name not in told.constants}
    outputs = {port.name: port for port in _ports(model.graph.output)}
    pairs = dict(told.states) or _found_pairs(inputs, outputs)
    _refuse_strangers(path, told, model, inputs, outputs, pairs)
    (features,) = [port for port in inputs.values() if port.name not in pairs]
    prediction = next(port for port in outputs.values() if port.name not in pairs.values())
    width = _width(path, features, told)
    shapes = {name: _state_shape(path, inputs[name]) for name in pairs}
    taken, given = _rewrite(path, model, told, features, prediction, pairs, shapes, width)
    states = [StateTensor(name, _for_one_stream(shape)) for name, shape in shapes.items()]
    ports = [TensorPair(name, name, pairs[name]) for name in pairs]
    if told.context:
        states.append(StateTensor(RECENT, [told.context]))
        ports.append(TensorPair(RECENT, RECENT, f"next_{RECENT}"))
    content = model.SerializeToString(deterministic=True)
    names = [f"sample_{index:03d}" for index in range(width)]
    variant = Variant("onnx", "float32", "model.float32.onnx", taken, given, ports, _PARITY, 1e-3)
    outputs_of = _outputs(path, content, variant, width, states)
    targets = [prediction.name] if outputs_of == 1 else [f"{prediction.name}_{index}" for index in range(outputs_of)]
    contract = Contract(
        told.name, "estimate", [Feature(name) for name in names], targets, [0], states, [], Sampling(told.interval_s)
    )
    golden = _golden(path, content, contract, variant)
    if smallest_isolated_batch(load_onnx(variant, content), contract, golden.features[:24]) is None:
        variant = replace(variant, row_by_row=True)
    left_out = [name for name in outputs if name != prediction.name and name not in pairs.values()]
    data = _packed(path, model, content, contract, variant, golden, left_out)
    bundle = Bundle.from_bytes(data, str(output))
    for name, scheme in runnable(bundle):
        load(bundle, name, scheme)
    verdicts = verify(bundle, runnable(bundle))
    if failed := [verdict for verdict in verdicts if not verdict.passed]:
        raise EdgeLstmError(
            f"{path}: expected the model's own answers on {failed[0].backend}, found {failed[0].finding}",
            "nothing was written; another version of onnxruntime may do",
        )
    write_file(output, data)
    return bundle, verdicts


def _read(path: Path) -> Any:
    try:
        model = onnx.load(path)  # with the weights that lie in files beside it
        onnx.checker.check_model(model)
    except OSError as error:
        raise EdgeLstmError(f"expected a model at {path}, found: {error.strerror}", "check the path") from None
    except Exception as error:  # noqa: BLE001 - protobuf's and the checker's errors have no common base
        found = (str(error).splitlines() or [type(error).__name__])[0]
        raise EdgeLstmError(f"expected an ONNX model at {path}, found: {found}", "name an .onnx file") from None
    return model


def _ports(listed: Sequence[Any]) -> Iterator[_Port]:
    for port in listed:
        tensor = port.type.tensor_type
        yield _Port(port.name, tensor.elem_type, tuple(size.dim_value or None for size in tensor.shape.dim))


def _found_pairs(inputs: Mapping[str, _Port], outputs: Mapping[str, _Port]) -> dict[str, str]:
    """An output continues an input of its shape that is named like it, as state and stateN, or h and next_h, or that
    has the same name but for what says which is which, as h_0 and h_n.
    """
    pairs = {}
    for name, port in inputs.items():
        alike = [other for other, given in outputs.items() if _fits(port.shape, given.shape)]
        follows = [other for other in alike if other.startswith(name) or other.endswith(name)]
        follows = follows or [other for other in alike if _ENDS.sub("", other) == _BEGINS.sub("", name) != ""]
        if len(follows) == 1:
            pairs[name] = follows[0]
    return pairs


def _fits(one: Sequence[int | None], other: Sequence[int | None]) -> bool:
    return len(one) == len(other) and all(a is None or b is None or a == b for a, b in zip(one, other, strict=True))


def _refuse_strangers(
    path: Path,
    told: AdoptOptions,
    model: Any,
    inputs: Mapping[str, _Port],
    outputs: Mapping[str, _Port],
    pairs: Mapping[str, str],
) -> None:
    has = f"inputs {', '.join(inputs)} and outputs {', '.join(outputs)}"
    unknown = [name for name in [*pairs, *told.constants] if name not in {port.name for port in model.graph.input}]
    unknown += [name for name in pairs.values() if name not in outputs]
    if unknown:
        raise EdgeLstmError(f"{path}: expected tensors named {', '.join(unknown)}, found {has}", "mend the names")
    if not pairs:
        raise EdgeLstmError(
            f"{path}: expected states that go in and come out, found none among {has}",
            "name them with --state IN=OUT; a model without explicit states cannot be streamed",
        )
    rest = [port for port in inputs.values() if port.name not in pairs]
    if len(rest) != 1 or rest[0].type not in _FLOATS:
        raise EdgeLstmError(
            f"{path}: expected one float input besides the states, found {', '.join(p.name for p in rest) or 'none'}",
            "fix the others with --constant NAME=VALUE, or name more states with --state IN=OUT",
        )
    tensors = [*rest, *(inputs[name] for name in pairs if name in inputs), *outputs.values()]
    if odd := [port.name for port in tensors if port.type != onnx.TensorProto.FLOAT]:
        raise EdgeLstmError(
            f"{path}: expected inputs, states and outputs of float (32 bit), found another type in {', '.join(odd)}",
            "convert the model to float32, or cast within it",
        )
    if len(outputs) == len(set(pairs.values())):
        raise EdgeLstmError(f"{path}: expected an output besides the states, found {has}", "check --state")


def _width(path: Path, features: _Port, told: AdoptOptions) -> int:
    """How many features a step takes, without the context in front of them."""
    shape = features.shape
    if len(shape) != 2 and not (len(shape) == 3 and sorted(shape[:2], key=str) == [1, None]):
        raise EdgeLstmError(
            f"{path}: expected an input (batch, features), (1, batch, features) or (batch, 1, features), found "
            f"{features.name} of shape {_shown(shape)}",
            "export the model again for a sequence of one step, with a free batch axis",
        )
    width = told.width or (shape[-1] or 0) - told.context
    if width < 1:
        raise EdgeLstmError(f"{path}: expected a number of features, found any", "tell it with --width")
    return width


def _shown(shape: Sequence[int | None]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"


def _state_shape(path: Path, port: _Port) -> tuple[int | None, ...]:
    free = [axis for axis, size in enumerate(port.shape) if size is None]
    if len(free) != 1:
        raise EdgeLstmError(
            f"{path}: expected one axis of any size, the batch, in the state {port.name}, "
            f"found shape {_shown(port.shape)}",
            "export the model again with a free batch axis",
        )
    return port.shape


def _for_one_stream(shape: tuple[int | None, ...]) -> list[int]:
    """The shape without the batch axis, and without axes of one in front of it, which the backend adds."""
    before, after = shape[: shape.index(None)], shape[shape.index(None) + 1 :]
    sizes = [size for size in (before if any(size != 1 for size in before) else ()) + after if size is not None]
    return sizes or [1]


def _rewrite(
    path: Path,
    model: Any,
    told: AdoptOptions,
    features: _Port,
    prediction: _Port,
    pairs: Mapping[str, str],
    shapes: Mapping[str, tuple[int | None, ...]],
    width: int,
) -> tuple[str, str]:
    """Constants become initializers, the context a state pair, rows go in and come out, and every port says its shape.

    Returns the names of the tensors that take the features (batch, width) and give the predictions (batch, outputs).
    """
    graph = model.graph
    used = _names(graph)
    taken = _unused("features", used)
    given_inputs = {port.name: port for port in graph.input}
    for name, value in told.constants.items():
        kind = helper.tensor_dtype_to_np_dtype(given_inputs[name].type.tensor_type.elem_type)
        shape = [size.dim_value or 1 for size in given_inputs[name].type.tensor_type.shape.dim]
        graph.initializer.append(numpy_helper.from_array(np.full(shape, value, kind), name))

    def port(name: str, shape: Sequence[int | str | None]) -> Any:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [size or "batch" for size in shape])

    def constant(name: str, *numbers: int) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), name))
        return name

    before, after, ports_in, ports_out = [], [], [], []
    row = taken
    if told.context:
        if clash := used & {RECENT, f"next_{RECENT}"}:
            raise EdgeLstmError(f"{path}: expected no tensor named {RECENT}, found {', '.join(clash)}", "rename it")
        row = _unused("with_context", used)
        bounds = {"from": -told.context, "to": np.iinfo(np.int64).max, "along": 1}
        limits = [constant(f"{RECENT}.{what}", int(value)) for what, value in bounds.items()]
        before = [
            helper.make_node("Concat", [RECENT, taken], [row], name="with_context", axis=1),
            helper.make_node("Slice", [row, *limits], [f"next_{RECENT}"]),
        ]
        ports_in.append(port(RECENT, (None, told.context)))
        ports_out.append(port(f"next_{RECENT}", (None, told.context)))
    if len(features.shape) == 2:
        before.append(helper.make_node("Identity", [row], [features.name], name="as_given"))
    else:
        sizes = [size or -1 for size in (*features.shape[:2], width + told.context)]
        axes = constant(_unused("step_shape", used), *sizes)
        before.append(helper.make_node("Reshape", [row, axes], [features.name], name="as_a_sequence"))
    given, outputs = prediction.name, prediction.shape[1] if len(prediction.shape) == 2 else None
    if len(prediction.shape) != 2 and prediction.shape:
        outputs = _flat(path, prediction)
        given = _unused("prediction", used)
        axes = constant(_unused("prediction_shape", used), -1, outputs)
        after = [helper.make_node("Reshape", [prediction.name, axes], [given], name="as_rows")]
    nodes = [*before, *graph.node, *after]
    ports_in = [port(taken, (None, width)), *[port(name, shapes[name]) for name in pairs], *ports_in]
    ports_out = [
        port(given, (None, outputs or 1)),
        *[port(pairs[name], shapes[name]) for name in pairs],
        *ports_out,
    ]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.extend(ports_in)
    graph.output.extend(ports_out)
    del graph.value_info[:]
    return taken, given


def _flat(path: Path, prediction: _Port) -> int:
    """How many numbers an output of another form than (batch, outputs) gives for each row."""
    shape = prediction.shape
    free = [axis for axis, size in enumerate(shape) if size is None]
    if len(free) != 1 or prod(size or 1 for size in shape[: free[0]]) != 1:
        raise EdgeLstmError(
            f"{path}: expected an output with one axis of any size, the batch, before all others that are not 1, found "
            f"{prediction.name} of shape {_shown(shape)}",
            "export the model again for a sequence of one step, with a free batch axis",
        )
    return prod(size for size in shape if size is not None)


def _names(graph: Any) -> set[str]:
    """Every tensor's name, those of the branches included."""
    names = {tensor.name for tensor in graph.initializer} | {port.name for port in (*graph.input, *graph.output)}
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


def _outputs(path: Path, content: bytes, variant: Variant, width: int, states: Sequence[StateTensor]) -> int:
    """How many numbers a step gives, by doing one; refuses a graph that does not run."""
    backend = load_onnx(variant, content)
    zeros = [np.zeros((1, *state.shape), np.float32) for state in states]
    prediction, following = backend.step(np.zeros((1, width), np.float32), zeros)
    for state, tensor in zip(states, following, strict=True):
        if tensor.shape != (1, *state.shape):
            raise EdgeLstmError(
                f"{path}: expected {state.name} to come out as it went in, {state.shape}, found {tensor.shape[1:]}",
                "name the state's output with --state IN=OUT",
            )
    return prediction.shape[1]


def tone_and_noise(samples: int) -> Floats:
    """A signal for models that listen and for all others: tones that come and go over noise, within -1 to 1."""
    time = np.arange(samples) / 16_000
    loudness = 0.5 * (1 + np.sin(2 * np.pi * 0.7 * time))
    tones = sum(np.sin(2 * np.pi * 140 * number * time) / number for number in range(1, 8))
    noise = np.random.default_rng(0).normal(0, 1, samples)
    signal: Floats = np.clip(0.25 * loudness * tones + 0.02 * noise, -1, 1).astype(np.float32)
    return signal


def _golden(path: Path, content: bytes, contract: Contract, variant: Variant) -> GoldenVectors:
    """What the graph answers as it stands, without onnxruntime's optimizer; refuses states that do nothing."""
    width = len(contract.features)
    tape = tone_and_noise(_STEPS * width).reshape(_STEPS, width)
    marks = np.array(_MARKS)
    plain = _Plain(content, variant)
    prediction, states = replay_tape(plain, contract, tape, marks)
    if not all(np.isfinite(array).all() for array in (prediction, *states)):
        raise EdgeLstmError(
            f"{path}: expected finite outputs and states over {_STEPS} steps of tones and noise, found NaN or infinity",
            "check --state and --constant: a model that runs away cannot be carried",
        )
    for state, marked in zip(contract.states, states, strict=True):
        if not np.ptp(marked, axis=0).any():
            raise EdgeLstmError(
                f"{path}: expected the state {state.name} to move, found it the same after {_STEPS} steps",
                "check --state: a model that leaves its state alone cannot be proven",
            )
    forgetful = np.concatenate([plain.step(row[None], initial_states(contract, 1))[0] for row in tape[:50]])
    if np.array_equal(forgetful, prediction[:50]):
        raise EdgeLstmError(
            f"{path}: expected outputs that depend on the state, found the same ones from zeros at every step",
            "this model ignores its state: it needs no stream",
        )
    return GoldenVectors(tape, marks, {"float32": Expected(prediction, states)})


class _Plain:
    """The graph in onnxruntime with nothing rearranged."""

    name, scheme = "onnx as written", "float32"

    def __init__(self, content: bytes, variant: Variant) -> None:
        from edge_lstm.backends.onnx import OnnxBackend

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._backend = OnnxBackend(variant, session)

    def step(self, features: Floats, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        return self._backend.step(features, states)


def _packed(
    path: Path,
    model: Any,
    content: bytes,
    contract: Contract,
    variant: Variant,
    golden: GoldenVectors,
    left_out: Sequence[str],
) -> bytes:
    nodes, numbers = _counted(model.graph)
    recurrent = sum(kind in ("LSTM", "GRU", "RNN") for kind in nodes)
    architecture = Architecture("foreign", max(1, recurrent), contract.states[0].shape[-1], max(1, numbers))
    provenance = {
        "adopted from": path.name,
        **({LEFT_OUT: ", ".join(left_out)} if left_out else {}),
        "exported by": f"edge-lstm {edge_lstm.__version__}, onnx {onnx.__version__}",
    }
    manifest = Manifest(FORMAT_VERSION, contract, architecture, [variant], {}, provenance)
    card = f"# {contract.name}\n\nAdopted from {path.name}: {len(contract.features)} values a step, states carried.\n"
    return pack(manifest, {variant.file: content, GOLDEN: golden_npz(golden), CARD: card.encode()})


def _counted(graph: Any) -> tuple[list[str], int]:
    """The kinds of all nodes and how many numbers the graph holds, its branches included."""
    kinds = [node.op_type for node in graph.node]
    numbers = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                more, count = _counted(attribute.g)
                kinds, numbers = kinds + more, numbers + count
            elif attribute.HasField("t"):
                numbers += int(np.prod(attribute.t.dims))
    return kinds, numbers
