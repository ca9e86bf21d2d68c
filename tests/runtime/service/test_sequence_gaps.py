"""Readings that never came, by sequence numbers."""

from __future__ import annotations

import pytest

from edge_lstm.service.intake.sequence_gaps import SequenceGaps
from edge_lstm.streaming.reading import Reading


def skipped(*sequences: str | None, most_streams: int = 10, streams: int = 1) -> int:
    gaps = SequenceGaps(most_streams)
    gaps.add([Reading(f"s{index % streams}", 0.0, {}, sequence) for index, sequence in enumerate(sequences)])
    return gaps.skipped


@pytest.mark.parametrize(
    ("sequences", "expected"),
    [
        (("1", "2", "3"), 0),
        (("1", "2", "7"), 4),
        (("1", "5", "3", "2", "4"), 0),  # late ones fill the gap
        (("1", "1", "2", "2"), 0),
        (("5000", "0", "1", "2"), 0),  # the device restarted
        (("254", "255", "0", "1"), 0),  # a counter of one byte
        (("255", "3", "4", "8"), 3),
        (("a1", "b7", None, "12.5"), 0),  # ids, not numbers
    ],
)
def test_numbers_that_are_left_out_are_counted(sequences: tuple[str | None, ...], expected: int) -> None:
    assert skipped(*sequences) == expected


def test_streams_count_on_their_own_and_memory_is_bounded() -> None:
    assert skipped("1", "100", "2", "101", streams=2) == 0
    gaps = SequenceGaps(100)
    for number in range(1000):
        gaps.add([Reading(f"stream-{number}", 0.0, {}, "1")])
    assert len(gaps._last) <= 100
