"""A foreign model is adopted and streams like its original wrapper, or is refused with the reason."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from edge_lstm.backends.registry import load
from edge_lstm.bundle.archive import Bundle
from edge_lstm.cli.main import main
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.mqtt.embedded_broker import EmbeddedBroker
from edge_lstm.recordings.replay import replay
from edge_lstm.recordings.wav import read_wav
from edge_lstm.streaming.predictor import Predictor
from edge_lstm_export.adoption.direction import refuse_backward_layers
from edge_lstm_export.adoption.golden_vectors import tone_and_noise
from edge_lstm_export.writers.onnx_writer import write_onnx
from edge_lstm_train.model.checkpoint import Checkpoint
from tests.deadline import wait_until


def adopt(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["adopt", *map(str, arguments)])


def small_model(path: Path, *, moves: bool = True, listens: bool = True) -> None:
    """y = x[:, :1] (+ h), next_h = h + x[:, :1] (or h)."""
    port = helper.make_tensor_value_info
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Add", ["mean", "h"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["squashed"]),
        helper.make_node("Identity", ["squashed" if moves else "h"], ["next_h"]),
        helper.make_node("Identity", ["squashed" if listens else "mean"], ["y"]),
    ]
    ports = [port(name, TensorProto.FLOAT, ["batch", size]) for name, size in (("x", 4), ("h", 1))]
    outputs = [port(name, TensorProto.FLOAT, ["batch", 1]) for name in ("y", "next_h")]
    model = helper.make_model(helper.make_graph(nodes, "small", ports, outputs), ir_version=8)
    model.opset_import[0].version = 17
    onnx.save(model, path)


def test_a_model_with_explicit_states_becomes_a_bundle_that_verifies(tmp_path: Path) -> None:
    small_model(tmp_path / "small.onnx")
    result = adopt(tmp_path / "small.onnx", "-o", tmp_path / "small.elstm", "--every", "0.5")
    assert result.exit_code == 0, result.output
    bundle = Bundle.open(tmp_path / "small.elstm")
    assert [(state.name, state.shape) for state in bundle.contract.states] == [("h", [1])]
    assert bundle.contract.outputs == [("y", 0)]
    assert CliRunner().invoke(main, ["verify", str(tmp_path / "small.elstm")]).exit_code == 0
    assert "adopted" not in CliRunner().invoke(main, ["inspect", str(tmp_path / "small.elstm")]).stderr


def test_an_exported_graph_of_our_own_can_be_adopted(
    make_checkpoint: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    checkpoint = make_checkpoint("gru", 2)
    content = write_onnx(checkpoint.model.network(), checkpoint.contract).replace(b"features", b"readings")
    (tmp_path / "ours.onnx").write_bytes(content)
    result = adopt(tmp_path / "ours.onnx", "-o", tmp_path / "ours.elstm")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "changes", "found"),
    [
        ((), {"moves": False}, "expected the state h to change"),
        ((), {"listens": False}, "this model ignores its state"),
        (("--state", "h=nowhere"), {}, "expected tensors named nowhere"),
        (("--state", "h=y", "--constant", "x=1"), {}, "expected one float input besides the states, found none"),
    ],
)
def test_a_model_without_parity_is_refused_and_leaves_no_file(
    tmp_path: Path, arguments: tuple[str, ...], changes: dict[str, Any], found: str
) -> None:
    small_model(tmp_path / "small.onnx", **changes)
    result = adopt(tmp_path / "small.onnx", "-o", tmp_path / "small.elstm", *arguments)
    assert result.exit_code == 1, result.output
    assert found in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


def test_a_model_without_states_is_refused(tmp_path: Path) -> None:
    port = helper.make_tensor_value_info
    ports = [port("x", TensorProto.FLOAT, ["batch", 4])], [port("y", TensorProto.FLOAT, ["batch", 4])]
    graph = helper.make_graph([helper.make_node("Tanh", ["x"], ["y"])], "plain", *ports)
    onnx.save(helper.make_model(graph, ir_version=8), tmp_path / "plain.onnx")
    result = adopt(tmp_path / "plain.onnx")
    assert result.exit_code == 1
    assert "expected states that go in and come out, found none among inputs x and outputs y" in result.stderr


def gru_model(path: Path, *, as_sequence: bool = True, names: tuple[str, str] = ("h_0", "h_n"), **saved: Any) -> None:
    """A GRU as torch exports it: (1, batch, 3) in, (1, batch, 2) out, or the same in rows."""
    random, port = np.random.default_rng(3), helper.make_tensor_value_info
    weights = {"w": (1, 15, 3), "r": (1, 15, 5), "head": (5, 2)}
    numbers = [
        numpy_helper.from_array(random.normal(0, 0.5, shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    numbers.append(numpy_helper.from_array(np.array([0]), "first"))
    start, end = names
    x = "features" if as_sequence else "sequence"
    nodes = [
        helper.make_node("GRU", [x, "w", "r", "", "", start], ["", end], hidden_size=5, linear_before_reset=1),
        helper.make_node("MatMul", [end, "head"], ["y"]),
        helper.make_node("Neg", ["y"], ["z"]),
    ]
    if not as_sequence:
        nodes = [helper.make_node("Unsqueeze", ["features", "first"], ["sequence"]), *nodes]
    ins = [("features", [1, "batch", 3] if as_sequence else ["batch", 3]), (start, [1, "batch", 5])]
    outs = [("y", [1, "batch", 2]), (end, [1, "batch", 5]), ("z", [1, "batch", 2])]
    ports = [[port(name, TensorProto.FLOAT, shape) for name, shape in listed] for listed in (ins, outs)]
    model = helper.make_model(helper.make_graph(nodes, "gru", *ports, numbers), ir_version=10)
    model.opset_import[0].version = 22
    onnx.save(model, path, **saved)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"as_sequence": False},
        {"names": ("hidden_in", "hidden_out")},
        {"save_as_external_data": True, "location": "gru.data", "size_threshold": 0},
    ],
)
def test_a_framework_export_is_adopted_and_streams_alike(tmp_path: Path, form: dict[str, Any]) -> None:
    gru_model(tmp_path / "gru.onnx", **form)
    result = adopt(tmp_path / "gru.onnx", "-o", tmp_path / "gru.elstm")
    assert result.exit_code == 0, result.output
    assert "note: outputs left out: z" in result.stderr
    bundle = Bundle.open(tmp_path / "gru.elstm")
    assert [state.shape for state in bundle.contract.states] == [[5]]
    assert bundle.contract.outputs == [("y_0", 0), ("y_1", 0)]
    frames = np.random.default_rng(4).normal(0, 1, (50, 3)).astype(np.float32)
    backend, variant = load(bundle, "onnx", "float32"), bundle.variant("onnx", "float32")
    assert not variant.row_by_row
    session = onnxruntime.InferenceSession(tmp_path / "gru.onnx", providers=["CPUExecutionProvider"])
    start = session.get_inputs()[1].name
    theirs, ours = np.zeros((1, 2, 5), np.float32), [np.zeros((2, 5), np.float32)]
    for frame in frames:
        rows = np.stack([frame, -frame])
        shaped = rows if len(session.get_inputs()[0].shape) == 2 else rows[None]
        expected, theirs, _ = session.run(None, {"features": shaped, start: theirs})
        found, ours = backend.step(rows, ours)
        assert np.abs(found - expected[0]).max() <= 1e-6
    assert np.ptp(found) > 0.01


def layer_model(path: Path, direction: str, *, carried: bool = True, reversed_input: bool = False) -> None:
    """A recurrent layer over a window of four features, and a state h that moves; `carried`: the layer's state is h."""
    random, port = np.random.default_rng(5), helper.make_tensor_value_info
    ways = 2 if direction == "bidirectional" else 1
    weights = {"w": (ways, 2, 1), "r": (ways, 2, 2)}
    numbers = [
        numpy_helper.from_array(random.normal(0, 0.5, shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    numbers += [numpy_helper.from_array(np.array(listed), f"axis{listed[0]}") for listed in ([0], [1], [2])]
    numbers.append(numpy_helper.from_array(np.array([1, -1]), "all"))
    nodes = [
        helper.make_node("Transpose", ["x"], ["columns"], perm=[1, 0]),
        helper.make_node("Unsqueeze", ["columns", "axis2"], ["steps"]),
        helper.make_node("ReduceSum", ["x", "axis1"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["zeros"]),
        helper.make_node("Cast", ["zeros"], ["none"], to=TensorProto.INT32),
        helper.make_node("Add", ["none", "four"], ["lengths"]),
        helper.make_node("ReverseSequence", ["steps", "long_lengths"], ["turned"], time_axis=0, batch_axis=1),
        helper.make_node("Cast", ["lengths"], ["long_lengths"], to=TensorProto.INT64),
        helper.make_node(
            "RNN",
            ["turned" if reversed_input else "steps", "w", "r", "", "", *(["h"] if carried else [])],
            ["", "last"],
            name="layer",
            hidden_size=2,
            direction=direction,
        ),
        helper.make_node("ReduceMean", ["last"], ["mean"], axes=[0, 2], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "axis1"], ["seen"]),
    ]
    nodes[6], nodes[7] = nodes[7], nodes[6]
    numbers.append(numpy_helper.from_array(np.array(0.0, np.float32), "zero"))
    numbers.append(numpy_helper.from_array(np.array(4, np.int32), "four"))
    nodes += (
        [helper.make_node("Identity", ["last"], ["next_h"]), helper.make_node("Identity", ["seen"], ["y"])]
        if carried
        else [
            helper.make_node("Add", ["last", "h"], ["next_h"]),
            helper.make_node("ReduceMean", ["next_h"], ["mean_h"], axes=[0, 2], keepdims=0),
            helper.make_node("Unsqueeze", ["mean_h", "axis1"], ["y"]),
        ]
    )
    state = [ways, "batch", 2]
    ins = [port("x", TensorProto.FLOAT, ["batch", 4]), port("h", TensorProto.FLOAT, state)]
    outs = [port("y", TensorProto.FLOAT, ["batch", 1]), port("next_h", TensorProto.FLOAT, state)]
    model = helper.make_model(helper.make_graph(nodes, "layer", ins, outs, numbers), ir_version=8)
    model.opset_import[0].version = 17
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("direction", "form", "found"),
    [
        ("bidirectional", {}, 'the RNN node layer with direction = "bidirectional"'),
        ("reverse", {}, 'the RNN node layer with direction = "reverse"'),
        ("forward", {"reversed_input": True}, "the RNN node layer with reversed input"),
    ],
)
def test_a_layer_that_carries_a_state_backwards_is_refused(
    tmp_path: Path, direction: str, form: dict[str, Any], found: str
) -> None:
    layer_model(tmp_path / "layer.onnx", direction, **form)
    result = adopt(tmp_path / "layer.onnx", "-o", tmp_path / "layer.elstm")
    assert result.exit_code == 1, result.output
    assert f"expected recurrent layers that run forwards, found {found}" in result.stderr
    assert "a backward layer needs readings of the future" in result.stderr
    assert not (tmp_path / "layer.elstm").exists()


@pytest.mark.parametrize(("direction", "form"), [("forward", {}), ("bidirectional", {"carried": False})])
def test_a_backward_layer_within_one_step_is_adopted(tmp_path: Path, direction: str, form: dict[str, Any]) -> None:
    layer_model(tmp_path / "layer.onnx", direction, **form)
    result = adopt(tmp_path / "layer.onnx", "-o", tmp_path / "layer.elstm")
    assert result.exit_code == 0, result.output


def test_a_backward_layer_inside_a_loop_is_refused(tmp_path: Path) -> None:
    layer = helper.make_node("LSTM", ["a", "b", "c"], ["d"], hidden_size=2, direction="reverse")
    body = helper.make_graph([layer], "body", [], [helper.make_tensor_value_info("d", TensorProto.FLOAT, None)])
    branch = helper.make_node("If", ["yes"], ["e"], then_branch=body, else_branch=body)
    model = helper.make_model(helper.make_graph([branch], "outer", [], []))
    with pytest.raises(EdgeLstmError, match='the LSTM node with direction = "reverse"'):
        refuse_backward_layers(tmp_path, model, [])


def branching_model(path: Path, condition: str) -> None:
    """y = next_h = tanh(mean(x) + h) where `condition` holds, else zero. That branch has a branch of its own."""
    port = helper.make_tensor_value_info

    def branch(name: str, *nodes: Any) -> Any:
        return helper.make_graph(list(nodes), name, [], [port(nodes[-1].output[0], TensorProto.FLOAT, None)])

    inner = branch("inner", helper.make_node("Add", ["mean", "h"], ["sum"]))
    zeros = branch("zeros", helper.make_node("Sub", ["h", "h"], ["sum"]))
    chosen = branch(
        "chosen",
        helper.make_node("If", ["yes"], ["inner_sum"], then_branch=inner, else_branch=zeros),
        helper.make_node("Tanh", ["inner_sum"], ["sum"]),
    )
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Constant", [], ["rate"], value=numpy_helper.from_array(np.array(16_000), "rate_value")),
        helper.make_node("Equal", ["sr", "rate"], ["fast"]),
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Less", ["largest", "mean_of_all"], ["quiet"]),
        helper.make_node("If", [condition], ["next_h"], then_branch=chosen, else_branch=zeros),
        helper.make_node("Identity", ["next_h"], ["y"]),
    ]
    numbers = [numpy_helper.from_array(np.array(True), "yes"), numpy_helper.from_array(np.float32(9), "mean_of_all")]
    ports = [port("x", TensorProto.FLOAT, ["batch", 4]), port("h", TensorProto.FLOAT, ["batch", 1])]
    ports.append(port("sr", TensorProto.INT64, []))
    outputs = [port(name, TensorProto.FLOAT, ["batch", 1]) for name in ("y", "next_h")]
    model = helper.make_model(helper.make_graph(nodes, "branching", ports, outputs, numbers), ir_version=8)
    model.opset_import[0].version = 17
    onnx.save(model, path)


@pytest.mark.parametrize(("condition", "kept"), [("fast", []), ("quiet", ["If"])])
def test_a_constant_branch_is_folded_and_another_one_kept(tmp_path: Path, condition: str, kept: list[str]) -> None:
    branching_model(tmp_path / "branching.onnx", condition)
    told = ["--constant", "sr=16000"]
    result = adopt(tmp_path / "branching.onnx", "-o", tmp_path / "branching.elstm", *told)
    assert result.exit_code == 0, result.output
    bundle = Bundle.open(tmp_path / "branching.elstm")
    model = onnx.load_from_string(bundle.content["model.float32.onnx"])
    assert [node.op_type for node in model.graph.node if node.op_type == "If"] == kept
    backend = load(bundle, "onnx", "float32")
    frames, states = np.random.default_rng(6).normal(0, 1, (20, 4)).astype(np.float32), [np.zeros((1, 1), np.float32)]
    found = []
    for frame in frames:
        prediction, states = backend.step(frame[None], states)
        found.append(prediction[0, 0])
    assert np.abs(np.array(found) - carried(frames)).max() <= 1e-6


def test_functions_of_a_model_are_written_out(tmp_path: Path) -> None:
    small_model(tmp_path / "small.onnx")
    model = onnx.load(tmp_path / "small.onnx")
    opsets = [helper.make_opsetid("", 17)]
    squash = helper.make_function("own", "Squash", ["a"], ["b"], [helper.make_node("Tanh", ["a"], ["b"])], opsets)
    model.functions.append(squash)
    model.opset_import.append(helper.make_opsetid("own", 1))
    node = next(one for one in model.graph.node if one.op_type == "Tanh")
    node.op_type, node.domain = "Squash", "own"
    onnx.save(model, tmp_path / "small.onnx")
    result = adopt(tmp_path / "small.onnx", "-o", tmp_path / "small.elstm")
    assert result.exit_code == 0, result.output
    written = onnx.load_from_string(Bundle.open(tmp_path / "small.elstm").content["model.float32.onnx"])
    assert not written.functions
    assert {one.op_type for one in written.graph.node} == {"Identity", "ReduceMean", "Add", "Tanh"}


def test_a_model_with_a_loop_is_refused_by_name(tmp_path: Path) -> None:
    small_model(tmp_path / "small.onnx")
    model = onnx.load(tmp_path / "small.onnx")
    port = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["was"], ["is"])],
        "body",
        [port("n", TensorProto.INT64, []), port("go", TensorProto.BOOL, []), port("was", TensorProto.FLOAT, None)],
        [port("on", TensorProto.BOOL, []), port("is", TensorProto.FLOAT, None)],
    )
    node = next(one for one in model.graph.node if one.op_type == "Tanh")
    node.CopyFrom(helper.make_node("Loop", ["rounds", "", "sum"], ["squashed"], name="again", body=body))
    model.graph.initializer.append(numpy_helper.from_array(np.array(2), "rounds"))
    onnx.save(model, tmp_path / "small.onnx")
    result = adopt(tmp_path / "small.onnx", "-o", tmp_path / "small.elstm")
    assert result.exit_code == 1
    assert "found the operator Loop (node again)" in result.stderr
    assert not (tmp_path / "small.elstm").exists()


@pytest.mark.parametrize(("kind", "named"), [(TensorProto.DOUBLE, "x, h, y, next_h"), (TensorProto.FLOAT16, "x, h")])
def test_a_model_that_is_not_float32_is_refused(tmp_path: Path, kind: int, named: str) -> None:
    small_model(tmp_path / "small.onnx")
    model = onnx.load(tmp_path / "small.onnx")
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.elem_type = kind
    onnx.save(model, tmp_path / "small.onnx")
    result = adopt(tmp_path / "small.onnx", "-o", tmp_path / "small.elstm")
    assert result.exit_code == 1, result.output
    assert f"expected inputs, states and outputs of float (32 bit), found another type in {named}" in result.stderr
    assert not (tmp_path / "small.elstm").exists()


def test_a_diverging_model_is_refused_on_one_line(tmp_path: Path) -> None:
    small_model(tmp_path / "small.onnx")
    model = onnx.load(tmp_path / "small.onnx")
    grown = next(node for node in model.graph.node if node.op_type == "Tanh")
    grown.op_type = "Exp"
    onnx.save(model, tmp_path / "small.onnx")
    result = adopt(tmp_path / "small.onnx", "-o", tmp_path / "small.elstm")
    assert result.exit_code == 1, result.output
    assert "expected finite outputs and states over 300 steps" in result.stderr
    assert result.stderr.count("\n") == 2


@pytest.mark.skipif(importlib.util.find_spec("silero_vad") is None, reason="the package silero-vad is not installed")
def test_an_adopted_voice_detector_matches_its_original_wrapper(tmp_path: Path) -> None:
    package = importlib.util.find_spec("silero_vad")
    assert package is not None
    assert package.origin is not None
    model = Path(package.origin).parent / "data" / "silero_vad.onnx"
    told = ["--constant", "sr=16000", "--width", "512", "--context", "64", "--every", ".032"]
    result = adopt(model, "-o", tmp_path / "voice.elstm", *told)
    assert result.exit_code == 0, result.output
    signal = (tone_and_noise(512 * 200) * 32767).astype("<i2")
    with wave.open(str(tmp_path / "voice.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(signal.tobytes())
    bundle = Bundle.open(tmp_path / "voice.elstm")
    read = read_wav(tmp_path / "voice.wav", bundle.contract.inputs)
    found = [one.values["output"][0] for one in replay(Predictor.of(bundle), read.readings())]
    expected = _wrapper(model, (signal / 32768).astype(np.float32))
    assert len(found) == 200
    assert np.ptp(expected) > 1e-3
    assert np.abs(np.array(found) - expected).max() <= 1e-4


def _wrapper(model: Path, signal: Any) -> Any:
    """The package's own streaming wrapper, frame after frame."""
    import torch
    from silero_vad.utils_vad import OnnxWrapper

    wrapper = OnnxWrapper(str(model), force_onnx_cpu=True)
    return np.array([wrapper(torch.from_numpy(frame.copy()), 16_000).item() for frame in signal.reshape(-1, 512)])


@pytest.fixture
def adopted(tmp_path: Path) -> Path:
    """The small model as a bundle; its steps take four values and come every half second."""
    small_model(tmp_path / "small.onnx")
    result = adopt(tmp_path / "small.onnx", "-o", tmp_path / "small.elstm", "--every", "0.5")
    assert result.exit_code == 0, result.output
    return tmp_path / "small.elstm"


def carried(frames: Any) -> Any:
    """What the small model says to frames (steps, 4), in numpy."""
    h, said = np.float32(0), []
    for frame in frames:
        h = np.tanh(frame.mean(dtype=np.float32) + h)
        said.append(h)
    return np.array(said)


def test_an_adopted_bundle_is_verified_and_measured_like_any_other(adopted: Path) -> None:
    verified = CliRunner().invoke(main, ["verify", str(adopted), "--json"])
    (verdict,) = json.loads(verified.stdout)
    assert (verdict["backend"], verdict["scheme"], verdict["passed"]) == ("onnx", "float32", True)
    benched = CliRunner().invoke(main, ["bench", str(adopted), "--json", "--seconds", "0.02"])
    assert benched.exit_code == 0, benched.output
    (variant,) = json.loads(benched.stdout)["variants"]
    assert (variant["backend"], variant["scheme"], variant["runs"]) == ("onnx", "float32", True)
    assert [pace["batch"] for pace in variant["measured"]["paces"]] == [1, 8, 64, 256]


def test_an_adopted_bundle_processes_a_wav_file_frame_by_frame(adopted: Path, tmp_path: Path) -> None:
    samples = (tone_and_noise(4 * 50 + 3) * 32767).astype("<i2")
    for rate in (16_000, 8):
        with wave.open(str(tmp_path / "hall.wav"), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(rate)
            sound.writeframes(samples.tobytes())
        result = CliRunner().invoke(main, ["replay", str(adopted), str(tmp_path / "hall.wav"), "--json"])
        if rate != 8:
            assert result.exit_code == 1
            assert "expected 8 samples a second (frames of 4 every 0.5 s), found 16,000" in result.stderr
    assert result.exit_code == 0, result.output
    published = [json.loads(line) for line in result.stdout.splitlines()]
    frames = (samples[:200].astype(np.float32) / 32768).reshape(50, 4)
    assert [one["stream"] for one in published] == ["hall"] * 50
    found = np.array([one["predictions"]["y"]["0"] for one in published])
    assert np.abs(found - carried(frames)).max() <= 1e-5
    assert np.ptp(found) > 0.05


def test_an_adopted_bundle_runs_as_a_service_and_carries_its_state(adopted: Path, tmp_path: Path) -> None:
    frames = np.random.default_rng(2).normal(0, 1, (30, 4)).astype(np.float32)
    with EmbeddedBroker() as broker:
        config = tmp_path / "service.toml"
        config.write_text(
            f'bundle = "{adopted.name}"\n[mqtt]\nurl = "{broker.address}"\n[input]\ntopic = "sound/{{stream}}"\n'
            '[output]\ntopic = "heard/{stream}"\n'
        )
        process = subprocess.Popen([sys.executable, "-m", "edge_lstm", "run", str(config)])
        client = MqttConnection(broker.address, "subscriber", ["heard/+", "edge-lstm/edge-lstm/status"])
        client.open()
        heard: list[Any] = []
        said: list[bytes] = []

        def listen() -> None:
            messages = client.poll(0.05)
            client.acknowledge(messages)
            said.extend(message.payload for message in messages if message.topic.endswith("/status"))
            heard.extend(json.loads(message.payload) for message in messages if message.topic == "heard/hall")

        def online() -> bool:
            assert process.poll() is None
            listen()
            return b"online" in said

        def answered() -> bool:
            listen()
            return len(heard) >= len(frames)

        try:
            wait_until(online, "the service is online")
            for step, frame in enumerate(frames):
                values = {f"sample_{index:03d}": float(value) for index, value in enumerate(frame)}
                client.publish("sound/hall", json.dumps({"time": 1_700_000_000 + 0.5 * step, **values}))
            wait_until(answered, "every reading is answered")
        finally:
            process.terminate()
            assert process.wait(60) == 0
            client.close()
    assert [one["step"] for one in heard] == list(range(1, 31))
    found = np.array([one["predictions"]["y"]["0"] for one in heard])
    assert np.abs(found - carried(frames)).max() <= 1e-5
