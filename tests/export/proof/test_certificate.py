"""The certificate holds what was measured, budgets refuse by it, and distillation reduces the drift."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from edge_lstm.backends.registry import installed
from edge_lstm.backends.selftest import drift
from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.certificate import read_certificate
from edge_lstm.bundle.contract import Feature
from edge_lstm.bundle.network import dense
from edge_lstm.cli.main import main
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm_export import assemble
from edge_lstm_export.assemble import Proof, export_bundle
from edge_lstm_export.proof.budgets import Budgets
from edge_lstm_export.proof.certify import dead_sensors, warm_up_steps
from edge_lstm_export.proof.golden_vectors import golden_inputs, with_weights
from edge_lstm_export.proof.stress import SEGMENTS_OF_INPUTS, stress
from edge_lstm_export.quantization.distill import distilled
from edge_lstm_export.quantization.quantize import quantized
from edge_lstm_train.model.checkpoint import Checkpoint, save_checkpoint

MakeCheckpoint = Callable[..., Checkpoint]
STEPS = 400


@pytest.fixture(scope="module")
def path(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certified") / "tank.elstm"
    export_bundle(make_checkpoint(highway=2), path, proof=Proof(certificate_steps=STEPS))
    return path


def test_every_variant_is_measured_on_every_backend_and_segment(path: Path) -> None:
    certificate = read_certificate(Bundle.open(path))
    assert certificate is not None
    assert {(one.backend, one.scheme) for one in certificate.variants} == {
        (name, scheme) for name in installed() for scheme in ("float32", "int8")
    }
    assert certificate.steps == STEPS
    for one in certificate.variants:
        assert list(one.drift) == list(SEGMENTS_OF_INPUTS)
        assert one.smallest_batch in (1, 2)
        if one.scheme == "float32":
            assert one.error <= 1e-4
            assert one.last_tenth <= 1e-5
            assert abs(one.metric_loss) <= 1e-4
        else:
            assert 1e-6 < one.drift["recording"] <= 0.01
    assert certificate.warm_up_steps is not None
    assert 1 <= certificate.warm_up_steps < 1000
    assert 0 <= certificate.saturation["layer_0"] <= 1


def test_inspect_shows_the_certificate_and_the_model_card(path: Path, tmp_path: Path) -> None:
    page = tmp_path / "card.html"
    result = CliRunner().invoke(main, ["inspect", str(path), "--html", str(page)])
    assert result.exit_code == 0, result.output
    assert f"certified {STEPS} steps x 5 segments on {len(installed())} backends; worst drift" in result.stdout
    assert "multiply-accumulates a step" in result.stdout
    assert "drift, scaled 2x+1" in page.read_text()
    facts = json.loads(CliRunner().invoke(main, ["inspect", str(path), "--json"]).stdout)
    assert facts["certificate"]["steps"] == STEPS
    assert facts["architecture"]["multiply_accumulates"] == 4 * 16 * (3 + 16) + 2 * 16 + 2 * 3 * 3
    assert facts["state_bytes_per_stream"] == 4 * (16 + 16 + 6)
    assert facts["signed_by"] is None


def test_equal_checkpoints_give_equal_certificates(make_checkpoint: MakeCheckpoint, path: Path, tmp_path: Path) -> None:
    export_bundle(make_checkpoint(highway=2), tmp_path / "again.elstm", proof=Proof(certificate_steps=STEPS))
    assert (tmp_path / "again.elstm").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("budgets", "found"),
    [
        (Budgets(drift=1e-7), r"\w+ int8 has drift .* > 1e-07"),
        (Budgets(bytes=1000), r"\w+ float32 has bytes \d+ > 1000"),
        (Budgets(metric_loss=-1.0), r"float32 has metric loss .* > -1"),
    ],
)
def test_a_budget_that_no_scheme_meets_leaves_no_file(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, budgets: Budgets, found: str
) -> None:
    for choose in (False, True):
        proof = Proof(certificate_steps=50, budgets=budgets, choose=choose)
        schemes = ["int8"] if budgets.drift else ["float32"]
        with pytest.raises(EdgeLstmError, match=found):
            export_bundle(make_checkpoint(hidden=4), tmp_path / "x.elstm", schemes, ["numpy"], proof)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("most", "scheme"), [(0.1, "int4"), (1e-3, "int8"), (1e-4, "float16"), (1e-6, "float32")])
def test_auto_takes_the_smallest_scheme_within_the_budget(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, most: float, scheme: str
) -> None:
    proof = Proof(certificate_steps=200, budgets=Budgets(drift=most), choose=True)
    schemes = ["float32", "float16", "int8", "int8-static", "int4"]
    exported = export_bundle(make_checkpoint(hidden=64), tmp_path / "x.elstm", schemes, ["numpy", "onnx"], proof)
    assert exported.bundle.schemes == [scheme]
    certificate = read_certificate(exported.bundle)
    assert certificate is not None
    assert {one.scheme for one in certificate.variants} == {scheme}


def test_an_unusable_key_or_folder_is_refused_before_measuring(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "quantized_networks", lambda *_: pytest.fail("worked before it looked"))
    (tmp_path / "other.key").write_text("not a key")
    (tmp_path / "other.key").chmod(0o600)
    for key, found in (("other.key", "something else"), ("none.key", "No such file")):
        with pytest.raises(EdgeLstmError, match=f"expected .* key .*{key}.*found:? {found}"):
            export_bundle(make_checkpoint(hidden=4), tmp_path / "x.elstm", proof=Proof(sign_with=tmp_path / key))
    with pytest.raises(EdgeLstmError, match="expected a folder that can be written"):
        export_bundle(make_checkpoint(hidden=4), tmp_path / "nowhere" / "x.elstm")
    assert [path.name for path in tmp_path.iterdir()] == ["other.key"]


def test_a_model_without_memory_needs_no_warm_up(make_checkpoint: MakeCheckpoint) -> None:
    checkpoint = make_checkpoint("gru")
    with torch.no_grad():
        for weight in checkpoint.model.rnn.parameters():
            weight.zero_()
        checkpoint.model.rnn.bias_ih_l0[16:32] = -30  # the update gate is shut: nothing stays
    assert warm_up_steps(checkpoint) == 0


def test_stress_holds_missing_values_and_sets_their_masks(make_checkpoint: MakeCheckpoint) -> None:
    features = [Feature("a", "", 5.0, 2.0, mask=True), Feature("b", "", 0.0, 1.0)]
    contract = make_checkpoint(features=features).contract
    inputs = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    inputs[:, 2] = 0
    segments = np.stack([*stress(contract, inputs, None, 1000).values()], axis=1)
    assert segments.shape == (1000, 5, 3)
    assert np.allclose(segments[:100, 1, 0], 5 + 2 * (2 * (inputs[:, 0] - 5) / 2 + 1), atol=1e-4)
    missing = segments[:, 4, 2] == 1
    assert 0.02 < missing.mean() < 0.3
    held = np.flatnonzero(missing)
    assert (segments[held, 4, 0] == segments[held - 1, 4, 0]).all()


def test_distillation_halves_the_drift_of_int8_and_int4(make_checkpoint: MakeCheckpoint) -> None:
    checkpoint = make_checkpoint("gru", hidden=24, changes=False)
    inputs = golden_inputs(checkpoint)
    expected, _ = checkpoint.model.stream(inputs)
    for scheme in ("int8", "int4"):
        plain = quantized(checkpoint.model.network(), scheme)
        taught = distilled(checkpoint, scheme, 250)
        before, after = (
            drift(with_weights(checkpoint.model, one).stream(inputs)[0], expected) for one in (plain, taught)
        )
        assert after <= before / 2, scheme
        assert len(np.unique(dense(taught.head_weight)[0])) <= (15 if scheme == "int4" else 255)


def test_export_writes_the_certificate_page_beside_the_report(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_lstm_export.proof.certify.STEPS", 50)
    save_checkpoint(tmp_path, make_checkpoint(hidden=4))
    command = ["export", str(tmp_path), "-o", str(tmp_path / "x.elstm"), "--format", "numpy", "--max-drift", ".05"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "note: the run kept no readings (an earlier release trained it)" in result.stderr
    assert "<h2>Certificate</h2>" in (tmp_path / "certificate.html").read_text()
    result = CliRunner().invoke(main, [*command, "--no-certificate"])
    assert result.exit_code == 2
    assert "expected a certificate for --scheme auto and for limits" in result.stderr


def test_the_certificate_has_the_worst_ratio_of_each_dead_sensor(make_checkpoint: MakeCheckpoint) -> None:
    rows = [{"sensor": "wind", "ratio": 0.9512345}, {"sensor": "wind", "ratio": 0.8}, {"sensor": "sky", "ratio": 1.2}]
    checkpoint = make_checkpoint()
    told = dataclasses.replace(checkpoint, provenance={"dead_sensors": json.dumps(rows)})
    assert dead_sensors(told) == {"wind": 0.9512, "sky": 1.2}
    assert dead_sensors(checkpoint) == {}
