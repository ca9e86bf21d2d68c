"""The statistics of a service: readings, latencies and memory."""

from __future__ import annotations

import resource
import time
from collections import deque

_MOST_BATCHES = 1000  # whose times are kept


class ServiceStats:
    """Collects what a service measures of itself, and when it was last published."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._published_at = -float("inf")
        self._readings = 0
        self._batches_ms: deque[float] = deque(maxlen=_MOST_BATCHES)

    def processed(self, readings: int, seconds: float) -> None:
        """A batch of `readings` took `seconds` from decoding to publishing."""
        self._readings += readings
        self._batches_ms.append(1000 * seconds)

    def due(self, now: float, interval_s: float) -> bool:
        """Whether to publish now (`now` in monotonic seconds). If so, the caller publishes: the interval starts."""
        if now - self._published_at < interval_s:
            return False
        self._published_at = now
        return True

    def figures(self) -> dict[str, float]:
        """Readings, uptime, milliseconds per batch (p50 and p99 of the last 1000), memory."""
        ordered = sorted(self._batches_ms) or [0.0]
        return {
            "readings": self._readings,
            "uptime_s": round(time.monotonic() - self._begun, 1),
            "batch_ms_p50": round(ordered[len(ordered) // 2], 3),
            "batch_ms_p99": round(ordered[int(0.99 * len(ordered))], 3),
            "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }
