"""Adopting: a recurrent ONNX model that others made becomes a bundle like any other.

Its states are explicit inputs and outputs, found by shape and name or told. State that lives outside of it, as the
samples before a frame that a wrapper keeps, becomes a state pair too. It refuses a model without states, and one whose
outputs do not depend on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import edge_lstm
from edge_lstm.backends import load, runnable
from edge_lstm.backends.onnx import load as load_onnx
from edge_lstm.bundle import CARD, FORMAT_VERSION, GOLDEN, Architecture, Bundle, Manifest, TensorPair, Variant, pack
from edge_lstm.contract import Contract, Feature, Sampling, StateTensor
from edge_lstm.errors import EdgeLstmError
from edge_lstm.files import write_file
from edge_lstm.golden import Expected, Golden
from edge_lstm.golden import to_npz as golden_npz
from edge_lstm.network import RECENT
from edge_lstm.selftest import Verdict, initial_states, replay_tape, smallest_isolated_batch, verify

Floats = NDArray[np.float32]
_STEPS, _MARKS = 300, (1, 10, 100, 300)
_PARITY = 1e-4  # others' graphs hold operators of every kind, and optimizers reorder their sums


@dataclass(frozen=True)
class Told:
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


def adopt(path: Path, output: Path, told: Told) -> tuple[Bundle, list[Verdict]]:
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
    _rewrite(model, told, features.name, prediction.name, pairs, shapes, width)
    states = [StateTensor(name, _for_one_stream(shape)) for name, shape in shapes.items()]
    ports = [TensorPair(name, name, pairs[name]) for name in pairs]
    if told.context:
        states.append(StateTensor(RECENT, [told.context]))
        ports.append(TensorPair(RECENT, RECENT, f"next_{RECENT}"))
    content = model.SerializeToString(deterministic=True)
    names = [f"sample_{index:03d}" for index in range(width)]
    variant = Variant("onnx", "float32", "model.float32.onnx", "features", prediction.name, ports, _PARITY, 1e-3)
    outputs_of = _outputs(path, content, variant, width, states)
    targets = [prediction.name] if outputs_of == 1 else [f"{prediction.name}_{index}" for index in range(outputs_of)]
    contract = Contract(
        told.name, "estimate", [Feature(name) for name in names], targets, [0], states, [], Sampling(told.interval_s)
    )
    golden = _golden(path, content, contract, variant)
    if smallest_isolated_batch(load_onnx(variant, content), contract, golden.features[:24]) is None:
        variant = replace(variant, row_by_row=True)
    data = _packed(path, model, content, contract, variant, golden)
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
        model = onnx.load_model_from_string(path.read_bytes())
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
    """An output continues an input where it is named like it at either end, as state and stateN, or h and next_h."""
    pairs = {}
    for name, port in inputs.items():
        follows = [
            other
            for other, given in outputs.items()
            if (other.startswith(name) or other.endswith(name)) and len(given.shape) == len(port.shape)
        ]
        if len(follows) == 1:
            pairs[name] = follows[0]
    return pairs


def _refuse_strangers(
    path: Path,
    told: Told,
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
    if len(rest) != 1 or rest[0].type != onnx.TensorProto.FLOAT:
        raise EdgeLstmError(
            f"{path}: expected one float input besides the states, found {', '.join(p.name for p in rest) or 'none'}",
            "fix the others with --constant NAME=VALUE, or name more states with --state IN=OUT",
        )
    if len(outputs) == len(set(pairs.values())):
        raise EdgeLstmError(f"{path}: expected an output besides the states, found {has}", "check --state")


def _width(path: Path, features: _Port, told: Told) -> int:
    """How many features a step takes, without the context in front of them."""
    if len(features.shape) != 2:
        raise EdgeLstmError(
            f"{path}: expected an input (batch, features), found {features.name} with {len(features.shape)} axes",
            "wrap the model so that one step takes one row",
        )
    width = told.width or (features.shape[1] or 0) - told.context
    if width < 1:
        raise EdgeLstmError(f"{path}: expected a number of features, found any", "tell it with --width")
    return width


def _state_shape(path: Path, port: _Port) -> tuple[int | None, ...]:
    free = [axis for axis, size in enumerate(port.shape) if size is None]
    if len(free) != 1:
        raise EdgeLstmError(
            f"{path}: expected one axis of any size, the batch, in the state {port.name}, found shape {port.shape}",
            "export the model again with a free batch axis",
        )
    return port.shape


def _for_one_stream(shape: tuple[int | None, ...]) -> list[int]:
    """The shape without the batch axis, and without axes of one in front of it, which the backend adds."""
    before, after = shape[: shape.index(None)], shape[shape.index(None) + 1 :]
    sizes = [size for size in (before if any(size != 1 for size in before) else ()) + after if size is not None]
    return sizes or [1]


def _rewrite(
    model: Any,
    told: Told,
    features: str,
    prediction: str,
    pairs: Mapping[str, str],
    shapes: Mapping[str, tuple[int | None, ...]],
    width: int,
) -> None:
    """Constants become initializers, the context a state pair, and every port says its shape."""
    graph = model.graph
    given = {port.name: port for port in graph.input}
    for name, value in told.constants.items():
        kind = helper.tensor_dtype_to_np_dtype(given[name].type.tensor_type.elem_type)
        shape = [size.dim_value or 1 for size in given[name].type.tensor_type.shape.dim]
        graph.initializer.append(numpy_helper.from_array(np.full(shape, value, kind), name))

    def port(name: str, shape: Sequence[int | str | None]) -> Any:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [size or "batch" for size in shape])

    before, ports_in, ports_out = [], [], []
    if told.context:
        bounds = {"from": -told.context, "to": np.iinfo(np.int64).max, "along": 1}
        for what, value in bounds.items():
            graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), f"{RECENT}.{what}"))
        before = [
            helper.make_node("Concat", [RECENT, "features"], [features], name="with_context", axis=1),
            helper.make_node("Slice", [features, *[f"{RECENT}.{what}" for what in bounds]], [f"next_{RECENT}"]),
        ]
        ports_in.append(port(RECENT, (None, told.context)))
        ports_out.append(port(f"next_{RECENT}", (None, told.context)))
    else:
        before = [helper.make_node("Identity", ["features"], [features], name="as_given")]
    nodes = [*before, *graph.node]
    declared = next(one for one in graph.output if one.name == prediction)
    sizes = [size.dim_value or None for size in declared.type.tensor_type.shape.dim]
    ports_in = [port("features", (None, width)), *[port(name, shapes[name]) for name in pairs], *ports_in]
    ports_out = [
        port(prediction, (None, *sizes[1:]) if len(sizes) == 2 else (None, 1)),
        *[port(pairs[name], shapes[name]) for name in pairs],
        *ports_out,
    ]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.extend(ports_in)
    graph.output.extend(ports_out)
    del graph.value_info[:]


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


def _golden(path: Path, content: bytes, contract: Contract, variant: Variant) -> Golden:
    """What the graph answers as it stands, without onnxruntime's optimizer; refuses states that do nothing."""
    width = len(contract.features)
    tape = tone_and_noise(_STEPS * width).reshape(_STEPS, width)
    marks = np.array(_MARKS)
    plain = _Plain(content, variant)
    prediction, states = replay_tape(plain, contract, tape, marks)
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
    return Golden(tape, marks, {"float32": Expected(prediction, states)})


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


def _packed(path: Path, model: Any, content: bytes, contract: Contract, variant: Variant, golden: Golden) -> bytes:
    nodes, numbers = _counted(model.graph)
    recurrent = sum(kind in ("LSTM", "GRU", "RNN") for kind in nodes)
    architecture = Architecture("foreign", max(1, recurrent), contract.states[0].shape[-1], max(1, numbers))
    provenance = {
        "adopted from": path.name,
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
