"""Every format, scheme, cell and depth gives the results of torch on every installed backend."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge_lstm.backends.registry import installed, load, runnable
from edge_lstm.backends.selftest import drift, relative_error, replay_tape, verify
from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.contract import Feature
from edge_lstm.bundle.golden import read_golden_vectors
from edge_lstm.bundle.network import Cell
from edge_lstm.bundle.schemes import Scheme, why_unsupported
from edge_lstm_export.assemble import FORMATS, bundle_bytes
from edge_lstm_train.model.checkpoint import Checkpoint

MakeCheckpoint = Callable[..., Checkpoint]
PARITY = {"int8-static": 0.05}  # a last bit decides which way an activation is rounded
DRIFT = {"float32": 1e-5, "float16": 5e-4, "int8": 0.01, "int8-static": 0.05, "int4": 0.2}
SCHEMES: tuple[Scheme, ...] = ("float32", "float16", "int8", "int8-static", "int4")


def bundle_of(checkpoint: Checkpoint) -> Bundle:
    return Bundle.from_bytes(bundle_bytes(checkpoint, SCHEMES, FORMATS), "test")


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_every_variant_matches_torch_for_1000_steps_on_every_backend(
    make_checkpoint: MakeCheckpoint, cell: Cell, layers: int
) -> None:
    bundle = bundle_of(make_checkpoint(cell, layers))
    verdicts = verify(bundle, runnable(bundle))
    assert {(verdict.backend, verdict.scheme) for verdict in verdicts} == {
        (name, scheme) for name in installed() for scheme in SCHEMES if why_unsupported(scheme, name) is None
    }
    for verdict in verdicts:
        assert verdict.steps == 1000
        assert verdict.error <= PARITY.get(verdict.scheme, 1e-5), verdict
        assert verdict.smallest_batch is not None, verdict
        assert verdict.drift <= DRIFT[verdict.scheme], verdict


@pytest.mark.parametrize("level_free", [True, False])
@pytest.mark.parametrize(("cell", "highway"), [("lstm", 1), ("gru", 7)])
def test_every_backend_carries_the_state_of_a_highway(
    make_checkpoint: MakeCheckpoint, cell: Cell, highway: int, level_free: bool
) -> None:
    checkpoint = make_checkpoint(cell, 2, highway=highway, level_free=level_free)
    bundle = bundle_of(checkpoint)
    assert (bundle.contract.states[-1].name, bundle.contract.states[-1].shape) == ("recent_samples", [3 * highway])
    for verdict in verify(bundle, runnable(bundle)):
        assert verdict.error <= PARITY.get(verdict.scheme, 1e-5), verdict
        assert verdict.smallest_batch is not None, verdict
    register = read_golden_vectors(bundle).expected["float32"].states[-1]  # (marks, highway * 3), the newest first
    samples = (checkpoint.input_sequence - checkpoint.model.mean.numpy()) / checkpoint.model.scale.numpy()
    assert np.allclose(register[-1], samples[: -1 - highway : -1].ravel(), atol=1e-6)


@pytest.mark.parametrize(
    ("cell", "highway", "filled"),
    [("lstm", 0, False), ("none", 1, False), ("none", 96, False), ("none", 96, True), ("lstm", 7, True)],
)
def test_every_backend_runs_a_linear_path_of_any_length(
    make_checkpoint: MakeCheckpoint, cell: Cell, highway: int, filled: bool
) -> None:
    checkpoint = make_checkpoint(cell, highway=highway, level_free=False, linear=True, filled=filled)
    bundle = bundle_of(checkpoint)
    verdicts = verify(bundle, runnable(bundle))
    assert {verdict.scheme for verdict in verdicts} == set(SCHEMES)
    assert all(verdict.smallest_batch is not None for verdict in verdicts)
    for verdict in verdicts:
        exact = cell == "none"  # nothing of a linear network is rounded
        assert verdict.error <= (1e-5 if exact else PARITY.get(verdict.scheme, 1e-5)), verdict
        assert verdict.drift <= (1e-5 if exact else DRIFT[verdict.scheme]), verdict
    registers = (["recent_samples"] if highway else []) + (["register_started"] if filled else [])
    layers = ["hidden_state_0", "cell_state_0"] if cell == "lstm" else []
    assert [state.name for state in bundle.contract.states] == layers + registers
    model, golden = checkpoint.model, read_golden_vectors(bundle)
    x = (checkpoint.input_sequence - model.mean.numpy()) / model.scale.numpy()
    before = "edge" if filled else "constant"  # the first sample, or zeros
    earlier = [np.pad(x, ((back, 0), (0, 0)), before)[: len(x)] for back in range(highway + 1)]
    added = np.concatenate(earlier, axis=1).astype(np.float64) @ model.network().highway.astype(np.float64).T
    if cell == "none":
        expected = added + model.network().head_bias + checkpoint.input_sequence[:, [0, 0]]
        assert relative_error(golden.expected["int8"].prediction, expected) <= 1e-5


@pytest.mark.parametrize("level_free", [True, False])
def test_only_level_free_taps_ignore_an_unseen_level(make_checkpoint: MakeCheckpoint, level_free: bool) -> None:
    model = make_checkpoint(highway=5, level_free=level_free).model
    model.head.weight.detach().zero_()
    constant = np.full((20, 3), 1e3, np.float32) * model.scale.numpy() + model.mean.numpy()
    prediction, _ = model.stream(constant)
    change = prediction[-1] - constant[-1, 0] - (model.head.bias * model.output_scale + model.output_offset).tolist()
    assert bool(np.abs(change).max() < 1e-2) == level_free


def test_golden_vectors_are_the_outputs_of_the_trained_model(make_checkpoint: MakeCheckpoint) -> None:
    checkpoint = make_checkpoint()
    golden = read_golden_vectors(bundle_of(checkpoint))
    prediction, states = checkpoint.model.stream(checkpoint.input_sequence, [1, 10, 100, 1000])
    assert golden.marks.tolist() == [1, 10, 100, 1000]
    assert np.array_equal(golden.expected["float32"].prediction, prediction)
    assert all(np.array_equal(*pair) for pair in zip(golden.expected["float32"].states, states, strict=True))


def test_int8_golden_vectors_differ_only_by_rounding(make_checkpoint: MakeCheckpoint) -> None:
    golden = read_golden_vectors(bundle_of(make_checkpoint()))
    assert 1e-5 < drift(golden.expected["int8"].prediction, golden.expected["float32"].prediction) < 0.01


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_features_far_from_zero_keep_parity(make_checkpoint: MakeCheckpoint, cell: Cell) -> None:
    pressures = [Feature("pressure", "Pa", 101_325.0, 100.0), Feature("altitude", "m", -8_000.0, 1.0)]
    bundle = bundle_of(make_checkpoint(cell, features=pressures, changes=False))
    for verdict in verify(bundle, runnable(bundle)):
        assert verdict.error <= 1e-5, verdict
        assert verdict.smallest_batch is not None, verdict


@pytest.mark.parametrize("changes", [True, False])
def test_changes_are_added_to_the_raw_feature_and_levels_are_not(
    make_checkpoint: MakeCheckpoint, changes: bool
) -> None:
    checkpoint = make_checkpoint(changes=changes)
    bundle = bundle_of(checkpoint)
    golden = read_golden_vectors(bundle)
    head_only, _ = make_checkpoint(changes=False).model.stream(checkpoint.input_sequence)
    expected = head_only + checkpoint.input_sequence[:, [0, 0]] if changes else head_only
    for name, scheme in runnable(bundle):
        if scheme == "float32":
            prediction, _ = replay_tape(load(bundle, name, scheme), bundle.contract, golden.features, golden.marks)
            assert relative_error(prediction, expected) <= 1e-5, name
