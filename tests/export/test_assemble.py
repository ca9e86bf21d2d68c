"""A bundle is written only if every part of it was verified."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge_lstm.backends import onnx as onnx_backend
from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.backends.selftest import verify
from edge_lstm.backends.tflite import TfliteBackend
from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.certificate import read_certificate
from edge_lstm.bundle.contract import Feature
from edge_lstm.bundle.data_sheet import data_sheet
from edge_lstm.bundle.golden import read_golden_vectors
from edge_lstm.bundle.purpose import Purpose
from edge_lstm.bundle.web_page import model_page
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm_export import assemble
from edge_lstm_export.assemble import export_bundle
from edge_lstm_train.model.checkpoint import Checkpoint
from tests.export.conftest import FEATURES

MakeCheckpoint = Callable[..., Checkpoint]


@pytest.fixture(scope="module")
def small(make_checkpoint: MakeCheckpoint) -> Checkpoint:
    return make_checkpoint(hidden=4)


@pytest.fixture(scope="module")
def exported(small: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("bundle") / "tank.elstm"
    export_bundle(small, path, ["float32"], ["numpy"])
    return path.read_bytes()


def test_the_purpose_is_in_the_bundle_with_its_certificate(small: Checkpoint, tmp_path: Path) -> None:
    purpose = Purpose(3, ("pump-*",), "2027-12-31")
    for steps in (None, 50):
        proof = assemble.Proof(certificate_steps=steps, purpose=purpose)
        exported = export_bundle(small, tmp_path / "tank.elstm", ["float32"], ["numpy"], proof)
        assert exported.bundle.manifest.purpose == purpose


def test_exporting_twice_gives_the_same_bytes(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    for name in ("first", "second"):
        export_bundle(make_checkpoint(hidden=4), tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_bundle_holds_every_variant_and_a_model_card(small: Checkpoint, tmp_path: Path) -> None:
    exported = export_bundle(small, tmp_path / "tank.elstm")
    bundle = Bundle.open(tmp_path / "tank.elstm")
    assert bundle.id == exported.bundle.id
    assert sorted(bundle.content) == [
        "README.md",
        "golden.npz",
        "model.float32.onnx",
        "model.float32.tflite",
        "model.int8.onnx",
        "model.int8.tflite",
        "weights.float32.npz",
        "weights.int8.npz",
    ]
    assert bundle.manifest.provenance["recipe"] == "none"
    assert f"torch {torch.__version__}" in bundle.manifest.provenance["exported by"]
    assert "| temperature | °C | 20 | 5 |" in bundle.content["README.md"].decode()
    assert exported.unproven == []
    assert all(verdict.passed for verdict in exported.verdicts)


def test_a_variant_that_no_backend_here_runs_is_called_unproven(
    small: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "runnable", lambda bundle: [("numpy", "float32")])
    exported = export_bundle(small, tmp_path / "tank.elstm", ["float32"], ["onnx", "numpy"])
    assert [variant.file for variant in exported.unproven] == ["model.float32.onnx"]


@pytest.mark.parametrize(("from_step", "first"), [(1, 1), (500, 500)])
def test_a_wrong_backend_is_refused_with_its_first_wrong_step(
    small: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_step: int, first: int
) -> None:
    honest = onnx_backend.OnnxBackend.step
    steps = 0

    def garbled(self: Any, features: Any, states: Sequence[Any]) -> Any:
        nonlocal steps
        prediction, following = honest(self, features, states)
        steps += len(features) == 1
        return (prediction + 1e-3 if steps >= from_step else prediction), following

    monkeypatch.setattr(onnx_backend.OnnxBackend, "step", garbled)
    # the search for the smallest batch would step, too
    monkeypatch.setattr("edge_lstm.backends.selftest.smallest_isolated_batch", lambda *_: 1)
    (tmp_path / "tank.elstm").write_text("an older bundle")
    with pytest.raises(EdgeLstmError, match=rf"onnx float32: relative difference .* first at step {first}\b"):
        export_bundle(small, tmp_path / "tank.elstm", ["float32"], ["onnx"])
    assert [path.name for path in tmp_path.iterdir()] == ["tank.elstm"]
    assert (tmp_path / "tank.elstm").read_text() == "an older bundle"


def test_a_backend_that_couples_streams_is_exported_row_by_row(
    small: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = ReferenceBackend.step

    def coupled(self: Any, features: Any, states: Sequence[Any]) -> Any:
        prediction, following = honest(self, features, states)
        return prediction + np.float32(1e-6) * (features.mean() - features[0].mean()), following

    monkeypatch.setattr(ReferenceBackend, "step", coupled)
    path = tmp_path / "tank.elstm"
    exported = export_bundle(small, path, ["float32"], ["numpy"], assemble.Proof(certificate_steps=50))
    assert [verdict.one_by_one for verdict in exported.verdicts] == [True]
    certificate = read_certificate(exported.bundle)
    assert certificate is not None
    assert [one.smallest_batch for one in certificate.variants] == [None]
    assert "; rows one at a time on numpy float32" in data_sheet(exported.bundle)
    assert "<td>none: one at a time</td>" in model_page(exported.bundle)


def test_tflite_has_a_wider_tolerance_on_a_device_than_at_export(
    small: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = export_bundle(small, tmp_path / "tank.elstm").bundle
    limits = {(one.format, one.scheme): one.parity for one in bundle.manifest.variants}
    assert limits == {
        (format, scheme): 5e-5 if format == "tflite" else 1e-5
        for format in ("onnx", "tflite", "numpy")
        for scheme in ("float32", "int8")
    }
    honest = TfliteBackend.step

    def approximating(self: Any, features: Any, states: Sequence[Any]) -> Any:
        prediction, following = honest(self, features, states)
        return prediction * np.float32(1 + 2.4e-5), following

    monkeypatch.setattr(TfliteBackend, "step", approximating)
    (verdict,) = verify(bundle, [("litert", "int8")])
    assert verdict.passed
    assert 2e-5 < verdict.error < 3e-5
    with pytest.raises(
        EdgeLstmError, match=r"litert float32: relative difference 2\..e-05 .*, over the limit of 1e-05"
    ):
        export_bundle(small, tmp_path / "other.elstm", ["float32"], ["tflite"])
    assert [path.name for path in tmp_path.iterdir()] == ["tank.elstm"]


def test_a_scheme_that_drifts_too_far_is_refused(
    small: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "_LARGEST_DRIFT", {"int8": 1e-4})
    with pytest.raises(EdgeLstmError, match=r"numpy int8: drift 0\.\d+ from float32, over the limit of") as caught:
        export_bundle(small, tmp_path / "tank.elstm", ["int8"], ["numpy"])
    assert "add --distill" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("magnitude", [1e5, 1e6])
def test_outputs_that_vary_little_for_their_magnitude_are_exported(
    make_checkpoint: Callable[..., Checkpoint], tmp_path: Path, magnitude: float
) -> None:
    """An air pressure in pascals: backends differ by last bits, which are more than 1e-4 of its standard deviation."""
    checkpoint = make_checkpoint(hidden=16, features=[Feature("pressure", "Pa", magnitude, 10.0), *FEATURES[1:2]])
    exported = export_bundle(checkpoint, tmp_path / "air.elstm")
    drifts = [verdict.drift for verdict in exported.verdicts if verdict.scheme == "float32"]
    assert max(drifts) > 1e-4
    assert max(verdict.error for verdict in exported.verdicts) < 2e-6


def test_a_flipped_byte_anywhere_is_refused_or_changes_nothing(exported: bytes) -> None:
    whole = Bundle.from_bytes(exported, "test")
    harmless = 0
    for position in range(0, len(exported), 61):
        damaged = bytearray(exported)
        damaged[position] ^= 0x10
        try:
            found = Bundle.from_bytes(bytes(damaged), "test")
        except EdgeLstmError:
            continue
        harmless += 1
        assert (found.manifest, found.content, found.id) == (whole.manifest, whole.content, whole.id), position
    assert harmless < 0.02 * len(exported) / 61  # timestamps and the like in the zip's own tables


def test_a_truncated_bundle_is_refused_at_every_length(exported: bytes) -> None:
    for length in range(0, len(exported), 997):
        with pytest.raises(EdgeLstmError, match="expected a whole bundle"):
            Bundle.from_bytes(exported[:length], "test")


def test_a_short_tape_is_repeated_to_a_thousand_steps(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(hidden=4, steps=300)
    golden = read_golden_vectors(export_bundle(checkpoint, tmp_path / "tank.elstm", ["float32"], ["numpy"]).bundle)
    assert golden.features.shape == (1000, 3)
    assert np.array_equal(golden.features[900:], checkpoint.input_sequence[:100])


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        (np.zeros((0, 3), np.float32), r"expected an input sequence of shape \(steps, 3\), found \(0, 3\)"),
        (np.zeros((50, 2), np.float32), r"expected an input sequence of shape \(steps, 3\), found \(50, 2\)"),
        (np.full((50, 3), np.nan, np.float32), "expected an input sequence of finite numbers"),
    ],
)
def test_a_golden_tape_that_tests_nothing_is_refused(
    small: Checkpoint, tmp_path: Path, inputs: np.ndarray, found: str
) -> None:
    with pytest.raises(EdgeLstmError, match=found):
        export_bundle(dataclasses.replace(small, input_sequence=inputs), tmp_path / "tank.elstm")
    assert list(tmp_path.iterdir()) == []


def test_a_model_whose_state_never_moves_is_refused(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(hidden=4)
    with torch.no_grad():
        for weight in checkpoint.model.rnn.parameters():
            weight.zero_()
    with pytest.raises(EdgeLstmError, match="expected hidden_state_0 to change along the inputs"):
        export_bundle(checkpoint, tmp_path / "tank.elstm")
