"""Every backend steps a network the same way, isolates streams, and refuses a file that it cannot run."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.backends import registry as backends
from edge_lstm.backends import tflite
from edge_lstm.backends.kinds import NAMES
from edge_lstm.backends.protocol import ONE_THREAD, Backend, ExecutionOptions
from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.backends.registry import format_of, why_unavailable
from edge_lstm.backends.selftest import initial_states, relative_error, replay_tape, smallest_isolated_batch
from edge_lstm.bundle.archive import Bundle, TensorPair, Variant
from edge_lstm.bundle.network import CARRIED, Cell, Network, to_npz
from edge_lstm.bundle.schemes import Scheme
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm_export.quantization.quantize import quantized
from edge_lstm_export.writers.tensor_names import FEATURES, PREDICTION, state_pairs
from tests.networks import contract_of, random_network

MakeBundle = Callable[..., Bundle]

INSTALLED = [name for name in NAMES if why_unavailable(name) is None]
TFLITE = [name for name in INSTALLED if format_of(name) == "tflite"]
MODULES = {
    "onnx": "edge_lstm.backends.onnx",
    "litert": "edge_lstm.backends.litert",
    "tflite-runtime": "edge_lstm.backends.tflite_runtime",
    "numpy": "edge_lstm.backends.reference",
}
HIDDEN, INPUTS, OUTPUTS = 24, 3, 2


def network_of(cell: Cell, layers: int, scheme: Scheme = "float32") -> Network:
    return quantized(random_network(cell, hidden=HIDDEN, layers=layers), scheme)


def content_of(name: str, network: Network) -> bytes:
    """The file that the backend loads; skips where the writer's packages are not installed, as on a device."""
    format = format_of(name)
    if format == "numpy":
        return to_npz(network)
    writer = pytest.importorskip(f"edge_lstm_export.writers.{format}_writer")
    content: bytes = getattr(writer, f"write_{format}")(network, contract_of(network))
    return content


def tape_of(network: Network, steps: int = 200) -> Any:
    rng = np.random.default_rng(8)
    return (rng.normal(0, 1, (steps, INPUTS)) * network.scale + network.mean).astype(np.float32)


def variant_of(name: str, network: Network) -> Variant:
    return Variant(format_of(name), "float32", "model.file", FEATURES, PREDICTION, state_pairs(network), 1e-5, 1e-4)


def load(
    name: str,
    network: Network,
    content: bytes | None = None,
    variant: Variant | None = None,
    execution: ExecutionOptions = ONE_THREAD,
) -> Any:
    if content is None:
        content = content_of(name, network)
    return importlib.import_module(MODULES[name]).load(variant or variant_of(name, network), content, execution)


def bits(arrays: Sequence[Any]) -> list[bytes]:
    return [np.ascontiguousarray(array).tobytes() for array in arrays]


@pytest.mark.parametrize("scheme", ["float32", "int8"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("name", INSTALLED)
def test_200_steps_match_the_textbook_equations_within_1e_6(name: str, cell: Cell, layers: int, scheme: str) -> None:
    network = network_of(cell, layers, scheme)
    contract, marks = contract_of(network), np.array([1, 50, 100, 200])
    expected, expected_states = replay_tape(ReferenceBackend(network), contract, tape_of(network), marks)
    found, states = replay_tape(load(name, network), contract, tape_of(network), marks)
    assert relative_error(found, expected) <= 5e-6
    assert len(states) == layers * len(CARRIED[cell])
    for state, wanted in zip(states, expected_states, strict=True):
        assert np.abs(state - wanted).max() <= 2e-6


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("name", INSTALLED)
def test_a_stream_gets_the_same_bits_in_any_batch_size(name: str, cell: Cell) -> None:
    network = network_of(cell, 2)
    backend, contract, tape = load(name, network), contract_of(network), tape_of(network, 40)
    smallest = smallest_isolated_batch(backend, contract, tape)
    assert smallest is not None
    assert smallest <= 2
    lone, _ = replay_tape(backend, contract, tape, np.array([40]), smallest)
    for batch in (smallest, 3, 5, 31, 64, 100):
        states = initial_states(contract, batch)
        for step, row in enumerate(tape):
            prediction, states = backend.step(np.repeat(row[None], batch, axis=0), states)
            assert prediction.shape == (batch, OUTPUTS)
            assert (prediction.view(np.uint32) == lone[step].view(np.uint32)).all(), (batch, step)


@pytest.mark.parametrize("name", INSTALLED)
def test_later_steps_do_not_change_returned_arrays(name: str) -> None:
    network = network_of("lstm", 1)
    backend, tape = load(name, network), tape_of(network, 3)
    features = [np.repeat(row[None], 2, axis=0) for row in tape]
    start = initial_states(contract_of(network), 2)
    prediction, following = backend.step(features[0], start)
    kept = bits([prediction, *following])
    backend.step(features[1], following)
    assert bits([prediction, *following]) == kept
    assert not any(state.any() for state in start)
    for array in (prediction, *following):
        array.fill(np.nan)
    again, states = backend.step(features[0], start)
    assert bits([again, *states]) == kept


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("content", [b"", b"not a model", bytes(4096), b"\x1c\x00\x00\x00TFL3" + bytes(64)])
def test_an_unreadable_model_is_refused_with_its_file_name(name: str, content: bytes) -> None:
    with pytest.raises(EdgeLstmError, match=r"model\.file"):
        load(name, network_of("lstm", 1), content)


@pytest.mark.parametrize("name", [name for name in INSTALLED if name != "numpy"])
def test_a_model_without_a_tensor_of_the_manifest_is_refused(name: str) -> None:
    network = network_of("gru", 1)
    pairs = [TensorPair("hidden_state_0", "h", "next_hidden_state_0")]
    variant = Variant(format_of(name), "float32", "model.file", FEATURES, PREDICTION, pairs, 1e-5, 1e-4)
    with pytest.raises(EdgeLstmError, match=r"model\.file: expected .*\bh\b.*, found: .*hidden_state_0"):
        load(name, network, variant=variant)


@pytest.mark.parametrize("name", TFLITE)
def test_tensors_are_found_by_name_in_any_order(name: str) -> None:
    network = network_of("lstm", 1)
    pairs = [TensorPair("swapped", pair.input, pair.output) for pair in reversed(state_pairs(network))]
    variant = Variant("tflite", "float32", "model.file", FEATURES, PREDICTION, pairs, 1e-5, 1e-4)
    row, (h, c) = tape_of(network, 1), np.random.default_rng(0).normal(0, 0.5, (2, 1, HIDDEN)).astype(np.float32)
    prediction, (next_h, next_c) = load(name, network).step(row, [h, c])
    same, (second, first) = load(name, network, variant=variant).step(row, [c, h])
    assert bits([prediction, next_h, next_c]) == bits([same, first, second])


@pytest.mark.parametrize("name", TFLITE)
def test_the_fast_and_the_public_tensor_access_give_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of("lstm", 2)
    contract, tape, marks = contract_of(network), tape_of(network, 50), np.array([50])
    fast = load(name, network)
    assert isinstance(fast._by_batch_size[1], tflite._MemoryViews)

    def absent(*_: Any) -> None:
        raise AttributeError("_interpreter")

    monkeypatch.setattr(tflite._MemoryViews, "__init__", absent)
    public = load(name, network)
    assert isinstance(public._by_batch_size[1], tflite._TensorCopies)
    for batch in (1, 3):
        found, expected = (replay_tape(backend, contract, tape, marks, batch) for backend in (public, fast))
        assert bits([found[0], *found[1]]) == bits([expected[0], *expected[1]])


@pytest.mark.parametrize("name", TFLITE)
def test_fast_tensor_access_that_does_not_run_the_graph_is_not_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = tflite._MemoryViews.__init__

    def idle(self: Any, *arguments: Any) -> None:
        honest(self, *arguments)
        self._invoke = lambda: None

    monkeypatch.setattr(tflite._MemoryViews, "__init__", idle)
    assert isinstance(load(name, network_of("gru", 1))._by_batch_size[1], tflite._TensorCopies)


@pytest.mark.parametrize("name", TFLITE)
def test_loading_writes_nothing_on_stderr(name: str, tmp_path: Path) -> None:
    network = network_of("lstm", 1)
    (tmp_path / "model").write_bytes(content_of(name, network))
    program = (
        f"import pathlib, {MODULES[name]} as backend\n"
        "from edge_lstm.bundle.archive import Bundle, TensorPair, Variant\n"
        f"pairs = [TensorPair(name, name, 'next_' + name) for name in {network.state_names}]\n"
        "variant = Variant('tflite', 'float32', 'model', 'features', 'prediction', pairs, 0.0, 0.0)\n"
        f"backend.load(variant, pathlib.Path({str(tmp_path / 'model')!r}).read_bytes())\n"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr == ""


def test_only_the_startup_banner_is_hidden_from_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with tflite._without_delegate_message():
        subprocess.run(
            ["sh", "-c", f"echo before >&2; echo '{tflite._DELEGATE_MESSAGE.decode()}' >&2; echo after >&2"], check=True
        )
    assert capfd.readouterr().err == "before\nafter\n"


def test_a_model_with_other_shapes_than_the_manifest_is_refused(make_bundle: MakeBundle, tmp_path: Path) -> None:
    wide, narrow = random_network(hidden=8), random_network(hidden=4)
    bundle = make_bundle(tmp_path / "tank.elstm", wide)
    content = {**bundle.content, "weights.float32.npz": to_npz(narrow)}
    damaged = Bundle(bundle.manifest, content, bundle.id, "tank.elstm")
    with pytest.raises(EdgeLstmError, match=r"weights\.float32\.npz: expected a step of the contract's shapes"):
        backends.load(damaged, "numpy", "float32")


def test_the_onnx_batch_axis_can_be_any_axis() -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import helper

    def port(name: str, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape))

    nodes = [
        helper.make_node("Add", ["history", "features"], ["next_history"]),
        helper.make_node("Identity", ["features"], ["prediction"]),
    ]
    ports = [port("features", "batch", 1), port("history", 2, "batch", 1)]
    given = [port("prediction", "batch", 1), port("next_history", 2, "batch", 1)]
    model = helper.make_model(
        helper.make_graph(nodes, "foreign", ports, given), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    pairs = [TensorPair("history", "history", "next_history")]
    variant = Variant("onnx", "float32", "model.file", FEATURES, PREDICTION, pairs, 1e-5, 1e-4)
    backend: Backend = load("onnx", network_of("gru", 1), model.SerializeToString(), variant)
    features = np.array([[10], [20], [30]], np.float32)
    history = np.arange(6, dtype=np.float32).reshape(3, 2, 1)  # (batch, 2, 1), as the contract has it
    _, (following,) = backend.step(features, [history])
    assert following.tolist() == [[[10], [11]], [[22], [23]], [[34], [35]]]
