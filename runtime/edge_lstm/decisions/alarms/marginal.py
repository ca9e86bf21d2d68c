"""Residuals without some of their components, so that a Mahalanobis distance is that of the others' marginal."""

from __future__ import annotations

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Flags


def without(left_out: Flags, rows: Doubles, center: Doubles, whitening: Doubles) -> Doubles:
    """(n, d): the rows (n, d), with the components `left_out` (n, d) at their expectation given the others.

    center (n, d); whitening (n, d, d): the inverse Cholesky factors W of the covariances, so that P = W'W is the
    precision. The expectation solves P_oo r_o = -P_ok r_k (Bishop 2006, 2.96). There the distance is the least that
    the other components allow, which is that of their marginal distribution, and the share of those left out is 0.
    """
    places = np.flatnonzero(left_out.any(axis=1))
    if not places.size:
        return rows
    out, factor, middle = left_out[places], whitening[places], center[places]
    away = np.where(out, 0.0, rows[places] - middle)
    columns = np.ascontiguousarray(np.swapaxes(factor, 1, 2))  # sums over the last axis: same bits in any batch
    precision = (columns[:, :, None, :] * columns[:, None, :, :]).sum(axis=3)
    pulls = (precision * away[:, None, :]).sum(axis=2)
    both = out[:, :, None] & out[:, None, :]
    expected = np.linalg.solve(np.where(both, precision, np.eye(out.shape[1])), np.where(out, -pulls, 0.0)[:, :, None])
    found = rows.copy()
    found[places] = np.where(out, middle + expected[:, :, 0], rows[places])
    return found
