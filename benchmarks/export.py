"""Prints figures of the export: time, bytes, drift with and without distillation, time per step, parity.

    python benchmarks/export.py [RUN_DIR]      (RUN_DIR: a trained run, such as that of edge-lstm train solar)

Ratios are medians of interleaved rounds, so that other load on the machine affects both sides equally.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from edge_lstm.backends.litert import load as load_litert
from edge_lstm.backends.protocol import Backend
from edge_lstm.backends.registry import load, runnable
from edge_lstm.backends.selftest import drift, initial_states, relative_error
from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.contract import Contract, Feature, StateTensor
from edge_lstm_export.assemble import Proof, bundle_bytes, export_bundle
from edge_lstm_export.proof.certify import STEPS
from edge_lstm_export.proof.golden_vectors import golden_inputs, with_weights
from edge_lstm_export.quantization.distill import DISTILLED, distilled
from edge_lstm_export.quantization.quantize import quantized
from edge_lstm_export.writers.onnx_writer import write_onnx
from edge_lstm_export.writers.tflite_writer import write_tflite
from edge_lstm_train.model.checkpoint import Checkpoint, load_checkpoint
from edge_lstm_train.model.forecaster import Forecaster, Shape

LONG = 100_000
_WARM = 5  # calls that fill the caches before a measurement


def random_checkpoint(hidden: int, inputs: int = 5, *, changes: bool = False, far: bool = False) -> Checkpoint:
    """A model with random weights. changes: predicts changes of its first feature; far: features far from zero."""
    torch.manual_seed(0)
    shape = Shape("lstm", inputs, hidden, 1, 3)
    model = Forecaster(shape)
    model.scale.copy_(torch.arange(inputs) + 1.0)
    model.mean.copy_(model.scale * (1000 if far else 2))
    if changes:
        model.change_of = torch.zeros(3, dtype=torch.int64)
    states = [StateTensor(name, [size]) for name, size in shape.state_sizes.items()]
    features = [Feature(f"f{index}") for index in range(inputs)]
    contract = Contract("bench", "forecast", features, ["f0"], [1, 6, 24], states)
    inputs = np.sin(np.cumsum(np.random.default_rng(0).normal(0, 0.3, (2000, inputs)), axis=0)).astype(np.float32)
    return Checkpoint(model, contract, inputs, {})


def hand_built(checkpoint: Checkpoint, *, raw: bool = False) -> bytes:
    """The smallest graph of a step, over standardized features: Unsqueeze, LSTM, Squeeze, Gemm.

    raw: for raw features and changes, with Sub and Mul before, Gather and Add after.
    """
    network = checkpoint.model.network()
    hidden, layer = network.hidden, network.layers[0]

    def order(array: np.ndarray) -> np.ndarray:
        i, f, g, o = np.split(array, 4)
        return np.concatenate([i, o, f, g])[None]

    arrays = {
        "axis": np.array([0]),
        "w": order(layer.w_ih),
        "r": order(layer.w_hh),
        "b": np.concatenate([order(layer.b_ih), order(layer.b_hh)], axis=1),
        "head": network.head_weight,
        "bias": network.head_bias,
    }
    carried = ("hidden_state_0", "cell_state_0")  # as ours: names beyond 15 letters cost onnxruntime 2 % of a step
    following = [f"next_{name}" for name in carried]
    adds = raw and network.change_of.size > 0
    nodes = [
        helper.make_node("Unsqueeze", ["standardized" if raw else "features", "axis"], ["x"]),
        helper.make_node("LSTM", ["x", "w", "r", "b", "", *carried], ["", *following], hidden_size=hidden),
        helper.make_node("Squeeze", [following[0], "axis"], ["last"]),
        helper.make_node("Gemm", ["last", "head", "bias"], ["change" if adds else "prediction"], transB=1),
    ]
    if raw:
        arrays |= {"mean": network.mean, "inverse_scale": 1 / network.scale}
        nodes.insert(0, helper.make_node("Sub", ["features", "mean"], ["centred"]))
        nodes.insert(1, helper.make_node("Mul", ["centred", "inverse_scale"], ["standardized"]))
    if adds:
        arrays["change_of"] = network.change_of.astype(np.int64)
        nodes.append(helper.make_node("Gather", ["features", "change_of"], ["level"], axis=1))
        nodes.append(helper.make_node("Add", ["change", "level"], ["prediction"]))

    def port(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    states, nexts = ([port(name, 1, "batch", hidden) for name in names] for names in (carried, following))
    inputs = [port("features", "batch", len(network.mean)), *states]
    outputs = [port("prediction", "batch", 3), *nexts]
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "hand-built", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def torch_exported(checkpoint: Checkpoint, *, free_batch: bool) -> bytes | None:
    """The same step by torch.onnx.export, from raw features to predictions; None without onnxscript.

    free_batch: for any number of streams, as in our graphs, or else for one stream.
    """

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = checkpoint.model

        def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
            model = self.model
            out, (h, c) = model.rnn(((x - model.mean) / model.scale)[:, None], (h, c))
            prediction = model.head(out[:, 0]) * model.output_scale + model.output_offset
            return prediction + x[:, model.change_of] if model.change_of.numel() else prediction, h, c

    batch = 2 if free_batch else 1
    h = torch.zeros(1, batch, checkpoint.model.shape.hidden)
    axis = torch.export.Dim("batch")
    shapes = {"dynamic_shapes": {"x": {0: axis}, "h": {1: axis}, "c": {1: axis}}} if free_batch else {}
    arguments = (torch.zeros(batch, checkpoint.model.shape.inputs), h, h)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            torch.onnx.export(Step().eval(), arguments, path, dynamo=True, external_data=False, verbose=False, **shapes)
        except ImportError:
            return None
        return path.read_bytes()


def stepper(content: bytes) -> Callable[[], None]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    shapes = {port.name: [size if isinstance(size, int) else 1 for size in port.shape] for port in session.get_inputs()}
    feed = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return lambda: session.run(None, feed)


def interleaved(sides: dict[str, Callable[[], None]], rounds: int = 300, calls: int = 40) -> dict[str, list[float]]:
    """Microseconds per call of each side in each round; a round measures all sides, in random order."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(sides), len(sides)):
            call = sides[name]
            for _ in range(_WARM):
                call()
            begun = time.perf_counter()
            for _ in range(calls):
                call()
            times[name].append((time.perf_counter() - begun) / calls * 1e6)
    return times


def main() -> None:
    torch.set_num_threads(1)
    run = load_checkpoint(Path(sys.argv[1])) if len(sys.argv) > 1 else random_checkpoint(48)
    with tempfile.TemporaryDirectory() as folder:
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            export_bundle(run, Path(folder) / "x.elstm", ["float32", "int8"], ["onnx", "tflite"])
            times.append(time.perf_counter() - begun)
        print(f"export float32 + int8 as onnx, tflite, no certificate: {min(times):.2f} s (first {times[0]:.2f} s)")
        proved = Path(folder) / "y.elstm"
        begun = time.perf_counter()
        export_bundle(run, proved, ["float32", "int8"], proof=Proof(certificate_steps=STEPS))
        print(f"export with the certificate, 5 x {STEPS:,} steps: {time.perf_counter() - begun:.1f} s")
    for hidden in (64, 256):
        made = random_checkpoint(hidden)
        bundle = Bundle.from_bytes(bundle_bytes(made, ["float32", "int8", "int4"], ["onnx", "tflite"]), "bench")
        size = {(one.format, one.scheme): len(bundle.content[one.file]) for one in bundle.manifest.variants}
        for (format, scheme), count in size.items():
            print(f"bytes H{hidden} {format} {scheme}: {count:,} = {count / size[format, 'float32']:.3f} of float32")
    inputs = golden_inputs(run)
    expected, _ = run.model.stream(inputs)
    for scheme in DISTILLED:
        networks = quantized(run.model.network(), scheme), distilled(run, scheme)
        drifts = [drift(with_weights(run.model, one).stream(inputs)[0], expected) for one in networks]
        print(f"drift {scheme}: {drifts[0]:.4f}, distilled {drifts[1]:.4f}")
    for hidden in (32, 64, 128):
        print_steps(hidden)
    long_parity(run)


def print_steps(hidden: int) -> None:
    """The time of a step at batch 1: our graphs against hand-built ones and torch's, TFLite against a bare graph."""
    for changes in (False, True):
        made, far = (random_checkpoint(hidden, changes=changes, far=far) for far in (False, True))
        graphs = {
            "ours": write_onnx(made.model.network(), made.contract),
            "ours, int8": write_onnx(quantized(made.model.network(), "int8"), made.contract),
            "ours, features far from zero": write_onnx(far.model.network(), far.contract),
            "hand-built, standardized outside": hand_built(made),
            "hand-built, raw": hand_built(made, raw=True),
            "torch.onnx": torch_exported(made, free_batch=True),
            "torch.onnx, one stream": torch_exported(made, free_batch=False),
        }
        print_ratios(
            f"onnx H{hidden}{', changes' if changes else ''}",
            {name: stepper(content) for name, content in graphs.items() if content is not None},
        )
        bundles = {
            name: Bundle.from_bytes(bundle_bytes(one, ["float32", "int8"], ["tflite"]), "bench")
            for name, one in (("near", made), ("far", far))
        }
        bare = dataclasses.replace(made.model.network(), change_of=np.zeros(0, np.int32))
        variant = bundles["near"].variant("tflite", "float32")
        litert = {
            "float32": tflite_stepper(load(bundles["near"], "litert", "float32"), made.contract),
            "float32, features far from zero": tflite_stepper(load(bundles["far"], "litert", "float32"), far.contract),
            "int8": tflite_stepper(load(bundles["near"], "litert", "int8"), made.contract),
            "bare": tflite_stepper(load_litert(variant, write_tflite(bare, made.contract)), made.contract),
        }
        print_ratios(f"tflite H{hidden}{', changes' if changes else ''}", litert)


def tflite_stepper(backend: Backend, contract: Contract) -> Callable[[], None]:
    features, states = np.zeros((1, len(contract.inputs)), np.float32), initial_states(contract, 1)

    def step() -> None:
        backend.step(features, states)

    return step


def print_ratios(title: str, sides: dict[str, Callable[[], None]]) -> None:
    """The median of each round's ratio to the first side: other load affects all sides of a round equally."""
    took = interleaved(sides)
    first = next(iter(took.values()))
    ratios = [
        f"{name} {statistics.median(times):.2f} us = "
        f"{statistics.median(one / other for one, other in zip(times, first, strict=True)):.2f}"
        for name, times in took.items()
    ]
    print(f"{title}: {'; '.join(ratios)}", flush=True)


def long_parity(run: Checkpoint) -> None:
    """One stream of LONG steps in float32 on every backend, against torch."""
    inputs = np.resize(run.input_sequence, (LONG, run.input_sequence.shape[1])).astype(np.float32)
    expected, _ = run.model.stream(inputs, range(1000, LONG, 1000))
    bundle = Bundle.from_bytes(bundle_bytes(run, ["float32"], ["onnx", "tflite", "numpy"]), "bench")
    for name, scheme in runnable(bundle):
        backend, states = load(bundle, name, scheme), initial_states(bundle.contract, 1)
        found = np.empty_like(expected)
        for step in range(LONG):
            prediction, states = backend.step(inputs[step : step + 1], states)
            found[step] = prediction[0]
        parts = [relative_error(found[at], expected[at]) for at in np.array_split(np.arange(LONG), 10)]
        print(f"parity {name} float32, {LONG:,} steps: first tenth {parts[0]:.1e}, last {parts[-1]:.1e}")


if __name__ == "__main__":
    main()
