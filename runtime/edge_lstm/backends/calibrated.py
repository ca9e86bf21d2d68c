"""A wrapper of a backend with calibrated quantization. It warns about features outside their calibration range."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from edge_lstm.backends.protocol import Backend
from edge_lstm.foundation.arrays import Flags, Floats
from edge_lstm.foundation.rate_limited_log import RateLimitedLog

log = logging.getLogger(__name__)


class CalibratedBackend:
    """Steps another backend, and logs once a minute each input outside its calibration range, which int8 clips."""

    def __init__(self, backend: Backend, inputs: Sequence[str], least: Sequence[float], most: Sequence[float]) -> None:
        """least, most (inputs,): the range of each input in calibration."""
        self.name, self.scheme = backend.name, backend.scheme
        self.watched = backend
        self._inputs = inputs
        self._least, self._most = np.array(least, np.float32), np.array(most, np.float32)
        self._warnings = RateLimitedLog(log)

    def step(self, features: Floats, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        """The same as the wrapped backend."""
        outside = (features < self._least) | (features > self._most)
        if outside.any():
            self._warn(features, outside)
        return self.watched.step(features, states)

    def _warn(self, features: Floats, outside: Flags) -> None:
        for column in np.flatnonzero(outside.any(axis=0)).tolist():
            if self._warnings.due(column):
                log.warning(
                    "input outside its calibration feature=%s value=%g calibrated=%g..%g scheme=%s",
                    self._inputs[column],
                    features[outside[:, column], column][0],
                    self._least[column],
                    self._most[column],
                    self.scheme,
                )
