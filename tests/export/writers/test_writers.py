"""The model files: their content, and that the tools of others read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import tflite
from onnx import shape_inference

from edge_lstm.bundle.contract import Feature
from edge_lstm.bundle.network import Cell
from edge_lstm_export.quantization.quantize import quantized
from edge_lstm_export.writers.input_scaling import input_scaling_of
from edge_lstm_export.writers.onnx_writer import write_onnx
from edge_lstm_export.writers.tflite_writer import write_tflite
from edge_lstm_train.model.checkpoint import Checkpoint

FEATURES = [Feature("level", "m", 3.0, 2.0), Feature("temperature", "°C", 20.0, 5.0)]
MakeCheckpoint = Callable[..., Checkpoint]


def onnx_of(checkpoint: Checkpoint, scheme: Any = "float32") -> onnx.ModelProto:
    network = quantized(checkpoint.model.network(), scheme)
    return onnx.load_model_from_string(write_onnx(network, checkpoint.contract))


def tflite_of(checkpoint: Checkpoint, scheme: Any = "float32") -> Any:
    network = quantized(checkpoint.model.network(), scheme)
    return tflite.Model.GetRootAsModel(write_tflite(network, checkpoint.contract), 0)


def operators(model: Any) -> list[tuple[str, int]]:
    """(name, version) of each operator, in the order of running."""
    names = {code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)}
    graph = model.Subgraphs(0)
    codes = [model.OperatorCodes(graph.Operators(index).OpcodeIndex()) for index in range(graph.OperatorsLength())]
    return [(names[code.BuiltinCode()], code.Version()) for code in codes]


@pytest.mark.parametrize("scheme", ["float32", "int8"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_an_onnx_file_passes_the_checker_and_strict_shape_inference(
    make_checkpoint: MakeCheckpoint, cell: Cell, layers: int, scheme: str
) -> None:
    model = onnx_of(make_checkpoint(cell, layers), scheme)
    onnx.checker.check_model(model, full_check=True)
    inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    shapes = {
        port.name: [size.dim_param or size.dim_value for size in port.type.tensor_type.shape.dim]
        for port in inferred.graph.output
    }
    state_names = list(shapes)[1:]
    assert shapes["prediction"] == ["batch", 2]
    assert len(state_names) == layers * (2 if cell == "lstm" else 1)
    assert all(shapes[name] == [1, "batch", 16] for name in state_names)
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)


@pytest.mark.parametrize(("scheme", "matrices"), [("int8", 3), ("float16", 4)])
def test_an_onnx_step_has_the_fewest_nodes_even_with_int8_weights(
    make_checkpoint: MakeCheckpoint, scheme: str, matrices: int
) -> None:
    levels = make_checkpoint(features=FEATURES, changes=False)
    assert [node.op_type for node in onnx_of(levels).graph.node] == ["Unsqueeze", "LSTM", "Squeeze", "Gemm"]
    changes = [node.op_type for node in onnx_of(make_checkpoint(features=FEATURES)).graph.node]
    assert changes == ["Unsqueeze", "LSTM", "Squeeze", "Gemm", "Gemm"]
    nodes = onnx_of(make_checkpoint(features=FEATURES), scheme).graph.node
    computed: set[str] = set()  # from constants, once, when the graph is loaded
    for node in nodes:
        if node.op_type in ("DequantizeLinear", "Cast", "Mul"):
            assert not {"features", "sequence", "hidden"} & set(node.input)
            computed |= set(node.output)
    assert len(computed) == matrices
    assert [node.op_type for node in nodes if not computed & set(node.output)] == changes


@pytest.mark.parametrize(("mean", "operations"), [(-8.0, []), (8.1, ["Sub"])])
def test_a_mean_is_folded_into_the_bias_only_without_loss_of_digits(
    make_checkpoint: MakeCheckpoint, mean: float, operations: list[str]
) -> None:
    checkpoint = make_checkpoint(features=[FEATURES[0], Feature("odd", "", 5 * mean, 5.0)])
    assert [node.op_type for node in onnx_of(checkpoint).graph.node if node.op_type in ("Sub", "Mul")] == operations
    offset = input_scaling_of(checkpoint.model.network(), columns_at_load=True).offset
    assert (offset is None) == (not operations)
    if offset is not None:
        assert offset.tolist() == [0, np.float32(5 * mean)]  # the near one is folded all the same


def test_a_highway_input_is_standardized(make_checkpoint: MakeCheckpoint) -> None:
    ops = [node.op_type for node in onnx_of(make_checkpoint(features=FEATURES, highway=2)).graph.node]
    assert ops[:3] == ["Sub", "Mul", "Unsqueeze"]


def test_an_onnx_file_carries_its_metadata(make_checkpoint: MakeCheckpoint) -> None:
    props = {prop.key: prop.value for prop in onnx_of(make_checkpoint()).metadata_props}
    assert props["name"] == "tank"
    assert props["made by"].startswith("edge-lstm ")
    assert json.loads(props["inputs"]) == {"level": "m", "temperature": "°C", "pressure": "Pa"}
    assert json.loads(props["targets"]) == {"level": "m"}
    assert json.loads(props["horizons"]) == [1, 6]


def test_tflite_operator_versions_suit_old_runtimes(make_checkpoint: MakeCheckpoint) -> None:
    lstm = operators(tflite_of(make_checkpoint()))
    assert " ".join(name for name, _ in lstm) == (
        "SUB CONCATENATION FULLY_CONNECTED SPLIT LOGISTIC LOGISTIC TANH LOGISTIC MUL MUL ADD TANH MUL"
        " FULLY_CONNECTED GATHER ADD"
    )
    for cell in ("lstm", "gru"):
        versions = set(operators(tflite_of(make_checkpoint(cell, 2), "int8")))
        assert {version for name, version in versions if name != "DEQUANTIZE"} == {1}
        assert ("DEQUANTIZE", 5) in versions


def test_a_tflite_file_names_its_tensors_and_carries_metadata(make_checkpoint: MakeCheckpoint) -> None:
    model = tflite_of(make_checkpoint())
    signature = model.SignatureDefs(0)
    inputs = [signature.Inputs(index).Name().decode() for index in range(signature.InputsLength())]
    outputs = [signature.Outputs(index).Name().decode() for index in range(signature.OutputsLength())]
    assert inputs == ["features", "hidden_state_0", "cell_state_0"]
    assert outputs == ["prediction", "next_hidden_state_0", "next_cell_state_0"]
    entry = model.Metadata(0)
    assert entry.Name() == b"edge-lstm"
    assert json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())["targets"] == '{"level": "m"}'


def test_every_tflite_constant_is_aligned_for_vector_loads(make_checkpoint: MakeCheckpoint) -> None:
    checkpoint = make_checkpoint(hidden=13)
    content = write_tflite(quantized(checkpoint.model.network(), "int8"), checkpoint.contract)
    model = tflite.Model.GetRootAsModel(content, 0)
    aligned: list[bool] = []
    for index in range(1, model.BuffersLength()):
        data = model.Buffers(index).DataAsNumpy().tobytes()
        aligned.append(any(content.startswith(data, at) for at in range(0, len(content), 16)))
    assert aligned == [True] * (model.BuffersLength() - 1)
    assert len(aligned) >= 6  # three matrices, their biases


@pytest.mark.parametrize("write", [write_onnx, write_tflite])
def test_equal_networks_give_equal_files(write: Callable[..., bytes], make_checkpoint: MakeCheckpoint) -> None:
    first, second = make_checkpoint("gru", 2), make_checkpoint("gru", 2)
    assert write(first.model.network(), first.contract) == write(second.model.network(), second.contract)
