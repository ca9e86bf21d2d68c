"""Times of devices and spreadsheets: the forms that are read, the units of numbers, and what is refused."""

from __future__ import annotations

import locale
from datetime import timezone
from zoneinfo import ZoneInfo

import pytest

from edge_lstm.foundation.times.formats import format_fault
from edge_lstm.foundation.times.text import format_time, parse_time, time_parser
from edge_lstm.foundation.times.units import likely_units

BERLIN = ZoneInfo("Europe/Berlin")
NOW = 1_793_000_000.0  # October 2026


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("20240301T001000Z", "2024-03-01T00:10:00Z"),
        ("20240301T0010", "2024-03-01T00:10:00Z"),
        ("20240301T011000.250+01", "2024-03-01T00:10:00.250Z"),
        ("202403010010", "2024-03-01T00:10:00Z"),
        ("20240301001000", "2024-03-01T00:10:00Z"),
        (20240301001000, "2024-03-01T00:10:00Z"),  # a number of 2611, if it were milliseconds
        ("20240301001000123", "2024-03-01T00:10:00.123Z"),
        ("2024-02-28T24:00:00Z", "2024-02-29T00:00:00Z"),
        ("2024-12-31 24:00", "2025-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),  # a leap second
        ("2024-03-01T00:10:00+01:00[Europe/Berlin]", "2024-02-29T23:10:00Z"),
        ("2024-03-01 00:10:00 GMT", "2024-03-01T00:10:00Z"),
        (1711848600123, "2024-03-31T01:30:00.123Z"),
        ("1711848600", "2024-03-31T01:30:00Z"),
        (202413010010, "1976-05-31T17:50:10.010Z"),  # there is no month 13: milliseconds
    ],
)
def test_compact_and_basic_times_are_read(text: object, time: str) -> None:
    assert format_time(parse_time(text)) == time


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("2024-03-01 00:00:00 CET", r"expected an offset like \+01:00 instead of CET, or time_format = .* timezone"),
        ("2024-03-01 24:30", "expected no time after 24:00"),
        ("2024-02-30", "day is out of range for month"),
        ("1.3.2024", "expected ISO 8601"),
        (True, "True is not a time"),
        (float("nan"), "nan is not a time"),
    ],
)
def test_a_text_that_is_no_time_is_refused_with_the_reason(value: object, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        parse_time(value)


@pytest.mark.parametrize(
    ("form", "text", "time"),
    [
        ("%Y/%m/%d %H:%M", "2024/3/1 0:00", "2024-02-29T23:00:00Z"),
        ("%d-%b-%Y %H:%M:%S", "01-Mar-2024 00:00:00", "2024-02-29T23:00:00Z"),
        ("%d. %B %Y, %H:%M", "1. march 2024, 7:05", "2024-03-01T06:05:00Z"),
        ("%b %d %Y %I:%M%p", "Sept 01 2024 12:30am", "2024-08-31T22:30:00Z"),
        ("%a %b %d %H:%M:%S %Y", "Fri Mar  1 12:00:00 2024", "2024-03-01T11:00:00Z"),
        ("%Y%m%d %H", "20240301 24", "2024-03-01T23:00:00Z"),
        ("%Y %j %H", "2024 366 5", "2024-12-31T04:00:00Z"),
        ("%d.%m.%y %H:%M:%S.%f", "01.03.24 01:00:00.1234567", "2024-03-01T00:00:00.123Z"),
        ("%Y%m%d%H%M%S", 20240301001000.0, "2024-02-29T23:10:00Z"),
        ("%Y-%m-%d %H:%M %z", "2024-03-01 00:00 -0530", "2024-03-01T05:30:00Z"),
        ("%Y-%m-%d %H:%M %Z", "2024-10-27 02:30 CEST", "2024-10-27T00:30:00Z"),
        ("%Y-%m-%d %H:%M %Z", "2024-10-27 02:30 CET", "2024-10-27T01:30:00Z"),  # the second of the two
        ("%Y-%m-%d %H:%M %Z", "2024-10-27 02:30 UTC", "2024-10-27T02:30:00Z"),
        ("%Y-%m-%d %H:%M %Z", "2024-07-01 02:30 America/New_York", "2024-07-01T06:30:00Z"),
        ("%Y-W%W-%w", "2024-W09-5", "2024-02-29T23:00:00Z"),  # codes for strptime alone
    ],
)
def test_a_format_reads_texts_in_its_zone(form: str, text: object, time: str) -> None:
    assert format_time(time_parser(form, None, BERLIN)(text)) == time


def test_month_names_are_english_on_a_german_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        locale.setlocale(locale.LC_TIME, "de_DE.UTF-8")
    except locale.Error:
        pytest.skip("the locale de_DE.UTF-8 is not installed here")
    try:
        assert format_time(time_parser("%d-%b-%Y")("05-May-2024")) == "2024-05-05T00:00:00Z"
    finally:
        locale.setlocale(locale.LC_TIME, "C")


@pytest.mark.parametrize(
    ("form", "text", "found"),
    [
        ("%d.%m.%Y", "31.13.2024", 'expected one like "%d.%m.%Y"'),
        ("%d.%m.%Y", None, "'' is not a time"),
        ("%Y %j", "2023 366", "expected a day of the year, found 366"),
        (
            "%Y-%m-%d %H:%M %Z",
            "2024-03-01 00:00 EST",
            "expected the name of a time of Europe/Berlin, which is CET then",
        ),
        ("%Y-%m-%d %Z", "2024-03-01 Europe/Atlantis", "expected a zone of this machine's zone database"),
    ],
)
def test_a_text_of_another_format_is_refused(form: str, text: object, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        time_parser(form, None, BERLIN)(text)


@pytest.mark.parametrize(
    ("form", "fault"),
    [
        ("%d.%m.%Y %H:%M", None),
        ("%c", None),
        ("%Y-%Q", 'expected codes like %d.%m.%Y %H:%M, found "%Q"'),
        ("%d.%m. %H:%M", 'expected a year, %Y or %y, found none in "%d.%m. %H:%M"'),
        ("%Y-%m-%d %I:%M", "expected %H, or %p (AM or PM) beside %I, found %I alone: 01:00 may be 13:00"),
        ("%Y-%m-%m", 'expected each code once, found "%m" twice'),
    ],
)
def test_a_format_without_a_full_date_is_refused(form: str, fault: str | None) -> None:
    assert format_fault(form) == fault


@pytest.mark.parametrize(
    ("unit", "start", "value", "time"),
    [
        ("s", None, "1709251200.5", "2024-03-01T00:00:00.500Z"),
        ("ms", None, 120_000, "1970-01-01T00:02:00Z"),
        ("ms", 1_709_251_200.0, 120_000, "2024-03-01T00:02:00Z"),  # since the start of the device
        ("min", 1_709_251_200.0, "90", "2024-03-01T01:30:00Z"),
        ("h", 1_709_251_200.0, 1.5, "2024-03-01T01:30:00Z"),
        ("days", None, "45352.006944", "2024-02-29T23:10:00Z"),  # the last digit is a twelfth of a second
        ("days", None, "45352.0069", "2024-02-29T23:10:00Z"),
        ("days", None, 45352.00001157407, "2024-02-29T23:00:01Z"),
        ("days", None, "45474.5", "2024-07-01T10:00:00Z"),  # clocks on the wall are set in spring
        ("days", 1_709_251_200.0, 0.5, "2024-03-01T12:00:00Z"),
        ("days-1904", None, "43890.006944", "2024-02-29T23:10:00Z"),
        ("days-matlab", None, 739_312, "2024-02-29T23:00:00Z"),
        ("days-julian", None, "2460371.0", "2024-03-01T11:00:00Z"),
    ],
)
def test_a_number_in_a_unit_is_a_time(unit: str, start: float | None, value: object, time: str) -> None:
    assert format_time(time_parser(None, unit, BERLIN, start)(value)) == time


@pytest.mark.parametrize("value", ["soon", "", None, True, "nan", "1e300", [1]])
def test_what_is_no_number_in_a_unit_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        time_parser(None, "days", timezone.utc)(value)


def test_an_unknown_unit_or_format_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"expected a unit of s, ms, .*, found weeks"):
        time_parser(None, "weeks")
    with pytest.raises(ValueError, match="expected a year"):
        time_parser("%d.%m.")


@pytest.mark.parametrize(
    ("number", "units"),
    [
        (1_709_251_200, ["s"]),
        (1_709_251_200_000, ["ms"]),
        (45_352.25, ["days"]),
        (43_890.25, ["days", "days-1904"]),  # four years apart
        (739_312.5, ["days-matlab"]),
        (3600, []),  # since the start of something
    ],
)
def test_the_units_that_give_a_time_of_this_century_are_named(number: float, units: list[str]) -> None:
    found = [unit for unit, _ in likely_units(number, NOW)]
    assert [unit for unit in found if unit not in ("min", "h")] == units
