"""Prints what export costs and gives: time, bytes, drift with and without distillation, speed a step, parity.

    python benchmarks/export.py [RUN_DIR]      (RUN_DIR: a trained run, as of edge-lstm train solar)

Ratios come from interleaved medians, so that a busy machine disturbs both sides alike.
"""

from __future__ import annotations

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

from edge_lstm.backends import load, runnable
from edge_lstm.bundle import Bundle
from edge_lstm.contract import Contract, Feature, StateTensor
from edge_lstm.selftest import drift, initial_states, relative_error
from edge_lstm_export.assemble import Proof, bundle_bytes, export_bundle
from edge_lstm_export.certify import STEPS
from edge_lstm_export.distill import DISTILLED, distilled
from edge_lstm_export.golden_tape import golden_inputs, with_weights
from edge_lstm_export.onnx_writer import write_onnx
from edge_lstm_export.quantize import quantized
from edge_lstm_train.checkpoint import Checkpoint, load_checkpoint
from edge_lstm_train.model import Forecaster, Shape

LONG = 100_000


def random_checkpoint(hidden: int, inputs: int = 5) -> Checkpoint:
    torch.manual_seed(0)
    shape = Shape("lstm", inputs, hidden, 1, 3)
    model = Forecaster(shape)
    states = [StateTensor(name, [size]) for name, size in shape.state_sizes.items()]
    features = [Feature(f"f{index}") for index in range(inputs)]
    contract = Contract("bench", "forecast", features, ["f0"], [1, 6, 24], states)
    tape = np.sin(np.cumsum(np.random.default_rng(0).normal(0, 0.3, (2000, inputs)), axis=0)).astype(np.float32)
    return Checkpoint(model, contract, tape, {})


def hand_built(checkpoint: Checkpoint) -> bytes:
    """The least graph that says the same: Unsqueeze, LSTM, Squeeze, Gemm; features come standardized."""
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
    nodes = [
        helper.make_node("Unsqueeze", ["features", "axis"], ["x"]),
        helper.make_node("LSTM", ["x", "w", "r", "b", "", "h", "c"], ["", "next_h", "next_c"], hidden_size=hidden),
        helper.make_node("Squeeze", ["next_h", "axis"], ["last"]),
        helper.make_node("Gemm", ["last", "head", "bias"], ["prediction"], transB=1),
    ]

    def port(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    states = [port(name, 1, "batch", hidden) for name in ("h", "c")]
    following = [port(name, 1, "batch", hidden) for name in ("next_h", "next_c")]
    inputs = [port("features", "batch", len(network.mean)), *states]
    outputs = [port("prediction", "batch", 3), *following]
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "hand-built", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def torch_exported(checkpoint: Checkpoint) -> bytes | None:
    """What torch.onnx.export makes of nn.LSTM and a dense layer; None where onnxscript is not installed."""
    model = checkpoint.model

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = model.rnn, model.head

        def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
            out, (h, c) = self.rnn(x[:, None], (h, c))
            return self.head(out[:, 0]), h, c

    h = torch.zeros(1, 1, model.shape.hidden)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            torch.onnx.export(
                Step().eval(),
                (torch.zeros(1, model.shape.inputs), h, h),
                path,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except ImportError:
            return None
        return path.read_bytes()


def stepper(content: bytes) -> Callable[[], None]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    shapes = {port.name: [size if isinstance(size, int) else 1 for size in port.shape] for port in session.get_inputs()}
    feed = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return lambda: session.run(None, feed)


def interleaved(sides: dict[str, Callable[[], None]], rounds: int = 60, calls: int = 150) -> dict[str, float]:
    """Median microseconds a call, each side in turn."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            begun = time.perf_counter()
            for _ in range(calls):
                call()
            times[name].append((time.perf_counter() - begun) / calls * 1e6)
    return {name: statistics.median(each) for name, each in times.items()}


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
    tape = golden_inputs(run)
    expected, _ = run.model.stream(tape)
    for scheme in DISTILLED:
        networks = quantized(run.model.network(), scheme), distilled(run, scheme)
        drifts = [drift(with_weights(run.model, one).stream(tape)[0], expected) for one in networks]
        print(f"drift {scheme}: {drifts[0]:.4f}, distilled {drifts[1]:.4f}")
    for hidden in (32, 64, 128):
        made = random_checkpoint(hidden)
        sides = {"ours": write_onnx(made.model.network(), made.contract), "hand-built": hand_built(made)}
        if (theirs := torch_exported(made)) is not None:
            sides["torch.onnx"] = theirs
        took = interleaved({name: stepper(content) for name, content in sides.items()})
        ratios = ", ".join(f"{name} {us:.2f} us = {us / took['ours']:.2f} x ours" for name, us in took.items())
        print(f"a step at batch 1, H{hidden}: {ratios}")
    long_parity(run)


def long_parity(run: Checkpoint) -> None:
    """One stream of LONG steps in float32 on every backend, against torch."""
    tape = np.resize(run.tape, (LONG, run.tape.shape[1])).astype(np.float32)
    expected, _ = run.model.stream(tape, range(1000, LONG, 1000))
    bundle = Bundle.from_bytes(bundle_bytes(run, ["float32"], ["onnx", "tflite", "numpy"]), "bench")
    for name, scheme in runnable(bundle):
        backend, states = load(bundle, name, scheme), initial_states(bundle.contract, 1)
        found = np.empty_like(expected)
        for step in range(LONG):
            prediction, states = backend.step(tape[step : step + 1], states)
            found[step] = prediction[0]
        parts = [relative_error(found[at], expected[at]) for at in np.array_split(np.arange(LONG), 10)]
        print(f"parity {name} float32, {LONG:,} steps: first tenth {parts[0]:.1e}, last {parts[-1]:.1e}")


if __name__ == "__main__":
    main()
