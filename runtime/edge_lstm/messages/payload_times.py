"""Times of readings, as an input mapping says that they are written; a time that no set clock shows is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timezone, tzinfo

from edge_lstm.foundation.times.text import CLOCK_UNSET_BEFORE, format_time, parse_time, time_parser
from edge_lstm.foundation.times.units import YEAR_2000, likely_units, unit_meaning
from edge_lstm.messages.formats.payloads import PayloadError, shown
from edge_lstm.messages.local_times import LocalTimes
from edge_lstm.messages.mapping import InputMapping

# A clock that was never set begins in 1970, or in 1980 with GPS and FAT. A mapping that says how times are written may
# mean the years after that; where it does not, a number that is read as one is more likely to count something else.
_YEAR_1981 = 347_155_200.0
_YEAR_2100 = 4_102_444_800.0
_LONGEST_UPTIME_S = 40 * 365 * 86_400.0
_HINT = ', or a text in the format that the key time_format gives, like "%d.%m.%Y %H:%M:%S"'
_KEYS = ("time_format", "timezone")

ToTime = Callable[[object, tzinfo], float]


class PayloadTimes:
    """Reads the times in the messages of one mapping."""

    def __init__(self, mapping: InputMapping) -> None:
        self.zone = mapping.zone()
        self.to_time = _to_time(mapping)
        self._name, self._unit = mapping.time, mapping.time_unit
        self._or_arrival = mapping.time_from == "payload-or-arrival"
        self._declared = mapping.time_format is not None or mapping.time_unit is not None
        self._least = _YEAR_1981 if self._declared and not self._or_arrival else YEAR_2000
        self._local = None if self.zone is timezone.utc else LocalTimes(self.zone, self.to_time)

    @property
    def is_local(self) -> bool:
        """Whether a time without a zone is a local one."""
        return self._local is not None

    @property
    def certain(self) -> tuple[float, float]:
        """Times from, until: what `to_time` gives between these is right as it is."""
        if self._local is None:
            return self._least, _YEAR_2100
        low, high = self._local.unchanged
        return max(self._least, low), min(_YEAR_2100, high)

    def read(self, found: object, stream: str, arrival: float) -> float:
        """The time of a stream's reading in seconds since 1970; `arrival` where the mapping takes that instead.

        Raises PayloadError if it is not a time, or no time of a clock that is set, while our own clock is set.
        """
        try:
            seconds = self.to_time(found, self.zone)
            if not self._least <= seconds < _YEAR_2100:
                our_clock_is_set = arrival > CLOCK_UNSET_BEFORE
                if self._or_arrival and (our_clock_is_set or seconds < self._least):
                    return arrival
                if our_clock_is_set:
                    raise PayloadError(f'"{self._name}": {self._unlikely(found, seconds, arrival)}')
            return seconds if self._local is None else self._local.read(found, seconds, stream, arrival)
        except PayloadError:
            raise
        except ValueError as error:
            known = self._declared or not isinstance(found, str) or any(key in str(error) for key in _KEYS)
            raise PayloadError(f'"{self._name}": {error}{"" if known else _HINT}') from None

    def _unlikely(self, found: object, seconds: float, arrival: float) -> str:
        """Why such a time is refused, with all that it may mean."""
        year = 2000 if self._least == YEAR_2000 else 1981
        expected = f"expected a time from {year} to 2100, found {shown(found)}"
        number = _number(found)
        if number is None:
            return f"{expected}: the device's clock is not set ({_instead_of_an_unset_clock(number, self._name)})"
        readings = [f"as read now it is {format_time(seconds)}"]
        readings += [
            f'as {unit_meaning(unit)} {format_time(moment)} (time_unit = "{unit}")'
            for unit, moment in likely_units(number, arrival)
            if unit != self._unit
        ]
        return f"{expected}: {'; '.join(readings)}; {_instead_of_an_unset_clock(number, self._name)}"


def _instead_of_an_unset_clock(number: float | None, name: str) -> str:
    if number is None or not 0 <= number < _LONGEST_UPTIME_S * 1e3:
        return 'time_from = "arrival" or "payload-or-arrival" takes the time of arrival'
    return (
        f"if it counts from the device's start ({_duration(number / 1e3)} as milliseconds), set "
        f'time_from = "arrival" and sequence = "{name}"'
    )


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _number(found: object) -> float | None:
    try:
        return float(found) if isinstance(found, (int, float, str)) else None
    except (ValueError, OverflowError):
        return None


def _to_time(mapping: InputMapping) -> ToTime:
    """Values to seconds since 1970, as the mapping says that times are written."""
    formats = mapping.time_formats
    if not formats and mapping.time_unit is None:
        return parse_time
    return _Parsers(formats, mapping.time_unit)


class _Parsers:
    """Reads times in the first of several formats that fits, or in a unit; the parsers of each zone are kept."""

    def __init__(self, formats: Sequence[str], unit: str | None) -> None:
        self._formats, self._unit = formats, unit
        self._by_zone: dict[tzinfo, list[Callable[[object], float]]] = {}

    def __call__(self, value: object, zone: tzinfo) -> float:
        parsers = self._by_zone.get(zone)
        if parsers is None:
            parsers = [time_parser(form, None, zone) for form in self._formats] or [time_parser(None, self._unit, zone)]
            self._by_zone[zone] = parsers
        faults = []
        for parse in parsers:
            try:
                return parse(value)
            except ValueError as error:
                faults.append(error)
        if len(faults) == 1:
            raise faults[0]
        forms = " or ".join(f'"{form}"' for form in self._formats)
        raise ValueError(f"{shown(value)} is not a time: expected one like {forms}")
