"""Exported bundles on a device: every installed backend reproduces their golden vectors, or gives the reason."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from edge_lstm import Bundle, Predictor, Reading
from edge_lstm.backends.kinds import NAMES
from edge_lstm.backends.registry import installed, load, runnable, why_unavailable
from edge_lstm.backends.selftest import verify
from edge_lstm.foundation.errors import EdgeLstmError
from tests.paths import FIXTURES

CELLS = ("lstm", "gru")


@pytest.mark.parametrize("cell", CELLS)
def test_every_installed_backend_gives_the_golden_vectors(cell: str) -> None:
    bundle = Bundle.open(FIXTURES / f"pump-{cell}.elstm")
    verdicts = verify(bundle, runnable(bundle))
    assert {(one.backend, one.scheme) for one in verdicts} == {
        (name, scheme) for name in installed() for scheme in ("float32", "int8")
    }
    for verdict in verdicts:
        assert verdict.passed, verdict
        assert verdict.error <= 1e-5
        assert verdict.smallest_batch in (1, 2)
        assert verdict.drift <= (1e-6 if verdict.scheme == "float32" else 0.01)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cell", CELLS)
def test_interleaved_streams_get_the_same_bits_as_alone(cell: str, name: str) -> None:
    if (error := why_unavailable(name)) is not None:
        pytest.skip(error.message)
    bundle = Bundle.open(FIXTURES / f"pump-{cell}.elstm")
    rng = np.random.default_rng(0)
    readings = [
        Reading(f"pump-{stream}", 1e9 + 60 * step, {"pressure": 1e4 if stream == 3 else rng.normal(), "flow": 1.0})
        for step in range(12)
        for stream in range(37)
    ]
    together = Predictor.of(bundle, name, "int8")
    predictions = [
        prediction for start in range(0, 444, 50) for prediction in together.feed(readings[start : start + 50])
    ]
    alone = Predictor.of(bundle, name, "int8").feed([one for one in readings if one.stream == "pump-7"])
    assert [one for one in predictions if one.stream == "pump-7"] == alone


def test_a_flipped_byte_anywhere_is_refused_or_harmless() -> None:
    path = FIXTURES / "pump-gru.elstm"
    data, whole = path.read_bytes(), Bundle.open(path)
    refused = 0
    for position in range(0, len(data), 211):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        try:
            read = Bundle.from_bytes(bytes(damaged), "damaged")
        except EdgeLstmError:
            refused += 1
            continue
        assert (read.id, read.content) == (whole.id, whole.content)
    assert refused > 0.9 * len(range(0, len(data), 211))


@pytest.mark.parametrize("length", [0, 1, 100, 5000, -1])
def test_a_truncated_bundle_is_refused(length: int) -> None:
    data = (FIXTURES / "pump-lstm.elstm").read_bytes()[:length]
    with pytest.raises(EdgeLstmError, match="expected a whole bundle"):
        Bundle.from_bytes(data, "truncated")


def test_a_missing_backend_is_named_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(FIXTURES / "pump-lstm.elstm")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EdgeLstmError, match=r"expected the package onnxruntime .* not installed here") as caught:
        load(bundle, "onnx", "int8")
    assert caught.value.hint == "run pip install 'edge-lstm[onnx]', or choose another backend"


def test_tflite_runtime_under_numpy_2_is_refused_before_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(FIXTURES / "pump-lstm.elstm")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(np, "__version__", "2.4.6")
    with pytest.raises(EdgeLstmError, match=r"expected numpy < 2 for the backend tflite-runtime .* found 2\.4\.6"):
        load(bundle, "tflite-runtime", "int8")
    assert "tflite-runtime" not in installed()


def test_the_runtime_imports_no_training_or_export_package() -> None:
    script = (
        "import sys, edge_lstm.cli.main, edge_lstm.service.service, edge_lstm.bundle.data_sheet\n"
        "import edge_lstm.recordings.live.simulator, edge_lstm.recordings.replay\n"
        "heavy = {'torch', 'onnx', 'tflite', 'matplotlib', 'edge_lstm_train', 'edge_lstm_export', 'onnxruntime'}\n"
        "print(', '.join(heavy & set(sys.modules)), end='')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
