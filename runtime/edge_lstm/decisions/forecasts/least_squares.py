"""Recursive least squares with exponential forgetting, of many streams and outputs at once.

The sums of products are kept, not their inverse: they are sums of squares, so they stay positive, and no rounding error
is multiplied from step to step. The weights are solved from them where they are needed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_lstm.foundation.arrays import Doubles

REGRESSORS = 4
STEPS = (
    REGRESSORS * (REGRESSORS + 1) // 2 - 1
)  # place of the last square: of a regressor that is one, how many steps count
SUMS = REGRESSORS * (REGRESSORS + 1) // 2 + REGRESSORS  # of products among regressors, then with the errors

_ROWS, _COLUMNS = np.triu_indices(REGRESSORS)
_PLACES = np.zeros((REGRESSORS, REGRESSORS + 1), np.intp)  # where the sums of the normal equations stand
_PLACES[_ROWS, _COLUMNS] = _PLACES[_COLUMNS, _ROWS] = np.arange(len(_ROWS))
_PLACES[:, REGRESSORS] = len(_ROWS) + np.arange(REGRESSORS)


def products(regressors: Doubles, errors: Doubles) -> Doubles:
    """(SUMS, ...): what one step adds to the sums; regressors (REGRESSORS, ...), errors (...)."""
    return np.concatenate([regressors[_ROWS] * regressors[_COLUMNS], regressors * errors])


def weights(sums: Doubles, pull: float, least: float) -> Doubles:
    """(REGRESSORS, ...): the weights that explain the errors best; sums (SUMS, ...).

    Each weight is pulled to zero as if `pull` times the steps so far had no error (ridge regression, Hoerl and Kennard
    1970, with the scale of each regressor). `least`: added to the sum of each square, so that regressors which never
    moved get no weight. Elimination needs no pivots in a positive definite
    system.
    """
    system: NDArray[np.float64] = sums[_PLACES]  # (REGRESSORS, REGRESSORS + 1, ...)
    diagonal = np.arange(REGRESSORS)
    system[diagonal, diagonal] = (1 + pull) * system[diagonal, diagonal] + least
    for row in range(REGRESSORS):
        system[row, row + 1 :] /= system[row, row]
        system[row + 1 :, row + 1 :] -= system[row + 1 :, row, None] * system[row, row + 1 :]
    found = system[:, REGRESSORS]
    for row in reversed(range(REGRESSORS - 1)):
        found[row] -= (system[row, row + 1 : REGRESSORS] * found[row + 1 :]).sum(axis=0)
    return found
