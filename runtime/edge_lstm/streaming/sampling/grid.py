"""Readings to one sample an interval; the first reading after an interval closes it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.angles import position, sine_and_cosine
from edge_lstm.streaming.sampling.counters import Counters, counter_columns
from edge_lstm.streaming.sampling.joining import ABSENT
from edge_lstm.streaming.stream_table import StreamTable

_OPPOSED = 1e-9  # length of a mean direction that is none: readings from all sides cancel


class Taken(NamedTuple):
    """The result of a reading."""

    samples: list[tuple[float, list[float]]]  # (time, values) of the intervals that it closes, oldest first
    fate: str = ""  # "duplicate" or "late": it was dropped


class Grid:
    """Turns readings into one sample an interval, with missing values for an interval without readings.

    The first reading after an interval closes it. No clock is read, so a recording and the service give the same
    samples. A sample has the time of its interval's end. A value that is not newer than the newest one of its feature
    is dropped: it could be in the interval's sum already. After a silence longer than `max_gap_s` the intervals between
    get no samples, and the state restarts.
    """

    def __init__(self, contract: Contract, table: StreamTable) -> None:
        assert contract.sampling.interval_s is not None  # checked by Sampling.faults
        assert contract.sampling.max_gap_s is not None
        self._interval_s = contract.sampling.interval_s
        self._max_gap_s = contract.sampling.max_gap_s
        self._aggregates = ["sum" if feature.counter else feature.aggregate for feature in contract.features]
        circles = [index for index, feature in enumerate(contract.features) if feature.period is not None]
        self._circles = {
            column: (place, float(contract.features[column].period or 0.0))
            for place, column in enumerate(circles)
            if self._aggregates[column] == "mean"
        }
        self._counted, self._counters = counter_columns(contract), Counters.of(contract)
        self._categorical = [bool(feature.categories) for feature in contract.features]
        self._table = table

    def newest(self, slot: int) -> float:
        """The time of the stream's newest reading; NaN before the first."""
        return float(self._table.open_interval[slot]["newest"])

    def intervals(self, slot: int, time: float) -> tuple[float, int]:
        """The numbers of the stream's open interval (NaN before the first reading) and of the interval of `time`."""
        return float(self._table.open_interval[slot]["interval"]), math.floor(time / self._interval_s)

    def take(self, slot: int, time: float, values: list[float], is_new: bool = False) -> Taken:
        """Take a reading with all values. `is_new`: its sequence shows that none like it was received."""
        newest = self.newest(slot)
        if time < newest or (time == newest and not is_new):  # False for NaN, the time before the first reading
            return Taken([], "duplicate" if time == newest else "late")
        self._table.partial_times[slot] = time
        return Taken(self._fill(slot, time, values))

    def take_part(self, slot: int, time: float, values: list[float], is_new: bool = False) -> Taken:
        """Take the values (ABSENT where there is none) that are newer than the last ones of their features."""
        times, begun = self._table.partial_times[slot], float(self._table.open_interval[slot]["interval"])
        if np.isnan(times).all():  # a row of release 0.1.0, or the first reading
            times[:] = self.newest(slot)
        brought = [index for index, value in enumerate(values) if value != ABSENT]
        fresh = [index for index in brought if not time < times[index] and (is_new or time != times[index])]
        if not fresh:
            return Taken([], "duplicate" if all(times[index] == time for index in brought) else "late")
        if math.floor(time / self._interval_s) < begun:
            return Taken([], "late")
        times[fresh] = time
        part = [value if index in fresh else math.nan for index, value in enumerate(values)]
        return Taken(self._fill(slot, time, self._with_waiting(slot, part)))

    def _with_waiting(self, slot: int, part: list[float]) -> list[float]:
        """The part with the values that release 0.1.0 kept until their sample was complete."""
        waiting = self._table.partial_values[slot]
        if np.isnan(waiting).all():
            return part
        whole = [
            kept if math.isnan(value) and math.isfinite(kept) else value
            for value, kept in zip(part, waiting.tolist(), strict=True)
        ]
        waiting[:] = math.nan
        return whole

    def _fill(self, slot: int, time: float, values: list[float]) -> list[tuple[float, list[float]]]:
        """Add the values to the interval of this time, and close those before it."""
        open_interval = self._table.open_interval[slot]
        number = math.floor(time / self._interval_s)
        begun = float(open_interval["interval"])
        closed: list[tuple[float, list[float]]] = []
        if self._counters:
            gap = math.isnan(begun) or (number - begun) * self._interval_s > self._max_gap_s
            values = self._increases(open_interval, values, gap)
        if not math.isnan(begun) and number > begun:
            closed.append(((begun + 1) * self._interval_s, self._sample(open_interval)))
            if (number - begun) * self._interval_s <= self._max_gap_s:
                empty = [math.nan] * len(values)
                closed += [((skipped + 1) * self._interval_s, empty) for skipped in range(int(begun) + 1, number)]
        if math.isnan(begun) or number > begun:
            open_interval["interval"], open_interval["count"], open_interval["value"] = number, 0, 0.0
            if self._circles:
                open_interval["cosine"] = 0.0
        open_interval["newest"] = np.fmax(open_interval["newest"], time)
        for column, value in enumerate(values):
            if math.isfinite(value):
                self._aggregate(open_interval, column, value)
        return closed

    def open_sample(self, slot: int) -> tuple[float, list[float]]:
        """The sample (time, values) of the interval that has not ended; its time is NaN before the first reading."""
        open_interval = self._table.open_interval[slot]
        return (float(open_interval["interval"]) + 1) * self._interval_s, self._sample(open_interval)

    def _increases(self, open_interval: np.void, values: list[float], gap: bool) -> list[float]:
        """The values with the increases since the reading before in place of counters."""
        assert self._counters is not None  # the caller checks it
        columns, values = self._counted, list(values)
        readings = np.array([[values[column] for column in columns]])
        found, memory = self._counters.increases(open_interval["counted"][None], readings, np.array([gap]))
        open_interval["counted"] = memory[0]
        for column, increase in zip(columns, found[0].tolist(), strict=True):
            values[column] = increase
        return values

    def _aggregate(self, open_interval: np.void, column: int, value: float) -> None:
        if column in self._circles:
            place, period = self._circles[column]
            sine, cosine = sine_and_cosine(np.array(value % period), period)
            open_interval["value"][column] += sine
            open_interval["cosine"][place] += cosine
            open_interval["count"][column] += 1
            return
        so_far, count, how = open_interval["value"][column], open_interval["count"][column], self._aggregates[column]
        if not count or how == "last" or self._categorical[column]:
            open_interval["value"][column] = value
        elif how == "least":
            open_interval["value"][column] = min(so_far, value)
        elif how == "most":
            open_interval["value"][column] = max(so_far, value)
        else:
            open_interval["value"][column] = so_far + value
        open_interval["count"][column] = count + 1

    def _sample(self, open_interval: np.void) -> list[float]:
        sample = []
        for value, count, how, label in zip(
            open_interval["value"].tolist(),
            open_interval["count"].tolist(),
            self._aggregates,
            self._categorical,
            strict=True,
        ):
            mean = how == "mean" and not label
            sample.append(math.nan if not count else value / count if mean else value)
        for column, (place, period) in self._circles.items():
            sine, cosine = open_interval["value"][column], open_interval["cosine"][place]
            opposed = math.hypot(sine, cosine) <= _OPPOSED * max(1, open_interval["count"][column])
            sample[column] = math.nan if opposed else float(position(sine, cosine, period))
        return sample
