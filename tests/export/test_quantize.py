"""What rounding to int8 keeps, and what it may cost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge_lstm.network import Quantized
from edge_lstm_export.quantize import int8_rows, quantized
from edge_lstm_train.checkpoint import Checkpoint


def test_a_rounded_weight_is_within_half_a_step_of_its_row() -> None:
    matrix = np.random.default_rng(0).normal(0, np.logspace(-4, 2, 40)[:, None], (40, 25)).astype(np.float32)
    stored = int8_rows(matrix)
    error = np.abs(stored.dequantized() - matrix)
    assert (error <= 0.5001 * stored.scales[:, None]).all()
    assert np.allclose(stored.scales, np.abs(matrix).max(axis=1) / 127, rtol=1e-6)
    assert np.abs(stored.values).max() == 127


def test_a_row_of_zeros_stays_zero() -> None:
    stored = int8_rows(np.array([[0, 0], [1, -1]], np.float32))
    assert stored.dequantized().tolist() == [[0, 0], [1, -1]]


def test_only_matrices_are_rounded(make_checkpoint: Callable[..., Checkpoint]) -> None:
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


def test_rounding_twice_is_refused(make_checkpoint: Callable[..., Checkpoint]) -> None:
    rounded = quantized(make_checkpoint().model.network(), "int8")
    with pytest.raises(ValueError, match="quantized already"):
        quantized(rounded, "int8")
