"""ONNX files of strangers: what no bundle needs is refused before onnxruntime sees the file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.backends.onnx_contents import refuse_strange_graph
from edge_lstm.bundle.archive import Bundle, TensorPair, Variant
from edge_lstm.foundation.errors import BackendError
from tests.executed_lines import executed_lines
from tests.hostile.onnx_bytes import Value, external, graph, message, model, node, port, tensor, varint
from tests.paths import FIXTURES

VARIANT = Variant("onnx", "float32", "model.onnx", "x", "y", [TensorPair("h", "h", "next_h")], 1e-4, 1e-3)
SECRET = external("password")


def attribute(*fields: tuple[int, Value]) -> tuple[int, bytes]:
    return 5, message((1, "value"), *fields)


def inside(part: tuple[int, Value], depth: int) -> bytes:
    """A graph with `part`, in branches `depth` deep."""
    held = graph(part)
    for _ in range(depth):
        held = graph((1, node("If", "yes", "out", attribute((6, held)))))
    return held


STRANGE = {
    "external data": (graph((5, tensor("w", *SECRET))), "weights in another file"),
    "a location alone": (graph((5, tensor("w", SECRET[0]))), "weights in another file"),
    "a place alone": (graph((5, tensor("w", SECRET[1]))), "weights in another file"),
    "a place beyond 32 bits": (graph((5, tensor("w", (14, 2**32 + 1)))), "weights in another file"),
    "external data in a constant": (
        graph((1, node("Constant", "", "w", attribute((5, tensor("w", *SECRET)))))),
        "weig",
    ),
    "external data in a list": (
        graph((1, node("Constant", "", "w", attribute((10, tensor("w", *SECRET)))))),
        "weights",
    ),
    "external data in a branch": (inside((5, tensor("w", *SECRET)), 3), "weights in another file"),
    "branches without end": (inside((2, "deep"), 40), "more than 16 deep"),
    "a sparse weight": (graph((15, message((1, tensor("w", *SECRET))))), "a sparse weight"),
    "a sparse attribute": (graph((1, node("Constant", "", "w", attribute((22, b""))))), "a sparse weight"),
    "a loop": (graph((1, node("Loop", "n yes", "out", (3, "rounds")))), r"the operator Loop \(node rounds\)"),
    "a loop in a branch": (inside((1, node("Loop", "n yes", "out")), 2), "the operator Loop"),
    "a scan": (graph((1, node("Scan", "x", "out"))), "the operator Scan"),
    "a custom domain": (graph((1, node("Add", "x h", "out", (7, "evil.example")))), "Add of the domain evil.example"),
    "an operator that reads files": (
        graph((1, node("EPContext", "x", "out", (7, "com.microsoft")))),
        "EPContext of the domain com.microsoft",
    ),
    "random numbers": (graph((1, node("RandomNormal", "", "out"))), "the operator RandomNormal"),
    "two operators": (graph((1, node("Add", "x h", "out", (4, "Loop")))), "a node without one operator"),
    "no operator": (graph((1, message((1, "x"), (2, "out")))), "a node without one operator"),
    "a name with escapes": (graph((1, node("\x1b[2J", "x", "out"))), r"the operator \\x1b\[2J"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_graph_is_refused(name: str) -> None:
    held, found = STRANGE[name]
    with pytest.raises(BackendError, match=f"^model.onnx: expected an ONNX graph of known operators .*{found}"):
        refuse_strange_graph(model(of=held), "model.onnx")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (model((25, message((1, "Add")))), "functions of its own"),
        (model((20, b"")), "a graph for training"),
        (model((7, graph())), "2 graphs"),
        (model((26, b"")), "an unknown field 26 of the model"),
        (message((1, 8)), "0 graphs"),
        (message((1, 8), (7, 5)), "a field 7 that is no message"),
        (b"", "0 graphs"),
        (b"\x08\x08\x12\x00ORTM", "a file of onnxruntime's own format"),
        (model()[:-1], "ends after its message"),
        (b"\x0b", "wire type 3"),
        (b"\x08" + b"\xff" * 11, "more than ten bytes"),
        (b"\x00\x01", "a field number 0"),
    ],
)
def test_a_file_that_is_no_plain_model_is_refused(content: bytes, found: str) -> None:
    with pytest.raises(BackendError, match=found):
        refuse_strange_graph(content, "model.onnx")


def test_reading_a_file_of_many_fields_is_bounded() -> None:
    many = (varint(1 << 3 | 2) + b"\x00") * 2_000_000
    strange = model(of=message((1, many)))

    def refuse() -> None:
        with pytest.raises(BackendError, match="more than 200000 fields"):
            refuse_strange_graph(strange, "model.onnx")

    assert executed_lines(refuse) < 200_000 * 50  # 35 lines read a field


def test_a_file_of_the_device_is_never_read_as_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("onnxruntime is not installed")
    from edge_lstm.backends.onnx import load

    monkeypatch.chdir(tmp_path)
    Path("password").write_bytes(np.float32(7).tobytes())
    leaking = message(
        (1, node("Mul", "x w", "read")),
        (1, node("Add", "read h", "next_h")),
        (1, node("Identity", "next_h", "y")),
        (2, b"leak"),
        *((11, port(name)) for name in ("x", "h")),
        *((12, port(name)) for name in ("y", "next_h")),
    )
    held = model(of=leaking + message((5, tensor("w", *SECRET))))
    with pytest.raises(BackendError, match="weights in another file"):
        load(VARIANT, held)
    plain = load(VARIANT, model(of=leaking + message((5, tensor("w", (9, np.float32(2).tobytes()))))))
    prediction, _ = plain.step(np.ones((1, 1), np.float32), [np.zeros((1, 1), np.float32)])
    assert prediction.tolist() == [[2.0]]


def test_every_graph_of_our_own_is_accepted() -> None:
    read = 0
    for path in FIXTURES.rglob("*.elstm"):
        bundle = Bundle.open(path)
        for variant in bundle.manifest.variants:
            if variant.format == "onnx":
                refuse_strange_graph(bundle.content[variant.file], variant.file)
                read += 1
    assert read >= 8
