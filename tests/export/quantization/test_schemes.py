"""Each scheme has its size and accuracy where it runs, and is refused with the reason where it does not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.backends.registry import installed, load, runnable
from edge_lstm.backends.selftest import initial_states, verify
from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.network import Quantized, from_npz, to_npz
from edge_lstm.bundle.schemes import Scheme
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm_export.assemble import FORMATS, bundle_bytes, export_bundle
from edge_lstm_export.quantization.quantize import quantized
from edge_lstm_train.model.checkpoint import Checkpoint

MakeCheckpoint = Callable[..., Checkpoint]


def bundle_of(checkpoint: Checkpoint, *schemes: Scheme) -> Bundle:
    return Bundle.from_bytes(bundle_bytes(checkpoint, schemes, FORMATS), "test.elstm")


@pytest.mark.parametrize(
    ("hidden", "scheme", "share"),
    [(64, "float16", 0.55), (64, "int8", 0.33), (256, "int8", 0.28), (256, "int4", 0.17), (256, "int8-dynamic", 0.29)],
)
def test_each_scheme_has_its_share_of_the_float32_size(
    make_checkpoint: MakeCheckpoint, hidden: int, scheme: Scheme, share: float
) -> None:
    bundle = bundle_of(make_checkpoint(hidden=hidden, steps=20), "float32", scheme)
    size = {(one.format, one.scheme): len(bundle.content[one.file]) for one in bundle.manifest.variants}
    for format in ("onnx", "tflite"):
        assert size[format, scheme] <= share * size[format, "float32"], format


@pytest.mark.parametrize("columns", [7, 8])
def test_four_bit_values_survive_packing(columns: int) -> None:
    values = np.random.default_rng(0).integers(-7, 8, (5, columns)).astype(np.int8)
    weight = Quantized(values, np.ones(5, np.float32), 4)
    assert weight.packed().shape == (5, 4)
    network = quantized(from_npz(to_npz(_network(columns))), "int4")
    again = from_npz(to_npz(network))
    for before, after in zip(network.layers, again.layers, strict=True):
        assert np.array_equal(before.w_ih.values, after.w_ih.values)


def _network(inputs: int):  # type: ignore[no-untyped-def]
    from tests.networks import random_network

    return random_network(inputs=inputs)


def test_dynamic_int8_runs_on_integer_kernels_and_isolates_streams(make_checkpoint: MakeCheckpoint) -> None:
    bundle = bundle_of(make_checkpoint(hidden=128), "float32", "int8-dynamic")
    runs = [run for run in runnable(bundle) if run[1] == "int8-dynamic"]
    assert [name for name, _ in runs] == [name for name in installed() if name in ("litert", "onnx")]
    for verdict in verify(bundle, runs):
        assert verdict.passed, verdict
        assert verdict.drift <= 0.01, verdict
        assert verdict.one_by_one == (verdict.backend == "onnx"), verdict


@pytest.mark.parametrize(
    ("scheme", "backend", "reason"),
    [
        ("int8-dynamic", "tflite-runtime", "silently ignore scales per row"),
        ("int8-static", "numpy", None),
        ("int4", "tflite-runtime", "it does not support four-bit tensors"),
    ],
)
def test_a_backend_that_cannot_run_a_scheme_gives_the_reason(
    make_checkpoint: MakeCheckpoint, scheme: Scheme, backend: str, reason: str | None
) -> None:
    bundle = bundle_of(make_checkpoint(hidden=128, steps=20), scheme)
    if reason is None:
        assert load(bundle, backend, scheme).scheme == scheme
        return
    with pytest.raises(EdgeLstmError, match=f"expected a backend for {scheme}, found {backend}: .*{reason}"):
        load(bundle, backend, scheme)


@pytest.mark.parametrize(
    ("cell", "hidden", "format", "reason"),
    [
        ("lstm", 64, "tflite", "integer kernels gain nothing below 128 units, and this network has 64"),
        ("gru", 128, "onnx", "onnxruntime has a dynamic LSTM and no dynamic GRU"),
        ("lstm", 128, "numpy", "numpy has no integer kernels"),
    ],
)
def test_a_scheme_without_a_format_is_refused_and_leaves_no_file(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, cell: str, hidden: int, format: str, reason: str
) -> None:
    with pytest.raises(EdgeLstmError, match=f"{format}: {reason}"):
        export_bundle(make_checkpoint(cell, hidden=hidden, steps=20), tmp_path / "x.elstm", ["int8-dynamic"], [format])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", ["onnx", "numpy"])
def test_static_int8_warns_once_about_input_outside_calibration(
    make_checkpoint: MakeCheckpoint, caplog: pytest.LogCaptureFixture, backend: str
) -> None:
    checkpoint = make_checkpoint(hidden=8)
    bundle = bundle_of(checkpoint, "int8-static")
    stepped = load(bundle, backend, "int8-static")
    states = initial_states(bundle.contract, 1)
    with caplog.at_level(logging.WARNING):
        stepped.step(checkpoint.input_sequence[:1], states)
        assert caplog.messages == []
        for _ in range(3):
            stepped.step(checkpoint.input_sequence[:1] * 2 + 1, states)
    assert len(caplog.messages) == 3  # one a feature
    assert caplog.messages[0].startswith("input outside its calibration feature=level value=")
