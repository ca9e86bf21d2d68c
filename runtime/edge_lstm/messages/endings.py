"""The keys at the end of a payload that only some predictions have: which sensors drove a score, and the event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_lstm.decisions.events import MOST_DRIVERS
from edge_lstm.foundation.times.text import format_time, parse_time
from edge_lstm.messages.json_texts import number_of, number_text, quoted, score_text
from edge_lstm.streaming.reading import Driver, Event
from edge_lstm.streaming.step_results import Steps


def have_endings(steps: Steps) -> bool:
    """Whether some predictions of this bundle have an ending."""
    decided = steps.decisions
    return decided.drivers is not None or decided.events is not None or decided.degraded is not None


def endings(steps: Steps, flat: bool) -> list[str]:
    """Of each step: the end of its payload, with a comma first; empty where there is nothing to tell."""
    told, events, degraded = steps.drivers(MOST_DRIVERS), steps.events(), steps.decisions.degraded
    names = [()] * len(told) if degraded is None else degraded
    return [ending_of(*one, flat) for one in zip(told, events, names, strict=True)]


def ending_of(drivers: Sequence[Driver] | None, event: Event | None, degraded: Sequence[str], flat: bool) -> str:
    """The end of one payload, with a comma first; empty where there is nothing to tell."""
    last = f',"degraded":[{",".join(map(quoted, degraded))}]' if degraded else ""
    if drivers is None and event is None:
        return last
    if flat:
        return _flat(drivers or [], event) + last
    told = "" if drivers is None else f',"drivers":[{",".join(map(driver_text, drivers))}]'
    return f"{told}{last}" if event is None else f'{told},"event":{event_text(event)}{last}'


def driver_text(driver: Driver) -> str:
    """A driver as JSON."""
    share, measured, expected = _numbers(driver)
    return f'{{"sensor":{quoted(driver.sensor)},"share":{share},"is":{measured},"expected":{expected}}}'


def event_text(event: Event) -> str:
    """An event as JSON."""
    until = "" if event.until is None else f',"until":"{format_time(event.until)}"'
    since, peak = format_time(event.since), score_text(event.peak)
    return f'{{"id":{quoted(event.id)},"since":"{since}","peak":{peak}{until}}}'


def decoded_drivers(facts: Sequence[Mapping[str, Any]]) -> list[Driver]:
    """The drivers, from JSON values."""
    return [Driver(one["sensor"], *(number_of(one[name]) for name in ("share", "is", "expected"))) for one in facts]


def decoded_event(facts: Mapping[str, Any]) -> Event:
    """The event, from JSON values."""
    until = parse_time(facts["until"]) if "until" in facts else None
    return Event(facts["id"], parse_time(facts["since"]), number_of(facts["peak"]), until)


def _flat(drivers: Sequence[Driver], event: Event | None) -> str:
    parts = []
    for number, driver in enumerate(drivers, 1):
        share, measured, expected = _numbers(driver)
        key = f'"driver_{number}'
        parts += [f'{key}":{quoted(driver.sensor)}', f'{key}_share":{share}']
        parts += [f'{key}_is":{measured}', f'{key}_expected":{expected}']
    if event is not None:
        parts += [f'"event_id":{quoted(event.id)}', f'"event_since":"{format_time(event.since)}"']
        parts.append(f'"event_peak":{score_text(event.peak)}')
        if event.until is not None:
            parts.append(f'"event_until":"{format_time(event.until)}"')
    return "," + ",".join(parts)


def _numbers(driver: Driver) -> tuple[float | str, float | str, float | str]:
    """Share, measured and expected value as JSON texts."""
    return score_text(driver.share), number_text(driver.measured), number_text(driver.expected)
