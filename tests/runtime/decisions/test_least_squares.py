"""Recursive least squares gives what a weighted fit over all steps gives, and stays within bounds."""

from __future__ import annotations

import numpy as np
import pytest

from edge_lstm.decisions.forecasts.least_squares import REGRESSORS, SUMS, products, weights

KEEP, PULL, LEAST = 0.97, 0.05, 1e-3


def summed(regressors: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """(SUMS, ...) after all steps; regressors (steps, REGRESSORS, ...), errors (steps, ...)."""
    sums = np.zeros((SUMS, *errors.shape[1:]))
    for one, error in zip(regressors, errors, strict=True):
        sums = KEEP * sums + products(one, error)
    return sums


@pytest.mark.parametrize("seed", range(4))
def test_the_weights_are_those_of_a_fit_with_exponential_weights(seed: int) -> None:
    rng = np.random.default_rng(seed)
    regressors = rng.normal(0, [[2.0], [0.5], [0.1], [1.0]], (300, REGRESSORS, 1))
    regressors[:, 3] = 1.0
    regressors[:, 1] += regressors[:, 0]  # the value and its prediction are alike
    errors = rng.normal(0, 0.1, (300, 1)) + 0.4 * regressors[:, 0] - 2.0 * regressors[:, 2] + 0.3
    found = weights(summed(regressors, errors), PULL, LEAST)[:, 0]
    importance = np.sqrt(KEEP ** np.arange(299, -1, -1))
    rows, wanted = importance[:, None] * regressors[:, :, 0], importance * errors[:, 0]
    ridge = np.diag(np.sqrt(PULL * (rows**2).sum(axis=0) + LEAST))
    expected = np.linalg.lstsq(np.vstack([rows, ridge]), np.append(wanted, np.zeros(REGRESSORS)), rcond=None)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(found, [0.4, 0.0, -2.0, 0.3], atol=0.6)


def test_without_a_step_and_without_movement_there_is_no_weight() -> None:
    assert weights(np.zeros((SUMS, 2)), PULL, LEAST).tolist() == [[0.0, 0.0]] * REGRESSORS
    still = np.zeros((500, REGRESSORS, 1))
    assert np.abs(weights(summed(still, np.ones((500, 1))), PULL, LEAST)).max() == 0


def test_a_constant_error_is_explained_by_the_constant() -> None:
    regressors = np.zeros((500, REGRESSORS, 1))
    regressors[:, 3] = 1.0
    found = weights(summed(regressors, np.full((500, 1), 2.0)), PULL, LEAST)[:, 0]
    assert found[:3].tolist() == [0, 0, 0]
    assert found[3] == pytest.approx(2.0 / (1 + PULL), rel=1e-3)


def test_each_column_has_the_same_bits_alone_and_beside_others() -> None:
    rng = np.random.default_rng(0)
    sums = summed(rng.normal(0, 1, (50, REGRESSORS, 7, 3)), rng.normal(0, 1, (50, 7, 3)))
    together = weights(sums, PULL, LEAST)
    for row in range(7):
        np.testing.assert_array_equal(weights(sums[:, row : row + 1], PULL, LEAST), together[:, row : row + 1])
