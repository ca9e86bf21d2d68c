"""Events: one alarm, one id; its peak; what ends it; kept by rows, rewinds and restarts."""

from __future__ import annotations

import dataclasses

import numpy as np

from edge_lstm.bundle.contract import Alarm
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Event, Prediction, Reading
from tests.networks import random_network
from tests.runtime.decisions.test_drivers import Persists, detector, predictor, readings, values_of


def with_offset(first: int, last: int, size: float = 6.0, steps: int = 160) -> np.ndarray:
    values = values_of(steps)
    values[first:last, 0] += size
    return values


def events_of(said: list[Prediction]) -> dict[str, list[Event]]:
    """By id, the event as each step tells it."""
    found: dict[str, list[Event]] = {}
    for one in said:
        if one.event is not None:
            found.setdefault(one.event.id, []).append(one.event)
    return found


def test_an_alarm_is_one_event_from_its_first_step_to_the_first_step_after_it() -> None:
    said = predictor().feed(readings(with_offset(100, 120)))
    alarms = [one for one in said if one.alarm]
    (told,) = events_of(said).values()
    assert len(told) == len(alarms) + 1  # the step that ends it
    assert {one.since for one in told} == {alarms[0].time}
    assert told[0].id == "pump@1970-01-01T01:40:00Z"
    assert [one.until for one in told] == [None] * len(alarms) + [alarms[-1].time + 60.0]
    scores = [one.score for one in alarms]
    assert [one.peak for one in told[:-1]] == np.maximum.accumulate(scores).tolist()  # type: ignore[arg-type]
    assert told[-1].peak == max(scores)  # type: ignore[type-var]


def test_an_alarm_that_is_held_over_a_gap_stays_one_event() -> None:
    alarm = Alarm(span_steps=5, settle_steps=3, calibrate_steps=60, factor=1.5)
    values = with_offset(100, 110)
    values[125:130, 0] += 6.0
    loose = events_of(predictor(alarm=alarm).feed(readings(values)))
    held = events_of(predictor(alarm=dataclasses.replace(alarm, hold_steps=15)).feed(readings(values)))
    assert len(loose) == 2
    assert list(held) == list(loose)[:1]


def test_a_restart_of_the_stream_ends_its_event() -> None:
    fed = readings(with_offset(100, 160))
    later = [one._replace(time=one.time + 3600.0) for one in fed[130:]]  # longer than max_gap_s
    said = predictor().feed([*fed[:130], *later])
    first, second = events_of(said).values()  # the fault goes on, and after the restart it is found again
    assert first[-1].until == later[0].time
    assert said[130].alarm is False
    assert second[0].since > later[0].time


def test_rows_carry_an_event_on() -> None:
    fed = readings(with_offset(100, 120))
    whole = predictor().feed(fed)
    for cut in (100, 101, 110, 119, 121):
        first = predictor()
        before = first.feed(fed[:cut])
        row, layout = first.table.row("pump"), first.table.layout
        second = predictor()
        second.table.put_row("pump", row, layout)
        assert repr(before + second.feed(fed[cut:])) == repr(whole)


def test_a_late_reading_moves_an_event_as_if_it_had_come_in_time() -> None:
    values = with_offset(100, 120)
    fed = readings(values)
    ordered = Predictor(detector(), Persists(random_network(inputs=3, outputs=3)), max_rewind=20)
    expected = {one.time: one.event for one in ordered.feed(fed)}
    late = Predictor(detector(), Persists(random_network(inputs=3, outputs=3)), max_rewind=20)
    # without the first steps of the offset, the event begins later
    said = late.feed([*fed[:100], *fed[103:110], *fed[100:103], *fed[110:]])
    first = next(one.event for one in said if one.event is not None)
    assert first.since == 6180.0
    final = {one.time: one.event for one in sorted(said, key=lambda one: one.revision)}
    assert final == expected
    assert next(event for event in expected.values() if event is not None).since == 6000.0


def test_an_event_begins_where_a_row_of_an_earlier_release_is_in_alarm() -> None:
    fed: list[Reading] = readings(with_offset(100, 120))
    one = predictor()
    one.feed(fed[:110])
    slot = one.table.slot("pump")
    for field in ("event_since", "event_peak", "event_drivers"):
        one.table.current[field][slot] = 0  # as a row of 0.1.0, which lacks them, is read
    (event,) = {said.event for said in one.feed(fed[110:112])}
    assert event is not None
    assert event.since == fed[110].time
