"""The keys at the end of a payload that only some predictions have: which sensors drove a score, an event, what
the step went without, and how sure the score of a new device is.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from edge_lstm.decisions.alarms.events import MOST_DRIVERS
from edge_lstm.foundation.numbers import shortest_texts
from edge_lstm.foundation.times.text import parse_time
from edge_lstm.messages.json_texts import number_of, number_text, quoted, score_text, time_text
from edge_lstm.streaming.reading import Driver, Event
from edge_lstm.streaming.step_results import Steps


def have_endings(steps: Steps) -> bool:
    """Whether some predictions of this bundle have an ending."""
    decided = steps.decisions
    return any(part is not None for part in (decided.drivers, decided.events, decided.degraded, decided.confidence))


def endings(steps: Steps, flat: bool) -> list[str]:
    """Of each step: the end of its payload, with a comma first; empty where there is nothing to tell."""
    texts = _texts_of_drivers(steps, flat)
    for place, event in enumerate(steps.events()):
        if event is not None:
            texts[place] += event_ending(event, flat)
    for place, names in enumerate(steps.decisions.degraded or ()):
        if names:
            texts[place] += _degraded(names, flat)
    if (confidence := steps.decisions.confidence) is not None:
        for place in np.flatnonzero(~np.isnan(confidence)).tolist():
            texts[place] += _confidence(confidence[place].item())
    return texts


def ending_of(
    drivers: Sequence[Driver] | None,
    event: Event | None,
    degraded: Sequence[str],
    confidence: float | None,
    flat: bool,
) -> str:
    """The end of one payload, with a comma first; empty where there is nothing to tell."""
    text = ""
    if drivers is not None:
        text = _pattern(len(drivers), flat) % tuple(chain.from_iterable(map(_cells, drivers)))
    if event is not None:
        text += event_ending(event, flat)
    if degraded:
        text += _degraded(degraded, flat)
    return text if confidence is None else text + _confidence(confidence)


def event_ending(event: Event, flat: bool) -> str:
    """An event as the end of a payload, with a comma first."""
    if not flat:
        return f',"event":{event_text(event)}'
    until = "" if event.until is None else f',"event_until":"{time_text(event.until)}"'
    since, peak = time_text(event.since), score_text(event.peak)
    return f',"event_id":{quoted(event.id)},"event_since":"{since}","event_peak":{peak}{until}'


def _degraded(names: Sequence[str], flat: bool) -> str:
    """What a step went without, as the end of a payload, with a comma first."""
    if flat:
        return "".join([f',"degraded_{number}":{quoted(name)}' for number, name in enumerate(names, 1)])
    return f',"degraded":[{",".join(map(quoted, names))}]'


def _confidence(confidence: float) -> str:
    return f',"confidence":{confidence}'


def event_text(event: Event) -> str:
    """An event as JSON."""
    until = "" if event.until is None else f',"until":"{time_text(event.until)}"'
    since, peak = time_text(event.since), score_text(event.peak)
    return f'{{"id":{quoted(event.id)},"since":"{since}","peak":{peak}{until}}}'


def drivers_text(drivers: Sequence[Driver]) -> str:
    """Drivers as a JSON list."""
    return _list(len(drivers)) % tuple(chain.from_iterable(map(_cells, drivers)))


def _texts_of_drivers(steps: Steps, flat: bool) -> list[str]:
    """Of each step: its drivers as the end of a payload; as `ending_of`, in a third of the time."""
    texts = [""] * len(steps.order)
    found = steps.decisions.drivers
    if found is None or not (places := np.flatnonzero(~np.isnan(found.share[:, 0]))).size:
        return texts
    names = [quoted(name) for name, _ in steps.outputs]
    count = min(MOST_DRIVERS, len(names))
    pattern, width = _pattern(count, flat), 3 * count
    sensors = found.sensors[places, :count].tolist()
    columns = (found.share, found.measured, found.expected)
    numbers = shortest_texts(np.stack([column[places, :count] for column in columns], axis=2).reshape(-1, width))
    for row, place in enumerate(places.tolist()):
        cells = numbers[row * width : (row + 1) * width]
        for at, sensor in enumerate(sensors[row]):
            cells.insert(4 * at, names[sensor])
        texts[place] = pattern % tuple(cells)
    return texts


def _cells(driver: Driver) -> Iterator[object]:
    """A driver's values for the gaps of a pattern."""
    yield quoted(driver.sensor)
    yield from map(number_text, driver[1:])


@functools.lru_cache(256)
def _pattern(count: int, flat: bool) -> str:
    """So many drivers as the end of a payload, with %s for each value."""
    if not flat:
        return f',"drivers":{_list(count)}'
    keys = (f"driver_{number}{part}" for number in range(1, count + 1) for part in ("", "_share", "_is", "_expected"))
    return "".join(f',"{key}":%s' for key in keys)


def _list(count: int) -> str:
    """So many drivers as a JSON list, with %s for each value."""
    return "[" + ",".join(['{"sensor":%s,"share":%s,"is":%s,"expected":%s}'] * count) + "]"


def decoded_drivers(facts: Sequence[Mapping[str, Any]]) -> list[Driver]:
    """The drivers, from JSON values."""
    return [Driver(one["sensor"], *(number_of(one[name]) for name in ("share", "is", "expected"))) for one in facts]


def decoded_event(facts: Mapping[str, Any]) -> Event:
    """The event, from JSON values."""
    until = parse_time(facts["until"]) if "until" in facts else None
    return Event(facts["id"], parse_time(facts["since"]), number_of(facts["peak"]), until)
