"""Readings that never came, as far as the devices' own sequence numbers show it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edge_lstm.streaming.reading import Reading

_MOST_BEHIND = 16  # numbers; a reading further back is no late one: its device restarted or its counter wrapped
_STEPS_A_LEAP = 4  # by one: with fewer of them the numbers count no readings, but milliseconds or several devices


class _Numbers:
    """The numbers of one stream."""

    __slots__ = ("highest", "leaps", "missing", "steps")

    def __init__(self, highest: int) -> None:
        self.highest = highest
        self.steps = self.leaps = self.missing = 0  # rises by one, rises by more, numbers left out

    @property
    def skipped(self) -> int:
        """The readings that never came: none as long as the numbers do not count readings."""
        return self.missing if self.steps >= _STEPS_A_LEAP * self.leaps else 0


class SequenceGaps:
    """Counts the numbers that each stream has left out. Ids that are not whole numbers are ignored.

    The gaps of a stream count only if at least four times as many of its numbers follow the one before directly.
    """

    def __init__(self, most_streams: int, last_number: Callable[[str], int] = lambda stream: -1) -> None:
        """`last_number`: the last number of a stream in an earlier process; negative: there is none."""
        self.stream = ""  # the one with the latest gap
        self._most_streams, self._last_number = most_streams, last_number
        self._streams: dict[str, _Numbers] = {}
        self._of_forgotten = 0

    @property
    def skipped(self) -> int:
        """Readings of all streams that never came."""
        return self._of_forgotten + sum(numbers.skipped for numbers in self._streams.values())

    @property
    def counts(self) -> dict[str, int]:
        """`skipped`, by its name in the stats."""
        return {"skipped": self.skipped}

    def add(self, readings: Sequence[Reading]) -> None:
        """Note the readings of a batch. One that fills a gap is no longer counted as skipped."""
        for reading in readings:
            if reading.sequence is None or not reading.sequence.isdecimal():
                continue
            number = int(reading.sequence)
            numbers = self._streams.get(reading.stream) or self._begin(reading.stream, number)
            rise = number - numbers.highest
            if rise == 1:
                numbers.steps += 1
            elif rise > 1:
                numbers.leaps += 1
                numbers.missing += rise - 1
                self.stream = reading.stream
            elif -_MOST_BEHIND <= rise < 0:
                numbers.missing = max(numbers.missing - 1, 0)
            if rise > 0 or rise < -_MOST_BEHIND:
                numbers.highest = number

    def _begin(self, stream: str, number: int) -> _Numbers:
        if len(self._streams) >= self._most_streams:
            self._of_forgotten = self.skipped
            self._streams.clear()
        last = self._last_number(stream)
        self._streams[stream] = numbers = _Numbers(number if last < 0 else last)
        return numbers
