"""Alarms as episodes: from when to when, how high, and whether there was an event; and the events that were found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Flags
from edge_lstm.foundation.times.text import format_time
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.split import PARTS, Part
from edge_lstm_train.evaluation.formatting import TextTable

Kind = Literal["hit", "false", "unknown"]
_INTERVAL = 0.9


@dataclass(frozen=True)
class Episode:
    """An alarm of one stream; steps are indices into the dataset, the last one is included."""

    stream: str
    begin: int
    end: int
    begin_time: float  # seconds since 1970
    end_time: float
    peak: float  # the largest score
    kind: Kind


@dataclass(frozen=True)
class Event:
    """A true anomaly of one stream, and the steps from its begin to its first alarm and from its end to the last one.

    A delay below 0 is an alarm that began, or ended, before it; None where it was missed.
    """

    stream: str
    begin: int
    end: int
    found: bool
    delay: int | None
    overrun: int | None
    alarms: int  # episodes that overlap it


@dataclass(frozen=True, eq=False)
class Episodes:
    """The episodes and events of a part, and its steps of normal operation."""

    episodes: list[Episode]
    events: list[Event]
    normal_steps: int  # scored steps without an anomaly; all of them where the truth is not known
    known: bool  # whether the truth is known

    @property
    def false(self) -> int:
        """Episodes without an event; where the truth is not known, all of them."""
        return sum(one.kind != "hit" for one in self.episodes)

    @property
    def found(self) -> int:
        """Events with an alarm."""
        return sum(one.found for one in self.events)

    def figures(self) -> dict[str, Any]:
        """Episodes and events as JSON values; times in seconds since 1970."""
        return {
            "events": len(self.events) if self.known else None,
            "events_found": self.found if self.known else None,
            "false_episodes": self.false if self.known else None,
            "normal_steps": self.normal_steps,
            "episodes": [
                {
                    "stream": one.stream,
                    "from": one.begin_time,
                    "to": one.end_time,
                    "peak": one.peak,
                    "kind": one.kind,
                }
                for one in self.episodes
            ],
            "event_delays": [
                {"stream": one.stream, "found": one.found, "delay_steps": one.delay, "overrun_steps": one.overrun}
                for one in self.events
            ],
        }


def episodes_of(
    dataset: Dataset, alarms: Flags, scores: Doubles, truth: Doubles | None, part: Part = "test"
) -> Episodes:
    """The episodes of alarms (steps,) in the part's scored steps; truth (steps,): above 0 in an event, NaN unknown."""
    judged = np.isfinite(scores) & (dataset.part_of == PARTS.index(part))
    if truth is not None:
        judged &= np.isfinite(truth)
    anomalous = np.zeros(len(dataset), bool) if truth is None else truth > 0
    episodes: list[Episode] = []
    events: list[Event] = []
    for name, own in dataset.by_stream(np.flatnonzero(judged)).items():
        alarmed = _runs(own, alarms[own])
        for begin, end in alarmed:
            inside = slice(begin, end + 1)
            hit = bool(anomalous[inside].any())
            kind: Kind = "unknown" if truth is None else "hit" if hit else "false"
            times = float(dataset.times[begin]), float(dataset.times[end])
            episodes.append(Episode(name, begin, end, *times, float(np.nanmax(scores[inside])), kind))
        for begin, end in _runs(own, anomalous[own]):
            over = [(first, last) for first, last in alarmed if first <= end and last >= begin]
            delay, overrun = (over[0][0] - begin, over[-1][1] - end) if over else (None, None)
            events.append(Event(name, begin, end, bool(over), delay, overrun, len(over)))
    return Episodes(episodes, events, int((judged & ~anomalous).sum()), truth is not None)


def _runs(steps: Sequence[int] | Any, flags: Flags) -> list[tuple[int, int]]:
    """(first, last) step of each run of true flags (n,) of consecutive steps (n,)."""
    if not flags.any():
        return []
    chosen = np.asarray(steps)[flags]
    cuts = np.flatnonzero(np.diff(chosen) != 1)
    begins, ends = np.r_[chosen[0], chosen[cuts + 1]], np.r_[chosen[cuts], chosen[-1]]
    return list(zip(begins.tolist(), ends.tolist(), strict=True))


def episode_table(episodes: Sequence[Episode], row_s: float | None) -> TextTable:
    """A row for each episode; row_s: seconds between rows that have no clock times."""
    rows = [
        [one.stream, one.kind, f"{one.peak:.2f}", *_from_to(one.begin_time, one.end_time, row_s)] for one in episodes
    ]
    return ["stream", "alarm", "peak", *(["from row", "to row"] if row_s else ["from", "to (UTC)"])], rows


def _from_to(begin: float, end: float, row_s: float | None) -> tuple[str, str]:
    """Two times as text, to the minute; the second one without its day, if that is the same."""
    if row_s is not None:
        return f"{1 + begin / row_s:.0f}", f"{1 + end / row_s:.0f}"
    first, last = (format_time(60.0 * (time // 60)).replace("T", " ")[:16] for time in (begin, end))
    return first, last[11:] if first[:10] == last[:10] else last


def rate_interval(count: int, length: float) -> tuple[float, float]:
    """The 90 % interval (Garwood 1936) of a rate, by `count` events of a Poisson process in that length."""
    half = (1 - _INTERVAL) / 2
    low = 0.0 if count == 0 else _solved(lambda mean: 1 - _at_most(count - 1, mean), half, count)
    return low / length, _solved(lambda mean: 1 - _at_most(count, mean), 1 - half, count) / length


def _solved(share: Any, wanted: float, count: int) -> float:
    """The mean at which the rising function `share` of it has this value, by bisection."""
    low, high = 0.0, 20.0 + 4.0 * count
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) < wanted else (low, middle)
    return low


def _at_most(count: int, mean: float) -> float:
    """The probability of at most so many events, if `mean` are expected."""
    if count < 0:
        return 0.0
    if mean <= 0:
        return 1.0
    return math.fsum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count + 1))
