"""Leaving out components of a Mahalanobis distance gives the distance of the others' marginal."""

from __future__ import annotations

import numpy as np

from edge_lstm.decisions.alarms.anomaly import distance
from edge_lstm.decisions.alarms.drivers import drivers
from edge_lstm.decisions.alarms.marginal import without


def cases(count: int = 40, size: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows, centers, whitenings, covariances, and which components are left out: none in the first row."""
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((count, size, size))
    covariance = mixed @ np.swapaxes(mixed, 1, 2) + 0.1 * np.eye(size)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    left_out = rng.random((count, size)) < 0.4
    left_out[0], left_out[1] = False, True
    return rng.standard_normal((count, size)), rng.standard_normal((count, size)), whitening, covariance, left_out


def test_the_distance_is_that_of_the_covariance_of_the_others() -> None:
    rows, center, whitening, covariance, left_out = cases()
    found = distance(without(left_out, rows, center, whitening), center, whitening)
    for place, out in enumerate(left_out):
        alive = np.flatnonzero(~out)
        away = (rows - center)[place, alive]
        squared = away @ np.linalg.solve(covariance[place][np.ix_(alive, alive)], away) if alive.size else 0.0
        np.testing.assert_allclose(found[place], np.sqrt(squared), rtol=1e-9, atol=1e-9)


def test_values_that_are_left_out_do_not_matter_and_have_no_share() -> None:
    rows, center, whitening, _, left_out = cases()
    first = without(left_out, rows, center, whitening)
    np.testing.assert_array_equal(first, without(left_out, np.where(left_out, 1e6, rows), center, whitening))
    named = np.ones(len(rows), np.bool_)
    said = drivers(named, first - center, whitening, rows.astype(np.float32), rows.astype(np.float32))
    shares = np.take_along_axis(said.share, np.argsort(said.sensors, axis=1), axis=1)
    assert np.abs(shares[left_out]).max() < 1e-9
    assert (first[~left_out] == rows[~left_out]).all()


def test_a_row_gets_the_same_bits_alone_and_among_others() -> None:
    rows, center, whitening, _, left_out = cases()
    together = without(left_out, rows, center, whitening)
    for place in range(len(rows)):
        at = slice(place, place + 1)
        np.testing.assert_array_equal(together[at], without(left_out[at], rows[at], center[at], whitening[at]))
    assert without(np.zeros_like(left_out), rows, center, whitening) is rows
