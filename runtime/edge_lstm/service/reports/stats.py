"""The statistics of a service: readings, latencies, lag and memory."""

from __future__ import annotations

import resource
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Collection
from itertools import accumulate
from typing import NamedTuple

BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_MOST_BATCHES = 1000  # whose times are kept


class Durations(NamedTuple):
    """How long batches took since the start."""

    counts: tuple[int, ...]  # of each of `BOUNDS_S` and of those beyond
    total_s: float

    def cumulative(self) -> list[tuple[str, float]]:
        """(bound in seconds, batches that took no longer), the last one for all batches."""
        bounds = [*map(str, BOUNDS_S), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self.counts)), strict=True))


class ServiceStats:
    """Collects what a service measures of itself, and when it was last published."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._published_at = -float("inf")
        self._readings = 0
        self._counts, self._total_s = [0] * (len(BOUNDS_S) + 1), 0.0
        self._batches_ms: deque[float] = deque(maxlen=_MOST_BATCHES)
        self._lags_s: deque[float] = deque(maxlen=_MOST_BATCHES)

    def processed(self, readings: int, seconds: float, last: float | None) -> None:
        """A batch of `readings` took `seconds` from decoding to publishing.

        `last`: the time of its last reading, in seconds since 1970; None: it had none.
        """
        self._readings += readings
        self._batches_ms.append(1000 * seconds)
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self._total_s += seconds
        if last is not None:
            self._lags_s.append(time.time() - last)

    def due(self, now: float, interval_s: float) -> bool:
        """Whether to publish now (`now` in monotonic seconds). If so, the caller publishes: the interval starts."""
        if now - self._published_at < interval_s:
            return False
        self._published_at = now
        return True

    @property
    def durations(self) -> Durations:
        """Of all batches."""
        return Durations(tuple(self._counts), self._total_s)

    def figures(self) -> dict[str, float]:
        """Readings, uptime, milliseconds per batch and lag (p50 and p99 of the last 1000 batches), memory.

        The lag is how old the last reading of a batch was when its predictions were published.
        """
        lags = {"lag_s": round(self._lags_s[-1], 3), **_quantiles("lag_s", self._lags_s)} if self._lags_s else {}
        return {
            "readings": self._readings,
            "uptime_s": round(time.monotonic() - self._begun, 1),
            **_quantiles("batch_ms", self._batches_ms or [0.0]),
            **lags,
            "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }


def _quantiles(name: str, values: Collection[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        f"{name}_p50": round(ordered[len(ordered) // 2], 3),
        f"{name}_p99": round(ordered[int(0.99 * len(ordered))], 3),
    }
