"""Readings that never came, as far as the devices' own sequence numbers show it."""

from __future__ import annotations

from collections.abc import Sequence

from edge_lstm.streaming.reading import Reading

_MOST_BEHIND = 16  # numbers; a reading further back is no late one: its device restarted or its counter wrapped


class SequenceGaps:
    """Counts the numbers that each stream has left out. Ids that are not whole numbers are ignored."""

    def __init__(self, most_streams: int) -> None:
        self.skipped = 0  # readings in all
        self.stream = ""  # the one with the latest gap
        self._most_streams = most_streams
        self._last: dict[str, int] = {}  # the highest number by stream

    def add(self, readings: Sequence[Reading]) -> None:
        """Note the readings of a batch. One that fills a gap is no longer counted as skipped."""
        last = self._last
        for reading in readings:
            if reading.sequence is None or not reading.sequence.isdecimal():
                continue
            number, stream = int(reading.sequence), reading.stream
            former = last.get(stream)
            if former is None:
                if len(last) >= self._most_streams:
                    last.clear()
                last[stream] = number
            elif number > former:
                last[stream] = number
                if number > former + 1:
                    self.skipped += number - former - 1
                    self.stream = stream
            elif number < former - _MOST_BEHIND:
                last[stream] = number
            elif number < former and self.skipped:
                self.skipped -= 1
