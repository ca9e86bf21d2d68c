"""Time zones: when clocks are set, which time does not exist then, and which of two equal local times one is."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from edge_lstm.foundation.times.text import local_time_parser, parse_time
from edge_lstm.foundation.times.zones import Change, changes, require_existing, zone_named

BERLIN = ZoneInfo("Europe/Berlin")
AUTUMN = parse_time("2024-10-27T01:00:00Z")  # clocks go from 03:00 to 02:00


def test_a_zone_is_named_by_its_place_or_its_offset() -> None:
    assert zone_named("UTC") is timezone.utc
    assert zone_named("Europe/Berlin") == BERLIN
    for text in ("+05:30", "UTC+5:30", "GMT+0530"):
        assert zone_named(text) == timezone(timedelta(hours=5, minutes=30))
    assert zone_named(str(zone_named("-03:00"))) == timezone(timedelta(hours=-3))
    with pytest.raises(ValueError, match='found "Mars/North"'):
        zone_named("Mars/North")


def test_the_changes_of_a_zone_are_exact() -> None:
    spring = parse_time("2024-03-31T01:00:00Z")
    assert changes(BERLIN, [2024]) == [Change(spring, 3600.0, 7200.0), Change(AUTUMN, 7200.0, 3600.0)]
    assert changes(zone_named("+01:00"), [2024]) == []
    assert len(changes(ZoneInfo("Africa/Casablanca"), [2023, 2024])) == 4  # Ramadan takes one hour away
    assert changes(ZoneInfo("Asia/Tokyo"), [1, 2024, 9999]) == []


def test_a_time_that_clocks_skip_is_refused_with_both_ends() -> None:
    expected = "02:30:00 does not exist in Europe/Berlin, where clocks were set from 02:00 to 03:00"
    with pytest.raises(ValueError, match=expected):
        require_existing(datetime(2024, 3, 31, 2, 30), BERLIN)
    for local in (datetime(2024, 3, 31, 3, 0), datetime(2024, 3, 31, 1, 59), datetime(2024, 10, 27, 2, 30)):
        require_existing(local, BERLIN)


@pytest.mark.parametrize(
    ("form", "unit", "value", "local"),
    [
        (None, None, "2024-03-01T02:30:00", datetime(2024, 3, 1, 2, 30)),
        (None, None, "20240301T0230", datetime(2024, 3, 1, 2, 30)),
        (None, None, 202403010230, datetime(2024, 3, 1, 2, 30)),
        (None, None, "2024-03-01T02:30:00+01:00", None),
        (None, None, 1709251200, None),
        ("%d.%m.%Y %H:%M", None, "01.03.2024 02:30", datetime(2024, 3, 1, 2, 30)),
        ("%d.%m.%Y %H:%M %Z", None, "01.03.2024 02:30 CET", None),
        (None, "days", "45352.25", datetime(2024, 3, 1, 6)),
        (None, "s", "1709251200", None),
    ],
)
def test_only_a_time_without_a_zone_is_local(
    form: str | None, unit: str | None, value: object, local: datetime | None
) -> None:
    assert local_time_parser(form, unit, BERLIN)(value) == local
