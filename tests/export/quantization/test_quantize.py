"""Quantization to int8: the error of a weight, and error feedback."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge_lstm.backends.selftest import drift
from edge_lstm.bundle.network import Cell, Quantized
from edge_lstm.bundle.schemes import Scheme
from edge_lstm_export.proof.golden_vectors import with_weights
from edge_lstm_export.quantization.error_feedback import MatrixWithInputs, round_with_feedback
from edge_lstm_export.quantization.quantize import int8_columns, int8_rows, quantized
from edge_lstm_train.model.checkpoint import Checkpoint


def test_a_quantized_weight_is_within_half_a_step_of_its_row() -> None:
    matrix = np.random.default_rng(0).normal(0, np.logspace(-4, 2, 40)[:, None], (40, 25)).astype(np.float32)
    stored = int8_rows(matrix)
    error = np.abs(stored.dequantized() - matrix)
    assert (error <= 0.5001 * stored.scales[:, None]).all()
    assert np.allclose(stored.scales, np.abs(matrix).max(axis=1) / 127, rtol=1e-6)
    assert np.abs(stored.values).max() == 127


def test_each_input_column_has_its_own_scale() -> None:
    matrix = np.random.default_rng(0).normal(0, np.logspace(-4, 2, 25), (40, 25)).astype(np.float32)
    stored = int8_columns(matrix)
    assert stored.scales.shape == (25,)
    assert (np.abs(stored.dequantized() - matrix) <= 0.5001 * np.abs(matrix).max(axis=0) / 127).all()


def test_a_row_of_zeros_stays_zero() -> None:
    stored = int8_rows(np.array([[0, 0], [1, -1]], np.float32))
    assert stored.dequantized().tolist() == [[0, 0], [1, -1]]


def test_only_matrices_are_quantized(make_checkpoint: Callable[..., Checkpoint]) -> None:
    network = make_checkpoint("gru", 2).model.network()
    rounded = quantized(network, "int8")
    for before, after in zip(network.layers, rounded.layers, strict=True):
        assert isinstance(after.w_ih, Quantized)
        assert isinstance(after.w_hh, Quantized)
        assert after.b_ih is before.b_ih
        assert after.b_hh is before.b_hh
    assert isinstance(rounded.head_weight, Quantized)
    assert rounded.head_bias is network.head_bias
    assert rounded.parameters == network.parameters


@pytest.mark.parametrize(("scheme", "cell"), [("int8", "lstm"), ("int8", "gru"), ("int4", "lstm")])
def test_error_feedback_halves_the_quantization_error_on_unseen_input(
    make_checkpoint: Callable[..., Checkpoint], scheme: Scheme, cell: Cell
) -> None:
    checkpoint = make_checkpoint(cell, 1, hidden=32, changes=False, steps=2000)
    network, inputs = checkpoint.model.network(), checkpoint.input_sequence
    expected, _ = checkpoint.model.stream(inputs)
    before, after = (
        drift(with_weights(checkpoint.model, one).stream(inputs)[0][1000:], expected[1000:])
        for one in (quantized(network, scheme), quantized(network, scheme, inputs[:1000]))
    )
    assert after <= before / 2, (before, after)


def test_error_feedback_changes_no_scale_and_no_exact_weight() -> None:
    random = np.random.default_rng(0)
    whole = random.integers(-127, 128, (12, 6)).astype(np.float32)
    whole[0] = 127
    whole[:, 3] = 0
    nearest = int8_columns(whole)
    (found,) = round_with_feedback([MatrixWithInputs(whole, nearest, random.normal(size=(50, 6)).astype(np.float32))])
    assert np.array_equal(found.dequantized(), nearest.dequantized())
    assert found.scales is nearest.scales
    (silent,) = round_with_feedback(
        [MatrixWithInputs(whole / 3, int8_columns(whole / 3), np.zeros((50, 6), np.float32))]
    )
    assert np.array_equal(silent.values, nearest.values)


def test_quantizing_twice_is_refused(make_checkpoint: Callable[..., Checkpoint]) -> None:
    rounded = quantized(make_checkpoint().model.network(), "int8")
    with pytest.raises(ValueError, match="quantized already"):
        quantized(rounded, "int8")
