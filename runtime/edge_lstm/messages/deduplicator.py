"""Drops predictions that a subscriber has received before, or that a correction has replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_lstm.foundation.arguments import whole_number
from edge_lstm.foundation.times.text import parse_time
from edge_lstm.streaming.reading import Prediction

_MOST_REWIND = 1_000_000  # samples, as of a predictor


class Deduplicator:
    """Tells a subscriber which predictions to use: each one once, and never one that a correction has replaced.

    A service that is killed sends its last predictions again, also after newer ones, with the same bytes. For each
    stream this keeps the revision and the steps of the times of the last `2 * max_rewind + 2` steps. A service corrects
    no older predictions, so an older step is a repeat.
    """

    def __init__(self, max_rewind: int = 8, most_streams: int = 100_000) -> None:
        """`max_rewind`: as in the config of the service, or more. `most_streams`: beyond it, this forgets the streams
        that had no prediction for the longest time.

        Raises EdgeLstmError if one of them is not a whole number of at least 0 or 1.
        """
        max_rewind = whole_number(max_rewind, "max_rewind", 0, _MOST_REWIND, hint="take that of the service")
        self._most_streams = whole_number(most_streams, "most_streams", 1, 10**9, hint="choose how many to remember")
        self._kept = 2 * max_rewind + 2  # steps of a stream
        self._streams: dict[str, _Stream] = {}  # the one with the latest prediction is the last

    def is_new(self, prediction: Prediction | Mapping[str, Any]) -> bool:
        """Whether to use this prediction: a `Prediction`, or the published JSON object (nested or flat) as a dict.

        Raises KeyError or ValueError if it is not a prediction.
        """
        if isinstance(prediction, Prediction):
            stream, time, step, revision = prediction.stream, prediction.time, prediction.step, prediction.revision
        else:
            stream, time = prediction["stream"], parse_time(prediction["time"])
            step, revision = int(prediction["step"]), int(prediction["revision"])
        known = self._streams.pop(stream, None) or _Stream()
        self._streams[stream] = known
        if len(self._streams) > self._most_streams:
            del self._streams[next(iter(self._streams))]
        return known.take(time, step, revision, self._kept)


class _Stream:
    """What is kept of one stream."""

    __slots__ = ("newest_step", "newest_time", "times")

    def __init__(self) -> None:
        self.newest_step, self.newest_time = 0, -float("inf")
        self.times: dict[float, tuple[int, set[int]]] = {}  # time -> highest revision, steps that had it

    def take(self, time: float, step: int, revision: int, kept: int) -> bool:
        """Whether a prediction is new; if so, it is kept."""
        # Steps rise even where a clock is set back. Times rise even where a service without its state counts from 1.
        is_next = step > self.newest_step or time > self.newest_time
        steps: set[int] = set()
        if time in self.times:
            highest, same = self.times[time]
            if revision < highest or (revision == highest and step in same):
                return False
            if revision == highest:  # readings of one time with sequences of their own
                steps = same
        elif not is_next and step <= self.newest_step - kept:
            return False
        if is_next:
            self.newest_step, self.newest_time = step, time
        self.times.pop(time, None)
        self.times[time] = revision, steps | {step}
        # late readings come with the steps of those that they are before, so more times may be among the last steps;
        # beyond twice as many, the service has begun to count again
        while len(self.times) > 2 * kept or max(next(iter(self.times.values()))[1]) <= self.newest_step - kept:
            del self.times[next(iter(self.times))]
        return True
