"""Samples to feature vectors: values, masks of missing values, and the clock; the same code trains and runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_lstm.contract import ClockInput, Contract

Floats = NDArray[np.float32]

DAY_S = 86_400.0
_FIRST_SUNDAY_S = 3 * DAY_S  # 1970-01-04, so that a week starts on Sunday
YEAR_S = 365.2425 * DAY_S

# Each clock input's phase, in turns.
_PHASES: dict[ClockInput, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "time_of_day": lambda time: time / DAY_S,
    "day_of_week": lambda time: (time - _FIRST_SUNDAY_S) / (7 * DAY_S),
    "day_of_year": lambda time: time / YEAR_S,
}


def feature_vectors(
    contract: Contract, times: NDArray[np.float64], values: NDArray[np.float32], missing: NDArray[np.bool_]
) -> Floats:
    """The network's input for `samples` samples.

    times (samples,) in seconds since 1970; values (samples, features) with missing ones already held;
    missing (samples, features). Returns (samples, inputs) float32 in the order of `contract.inputs`, raw units.
    """
    masked = [index for index, feature in enumerate(contract.features) if feature.mask]
    columns = [values, missing[:, masked].astype(np.float32)]
    for name in contract.clock:
        turns = _PHASES[name](times)
        angle = 2 * np.pi * (turns - np.floor(turns))  # small angles: the same bits on every libm that is exact there
        columns += [np.sin(angle)[:, None], np.cos(angle)[:, None]]
    vectors: Floats = np.concatenate(columns, axis=1).astype(np.float32)
    return vectors
