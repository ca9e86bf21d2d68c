"""Readings that never came, by sequence numbers."""

from __future__ import annotations

import pytest

from edge_lstm.service.intake.sequence_gaps import SequenceGaps
from edge_lstm.streaming.reading import Reading


def skipped(*sequences: str, most_streams: int = 10, streams: int = 1) -> int:
    gaps = SequenceGaps(most_streams)
    gaps.add([Reading(f"s{index % streams}", 0.0, {}, sequence) for index, sequence in enumerate(sequences)])
    return gaps.skipped


def rising(begin: int, count: int) -> list[str]:
    return [str(begin + number) for number in range(count)]


@pytest.mark.parametrize(
    ("sequences", "expected"),
    [
        (rising(1, 9), 0),
        ([*rising(1, 3), "7", *rising(8, 2)], 3),  # 4, 5 and 6
        ([*rising(1, 2), "5", "3", "4", *rising(6, 5)], 0),  # late ones fill the gap
        (["1", "1", "2", "2"], 0),
        (["5000", *rising(0, 9)], 0),  # the device restarted
        (["254", "255", "0", "1"], 0),  # a counter of one byte
        (["255", *rising(3, 5), "12", *rising(13, 4)], 4),
        (["a1", "b7", "12.5"], 0),  # ids, not numbers
        ([str(60_013 * number) for number in range(50)], 0),  # milliseconds since the start of the device
        ([str(2 * number) for number in range(50)], 0),  # of a counter for two devices
    ],
)
def test_numbers_that_are_left_out_are_counted(sequences: list[str], expected: int) -> None:
    assert skipped(*sequences) == expected


def test_a_gap_after_the_last_number_of_an_earlier_process_is_counted() -> None:
    gaps = SequenceGaps(10, {"a": 19}.__getitem__)
    gaps.add([Reading("a", 0.0, {}, number) for number in ("18", "19", *rising(50, 5))])
    assert (gaps.skipped, gaps.stream) == (30, "a")


def test_streams_count_on_their_own_and_memory_is_bounded() -> None:
    assert skipped("1", "100", "2", "101", streams=2) == 0
    gaps = SequenceGaps(100)
    for number in range(1000):
        gaps.add([Reading(f"stream-{number}", 0.0, {}, one) for one in [*rising(1, 4), "6"]])
    assert len(gaps._streams) <= 100
    assert gaps.skipped == 0
    for number in range(300):
        gaps.add([Reading(f"pump-{number}", 0.0, {}, one) for one in [*rising(1, 5), "7"]])
    assert gaps.skipped == 300
