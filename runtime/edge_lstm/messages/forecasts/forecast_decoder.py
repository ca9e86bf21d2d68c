"""Decodes messages with forecasts. A payload is a list of points, or lists of times and values, as services give them.

[{"time": "2026-03-01T12:00:00Z", "value": 7.5}, ...]
{"time": ["2026-03-01T12:00", ...], "value": [7.5, ...]}
{"time": "2026-03-01T12:00:00Z", "values": [7.5, ...]}, one every `interval_s` seconds
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from edge_lstm.bundle.contract import Contract, KnownAhead
from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import ConfigError
from edge_lstm.messages.feature_sources import feature_source
from edge_lstm.messages.forecasts.forecast_mapping import ForecastMapping, forecast_topic_faults
from edge_lstm.messages.formats.json_path import ABSENT, Path
from edge_lstm.messages.formats.payloads import PayloadError, parse_json, shown, shown_bytes
from edge_lstm.messages.payload_times import PayloadTimes
from edge_lstm.messages.stream_names import NameRefusedError
from edge_lstm.messages.topics import TopicPattern, filters_of, name_fault
from edge_lstm.streaming.forecasts import Forecast

_MOST_POINTS = 2000  # twelve days of a value every ten minutes


class Found(NamedTuple):
    """A forecast in a message."""

    quantity: str
    stream: str | None  # None: for all streams
    forecast: Forecast


class ForecastDecoder:
    """Decodes the forecasts of one bundle."""

    def __init__(self, contract: Contract, mappings: Mapping[str, ForecastMapping]) -> None:
        """`mappings`: by quantity; one without a mapping has the default of each key.

        Raises ConfigError with every fault if they do not fit the contract.
        """
        known = [one.name for one in contract.known_ahead]
        patterns = {one.name: _mapping(mappings, one).topic or one.topic for one in contract.known_ahead}
        faults = [
            f"forecasts.{name}: the bundle takes no forecast of it; {suggestion(name, known)}"
            if known
            else f"forecasts.{name}: expected none, since the bundle takes no forecasts"
            for name in mappings
            if name not in known
        ]
        for name, pattern in patterns.items():
            faults += [f"forecasts.{name}.topic: {fault}" for _, fault in forecast_topic_faults(pattern)]
        if faults:
            raise ConfigError(
                "the forecasts do not fit the bundle:\n  " + "\n  ".join(faults), "correct the service config"
            )
        self.topic_filters = filters_of(patterns.values())
        self.max_bytes = max(_mapping(mappings, one).max_bytes for one in contract.known_ahead)
        self._patterns = [(one, TopicPattern(patterns[one.name])) for one in contract.known_ahead]
        self._readers = {one.name: _Reader(contract, one, _mapping(mappings, one)) for one in contract.known_ahead}

    def is_for(self, topic: str) -> bool:
        """Whether messages of the topic hold forecasts."""
        return any(pattern.match(topic) is not None for _, pattern in self._patterns)

    def forecasts(self, topic: str, payload: bytes, arrival: float) -> list[Found]:
        """The forecasts in a message that came at `arrival`, in seconds since 1970; none in an empty one.

        Raises PayloadError if the message cannot be read as a whole.
        """
        if not payload:  # it clears a retained message
            return []
        found = []
        for known, pattern in self._patterns:
            parts = pattern.match(topic)
            if parts is None:
                continue
            stream = parts.get("stream")
            if stream is not None and (fault := name_fault(stream)) is not None:
                raise NameRefusedError(f"expected {fault}")
            found.append(Found(known.name, stream, self._readers[known.name].read(payload, arrival)))
        return found


class _Reader:
    """Reads the forecasts of one quantity."""

    def __init__(self, contract: Contract, known: KnownAhead, mapping: ForecastMapping) -> None:
        feature = next(one for one in contract.features if one.name in known.features)
        source = mapping.as_input(known.name)
        self._parser = feature_source(source, known.name, feature.categories, feature.unit).parser
        self._times, self._name = PayloadTimes(source), known.name
        self._points = None if mapping.points is None else Path.parse(mapping.points)
        self._time = Path.parse(mapping.time)
        candidates = [mapping.value] if mapping.value is not None else ["value", "values"]
        self._values = [Path.parse(text) for text in candidates]
        if mapping.value is None:
            self._values.append(Path.of_key(known.name))
        self._issued = None if mapping.issued is None else Path.parse(mapping.issued)
        self._interval_s = mapping.interval_s or contract.sampling.interval_s or 1.0
        self._most_bytes = mapping.max_bytes

    def read(self, payload: bytes, arrival: float) -> Forecast:
        """The forecast in a payload. Raises PayloadError if it cannot be read."""
        if len(payload) > self._most_bytes:
            expected = f"expected at most {self._most_bytes} bytes (max_bytes)"
            raise PayloadError(f"{expected}, found {len(payload)}: {shown_bytes(payload)}")
        message = parse_json(payload)
        place = message if self._points is None else self._points.find(message)
        if not isinstance(place, (list, dict)) or not place:
            where = "" if self._points is None else f' under "{self._points.text}"'
            raise PayloadError(f"expected points of a forecast{where}, found {_shown(place)}")
        pairs = list(self._listed(place) if isinstance(place, list) else self._columns(place))
        if not 0 < len(pairs) <= _MOST_POINTS:
            raise PayloadError(f"expected 1 to {_MOST_POINTS:,} points of a forecast, found {len(pairs):,}")
        points = {self._moment(time, arrival): self._parser.read(value) for time, value in pairs}
        if all(map(math.isnan, points.values())):
            raise PayloadError(f"expected a value in a forecast of {self._name}, found none in {len(points)} points")
        times = sorted(points)
        return Forecast(times, [points[time] for time in times], self._issue_time(message, arrival))

    def _listed(self, points: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """(time, value) of each of a list of points."""
        for point in points[: _MOST_POINTS + 1]:
            if not isinstance(point, dict):
                raise PayloadError(f"expected points with a time and a value, found {_shown(point)}")
            yield self._found(self._time, point), self._value_in(point)

    def _columns(self, lists: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
        """(time, value) of each point of an object: two lists, a time and a list of values, or one point."""
        times, values = self._found(self._time, lists), self._value_in(lists)
        if not isinstance(values, list):
            yield times, values
        elif isinstance(times, list):
            if len(times) != len(values):
                raise PayloadError(f"expected as many times as values, found {len(times):,} and {len(values):,}")
            yield from zip(times[: _MOST_POINTS + 1], values, strict=False)
        else:
            for index, value in enumerate(values[: _MOST_POINTS + 1]):
                yield (times, index * self._interval_s), value

    def _moment(self, time: Any, arrival: float) -> float:
        """The time of a point, seconds since 1970: as it is given, or some seconds after one."""
        given, later_s = time if isinstance(time, tuple) else (time, 0.0)
        return self._times.read(given, self._name, arrival) + float(later_s)

    def _issue_time(self, message: Any, arrival: float) -> float | None:
        if self._issued is None:
            return None
        found = self._issued.find(message)
        return None if found is ABSENT or found is None else self._times.read(found, self._name, arrival)

    def _value_in(self, place: Mapping[str, Any]) -> Any:
        """A point's value, or the list of values."""
        for path in self._values:
            if (found := path.find(place)) is not ABSENT:
                return found
        names = " or ".join(f'"{path.text}"' for path in self._values)
        raise PayloadError(f"expected the value of {self._name} under {names}, found {_shown(place)}")

    def _found(self, path: Path, place: Mapping[str, Any]) -> Any:
        found = path.find(place)
        if found is ABSENT:
            raise PayloadError(f'expected the time of a point under "{path.text}", found {_shown(place)}')
        return found


def _mapping(mappings: Mapping[str, ForecastMapping], known: KnownAhead) -> ForecastMapping:
    return mappings.get(known.name, ForecastMapping())


def _shown(found: Any) -> str:
    return "none" if found is ABSENT else shown(found)
