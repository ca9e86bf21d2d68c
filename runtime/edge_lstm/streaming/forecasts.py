"""Forecasts of one quantity, and the readings that get their values. No input or output of its own.

A forecast is a list of points, each with a time and a value. It says nothing about times before its first point or
after its last one.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edge_lstm.bundle.contract import Contract, KnownAhead, Sampling
from edge_lstm.streaming.reading import Reading


class Forecast(NamedTuple):
    """Values of one quantity at later times."""

    times: Sequence[float]  # seconds since 1970, ascending
    values: Sequence[float]  # NaN where missing
    issued: float | None = None  # when it was made, seconds since 1970; None: it does not say so
    identity: str = ""  # of its message within a session


def value_at(forecast: Forecast, time: float, known: KnownAhead, period: float | None = None) -> float:
    """The value at `time` (seconds since 1970), NaN where the forecast says nothing.

    `period`: of a quantity on a circle, where the line between two points goes the shorter way.
    """
    times, values = forecast.times, forecast.values
    after = bisect_right(times, time)
    if not after:
        return math.nan
    begin, value = times[after - 1], values[after - 1]
    if time == begin:
        return value
    if known.between == "previous":
        return value if after < len(times) or _holds_on(times, time) else math.nan
    if after == len(times):
        return math.nan
    share = (time - begin) / (times[after] - begin)
    if period is None:
        return value + share * (values[after] - value)
    return (value + share * ((values[after] - value + period / 2) % period - period / 2)) % period


def _holds_on(times: Sequence[float], time: float) -> bool:
    """Whether the last value still holds: for as long as the one before it did, a single one without end."""
    return len(times) == 1 or time < 2 * times[-1] - times[-2]


def newest_at(forecasts: Sequence[Forecast], time: float) -> Forecast | None:
    """The newest forecast (they are in order) that was known at `time`; the oldest one if none was.

    One that does not say when it was made counts as known.
    """
    for forecast in reversed(forecasts):
        if forecast.issued is None or forecast.issued <= time:
            return forecast
    return forecasts[0] if forecasts else None


def sample_time(sampling: Sampling, time: float) -> float:
    """The time of the sample that a reading of that time goes into: on a grid, the end of its interval."""
    if not sampling.grid:
        return time
    assert sampling.interval_s is not None  # checked by Sampling.faults
    return (math.floor(time / sampling.interval_s) + 1) * sampling.interval_s


class ForecastFeatures:
    """The features of a contract that are known ahead."""

    def __init__(self, contract: Contract) -> None:
        assert contract.sampling.interval_s is not None  # checked by Contract.faults
        self._sampling, interval_s = contract.sampling, contract.sampling.interval_s
        periods = {feature.name: feature.period for feature in contract.features}
        # of each quantity: the name, seconds after the sample and period of each feature
        self._features = [
            (known, [(name, step * interval_s, periods[name]) for name, step in known.features.items()])
            for known in contract.known_ahead
        ]

    def filled(self, reading: Reading, forecasts: Mapping[str, Sequence[Forecast]]) -> Reading:
        """The reading with the values of the newest forecasts that were known at its time; missing ones are left out.

        `forecasts`: those of its stream, in order, by quantity. In a partial reading, a missing value is NaN: it does
        not come later.
        """
        values = dict(reading.values)
        time = sample_time(self._sampling, reading.time)
        for known, features in self._features:
            forecast = newest_at(forecasts.get(known.name, ()), reading.time)
            for name, ahead_s, period in features:
                value = math.nan if forecast is None else value_at(forecast, time + ahead_s, known, period)
                if reading.partial or not math.isnan(value):
                    values[name] = value
        return reading._replace(values=values)
