"""Readings to samples: holds missing values, restarts after a gap, drops and counts late and repeated readings."""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_lstm.contract import Contract
from edge_lstm.reading import Reading
from edge_lstm.streams import StreamTable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sample:
    """One step's input for one stream: complete values, and where they were missing and held from before."""

    stream: str
    slot: int
    time: float
    values: NDArray[np.float64]  # (features,)
    missing: NDArray[np.bool_]  # (features,)
    restart: bool  # whether the state goes back to its start before this step


class Sampler:
    """Turns each reading into the sample that steps its stream, or drops it and counts why.

    `counts` has `samples`, `duplicate` (the time of the stream's last sample again), `late` (a time before it),
    `gaps` (silences over `max_gap_s`) and `missing` (values held).
    """

    def __init__(self, contract: Contract, table: StreamTable) -> None:
        self._names = [feature.name for feature in contract.features]
        self._max_gap_s = contract.sampling.max_gap_s or math.inf
        self._table = table
        self.counts: Counter[str] = Counter(samples=0, duplicate=0, late=0, gaps=0, missing=0)

    def sample(self, reading: Reading) -> Sample | None:
        """The sample that `reading` gives, or None where it is not newer than the stream's last one."""
        table = self._table
        slot = table.slot(reading.stream)
        since = reading.time - table.time[slot]  # NaN before the first sample: no comparison holds
        if since <= 0:
            self.counts["late" if since < 0 else "duplicate"] += 1
            return None
        restart = bool(since > self._max_gap_s)
        if restart:
            self.counts["gaps"] += 1
            log.info("stream restarts stream=%s gap_s=%.1f", reading.stream, since)
        given = np.array([reading.values.get(name, math.nan) for name in self._names], np.float64)
        missing = ~np.isfinite(given)
        values = np.where(missing, table.held[slot], given)
        table.held[slot] = values
        table.time[slot] = reading.time
        self.counts["samples"] += 1
        self.counts["missing"] += int(missing.sum())
        return Sample(reading.stream, slot, reading.time, values, missing, restart)
