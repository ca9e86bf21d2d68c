"""Local times in payloads: the order of readings tells a repeated hour apart, and a missing one is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from edge_lstm.foundation.times.text import format_time, parse_time
from edge_lstm.messages.decoder import Decoder, PayloadError
from edge_lstm.messages.mapping import InputMapping

FIRST, SECOND = parse_time("2024-10-27T00:00:00Z"), parse_time("2024-10-27T01:00:00Z")  # 02:00 in Berlin, twice
LATER = SECOND + 86_400.0  # when a backlog arrives


def berlin() -> Decoder:
    return Decoder(InputMapping(timezone="Europe/Berlin"), ["level"])


def payload(clock: str, day: str = "2024-10-27") -> bytes:
    return json.dumps({"time": f"{day}T{clock}", "level": 1}).encode()


def decoded(decoder: Decoder, clock: str, arrival: float, stream: str = "a") -> str:
    (reading,) = decoder.readings(f"sensors/{stream}", payload(clock), {}, arrival)
    return format_time(reading.time)[11:19]


def every(minutes: int) -> Sequence[str]:
    """What a clock in Berlin shows from 01:00 to 04:00, with the hour that comes twice."""
    clock = [hour * 60 + minute for hour in (1, 2, 2, 3) for minute in range(0, 60, minutes)]
    return [f"{minute // 60:02d}:{minute % 60:02d}:00" for minute in clock]


@pytest.mark.parametrize("minutes", [1, 15, 20, 30])
def test_a_backlog_of_local_times_rises_through_the_repeated_hour(minutes: int) -> None:
    decoder = berlin()
    expected = [format_time(FIRST - 3600 + 60 * minutes * place)[11:19] for place in range(240 // minutes)]
    assert [decoded(decoder, clock, LATER) for clock in every(minutes)] == expected


@pytest.mark.parametrize("minutes", [1, 20, 30, 60])
def test_live_readings_are_told_apart_by_the_arrival(minutes: int) -> None:
    decoder, start = berlin(), FIRST - 3600
    times = [start + 60 * minutes * place for place in range(240 // minutes)]
    found = [decoded(decoder, clock, time + 1.5) for clock, time in zip(every(minutes), times, strict=True)]
    assert found == [format_time(time)[11:19] for time in times]


def test_each_stream_has_its_own_order_and_a_restart_uses_the_arrival() -> None:
    decoder = berlin()
    assert decoded(decoder, "02:50:00", LATER, "a") == "00:50:00"
    assert decoded(decoder, "02:40:00", LATER, "b") == "00:40:00"
    assert decoded(decoder, "02:05:00", LATER, "a") == "01:05:00"
    assert decoded(decoder, "02:45:00", LATER, "b") == "00:45:00"
    assert decoded(berlin(), "02:05:00", SECOND + 302.0) == "01:05:00"
    assert decoded(berlin(), "02:05:00", FIRST + 302.0) == "00:05:00"


def test_a_repeated_or_late_message_stays_in_the_first_hour() -> None:
    decoder = berlin()
    for clock in ("02:30:00", "02:30:00", "02:29:00"):
        assert decoded(decoder, clock, LATER) == f"00:{clock[3:]}"
    live = berlin()
    assert decoded(live, "02:59:00", SECOND - 59.0) == "00:59:00"
    assert decoded(live, "02:01:00", SECOND - 58.0) == "00:01:00"  # the second 02:01 is still to come


def test_times_with_a_zone_of_their_own_are_left_alone() -> None:
    decoder = berlin()
    for clock, shown in (("02:30:00+02:00", "00:30:00"), ("02:05:00+02:00", "00:05:00"), ("01:30:00Z", "01:30:00")):
        assert decoded(decoder, clock, LATER) == shown
    (reading,) = decoder.readings("sensors/a", b'{"time": %d, "level": 1}' % FIRST, {}, LATER)
    assert reading.time == FIRST


def test_the_hour_that_a_zone_leaves_out_says_that_the_zone_does_not_fit() -> None:
    with pytest.raises(
        PayloadError, match=r"does not exist in Europe/Berlin.*: set timezone to the zone of the device"
    ):
        berlin().readings("sensors/a", payload("02:30:00", "2024-03-31"), {}, LATER)
    utc = Decoder(InputMapping(), ["level"])
    assert utc.readings("sensors/a", payload("02:30:00", "2024-03-31"), {}, LATER)


def test_far_from_a_change_of_the_clocks_local_times_go_the_short_way() -> None:
    decoder, long_way = berlin(), []
    decode = decoder._decode
    decoder._decode = lambda *message: long_way.append(message) or decode(*message)  # type: ignore[method-assign,func-returns-value]
    for day in ("2024-07-01", "2024-07-02", "2024-07-03", "2024-10-27", "2024-07-04"):
        (reading,) = decoder.readings("sensors/a", payload("12:00:00", day), {}, LATER)
        assert format_time(reading.time)[11:13] == ("11" if day == "2024-10-27" else "10")
    assert len(long_way) == 2  # the first, and the one on the day of the change


def test_the_memory_for_streams_near_a_change_is_bounded() -> None:
    decoder = berlin()
    for number in range(12_000):
        decoder.readings(f"sensors/{number}", payload("02:30:00"), {}, LATER)
    local = decoder._times._local
    assert local is not None
    assert len(local._last) == 10_000
