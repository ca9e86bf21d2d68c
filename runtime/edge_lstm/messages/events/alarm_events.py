"""Messages about events of a stream, such as alarms: one when an event begins, one when it ends, few in between.

All kinds share the head of `event_text`. `AlarmEvents` writes those of alarms from the steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.numbers import shortest_digits
from edge_lstm.foundation.times.text import format_time, parse_time
from edge_lstm.messages.endings import decoded_drivers, decoded_event, drivers_text, event_text
from edge_lstm.messages.json_texts import quoted
from edge_lstm.streaming.reading import Driver, Event
from edge_lstm.streaming.step_results import Steps, event_id
from edge_lstm.streaming.stream_table import StreamTable

# begin: its first step; peak: the highest score has passed another power of two; end: the first step after it;
# withdrawn: with a reading that came late, there is no such event
Change = Literal["begin", "peak", "end", "withdrawn"]
ALARM = "alarm"
_MOMENTS = ("begin", "peak")  # with drivers


class EventHead(NamedTuple):
    """What every message about an event of a stream has."""

    kind: str
    change: Change
    stream: str
    time: float  # of the step that caused the message, seconds since 1970
    step: int
    revision: int
    bundle: str


class EventMessage(NamedTuple):
    """A message about an alarm. `drivers`: by moment, begin and peak, the sensors that drove the score then.

    The peak of an event that is withdrawn is NaN.
    """

    head: EventHead
    event: Event
    drivers: Mapping[str, Sequence[Driver]]


def head_text(head: EventHead, rest: str) -> str:
    """A message about an event as JSON: its head, and `rest` as the text of further keys, with a comma first."""
    names = f'"kind":{quoted(head.kind)},"change":"{head.change}","stream":{quoted(head.stream)}'
    place = f'"time":"{format_time(head.time)}","step":{head.step},"revision":{head.revision}'
    return f'{{{names},{place},"bundle":{quoted(head.bundle)}{rest}}}'


def encode_event(message: EventMessage) -> str:
    """A message about an alarm as JSON."""
    moments = [f"{quoted(moment)}:{drivers_text(drivers)}" for moment, drivers in message.drivers.items()]
    return head_text(message.head, f',"event":{event_text(message.event)},"drivers":{{{",".join(moments)}}}')


def decode_event(payload: str) -> EventMessage:
    """The inverse of `encode_event`, for subscribers in Python. Raises ValueError for any other payload."""
    try:
        facts = json.loads(payload)
        head = EventHead(
            facts["kind"],
            facts["change"],
            facts["stream"],
            parse_time(facts["time"]),
            int(facts["step"]),
            int(facts["revision"]),
            facts["bundle"],
        )
        drivers = {moment: decoded_drivers(found) for moment, found in facts["drivers"].items()}
        return EventMessage(head, decoded_event(facts["event"]), drivers)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"expected a message about an alarm, found {payload[:60]!r} ({error})") from None


class AlarmEvents:
    """The messages about alarms that steps cause.

    What subscribers know of is in the stream's row (`StreamTable.announced`), and is not rewound with it. So a
    reading that comes late, and moves or removes an event, has messages too.
    """

    def __init__(self, bundle_id: str, table: StreamTable) -> None:
        self._bundle_id, self._table = bundle_id, table

    def messages(self, steps: Steps) -> list[EventMessage]:
        """The messages, in the order of the steps."""
        events = steps.decisions.events
        if events is None:
            return []
        # without an event, a step matters only where a late reading may have removed one
        places = np.flatnonzero(~np.isnan(events.since) | (steps.revisions > 0))
        return [message for place in places.tolist() for message in self._of_step(steps, place)]

    def _of_step(self, steps: Steps, place: int) -> Iterator[EventMessage]:
        events, stream, time = steps.decisions.events, steps.streams[place], steps.times[place].item()
        assert events is not None
        since, peak, ended = events.since[place].item(), events.peak[place].item(), bool(events.ended[place])
        slot = self._table.slot(stream)
        announced = self._table.announced
        known, known_band = announced[slot].item()
        if known_band and known != since and (time >= known or not math.isnan(since)):
            yield self._message(steps, place, "withdrawn", Event(event_id(stream, known), known, math.nan), {})
            announced[slot] = known, known_band = 0.0, 0
        band = 0 if math.isnan(since) or ended else _band(peak)
        if math.isnan(since) or (not known_band if ended else band <= known_band):
            return  # as at most steps of an event
        change: Change = "end" if ended else "peak" if known_band else "begin"
        announced[slot] = (0.0, 0) if ended else (since, band)
        names = [name for name, _ in steps.outputs]
        drivers = dict(zip(_MOMENTS, (_drivers(names, numbers) for numbers in events.drivers[place]), strict=True))
        if change == "begin":  # the peak is the beginning
            del drivers["peak"]
        event = Event(event_id(stream, since), since, peak, time if ended else None)
        yield self._message(steps, place, change, event, drivers)

    def _message(
        self, steps: Steps, place: int, change: Change, event: Event, drivers: Mapping[str, Sequence[Driver]]
    ) -> EventMessage:
        stream, time = steps.streams[place], steps.times[place].item()
        counts = steps.steps[place].item(), steps.revisions[place].item()
        return EventMessage(EventHead(ALARM, change, stream, time, *counts, self._bundle_id), event, drivers)


def _band(peak: float) -> int:
    """The power of two that the highest score has passed, from 1 on: 1 below a score of 2, 2 below 4."""
    return max(math.frexp(peak)[1], 1)


def _drivers(names: Sequence[str], numbers: Floats) -> list[Driver]:
    """The drivers of a moment, of numbers (most, 4)."""
    return [Driver(names[int(sensor)], *rest) for sensor, *rest in shortest_digits(numbers)]
