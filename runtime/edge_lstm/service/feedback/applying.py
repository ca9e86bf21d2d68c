"""What a command does to its stream: the same where a service takes it and where a replay comes to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from edge_lstm.decisions.alarms.operator import COMMAND_FIELDS, MOVE_FIELDS, Operator
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.hashing import blake2b
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Command, Reading

MOST_STEPS = 200_000  # of a recalibration
_SLICE_STEPS = 2000

Numbered = tuple[int, Reading]  # with the batch in which it was stepped


class Change(NamedTuple):
    """What changed: the factor of the threshold before and after (None: none was moved), and steps that were made."""

    before: float | None = None
    after: float | None = None
    steps: int = 0


def number_of(command_id: str) -> np.uint64:
    """The number by which a record knows a command."""
    return np.uint64(int.from_bytes(blake2b(command_id.encode(), digest_size=8).digest(), "little") or 1)


def apply(
    predictor: Predictor,
    operator: Operator,
    command: Command,
    kept: Callable[[], Sequence[Numbered]] = tuple,
    between: Callable[[], None] = lambda: None,
) -> Change:
    """Apply a command that was checked to its stream, which the predictor knows.

    `kept`: the readings of the stream in the history before the command, for a recalibration; `between` is called
    between its steps, and may raise: nothing has changed then.
    """
    if command.kind == "recalibrate":
        return _recalibrated(predictor, command, kept, between)
    table = predictor.table
    slot = table.slot(command.stream)
    record: Any = table.current[slot]
    detects = predictor.contract.alarm is not None
    before = operator.factor(record, command.time) if detects else None
    if command.kind == "sensor_replaced":
        _begin_sensor(predictor, operator, slot, command.facts["sensor"])
    elif command.kind == "maintenance":
        record["maintenance"], record["maintenance_id"] = (command.time, command.facts["until"]), number_of(command.id)
    elif command.kind == "revert":
        _revert(operator, record, command, detects)
    elif detects and command.facts.get("moves", True):
        _move(predictor, operator, record, command)
    for snapshot in (table.snapshot_old, table.snapshot_mid):  # a rewind keeps what commands changed
        for name in (*COMMAND_FIELDS, *(MOVE_FIELDS if detects else ())):
            snapshot[name][slot] = record[name]
    after = operator.factor(record, command.time) if detects else None
    is_move = command.kind in ("false_alarm", "missed") and command.facts.get("moves", True)
    return Change(before, after) if is_move or before != after else Change()


def _move(predictor: Predictor, operator: Operator, record: Any, command: Command) -> None:
    alarm, number = predictor.contract.alarm, number_of(command.id)
    assert alarm is not None  # its caller has checked
    if command.kind == "missed":
        operator.move(record, number, command.time, -operator.step)
        return
    found = np.flatnonzero(record["alarm_begins"] == command.facts["from"])
    if not found.size:  # a replay of a history that begins later
        return
    event = int(found[0])
    size = operator.to_peak(record, event, command.time)
    excused = operator.excusable(record, event, alarm.calibrate_steps) if command.facts["residuals"] else None
    operator.move(record, number, command.time, size, command.facts["from"], excused)


def _revert(operator: Operator, record: Any, command: Command, detects: bool) -> None:
    number = number_of(command.facts["of"])
    if record["maintenance_id"] == number:
        record["maintenance"], record["maintenance_id"] = np.nan, 0
    if detects:
        operator.revert(record, number, command.time)


def _begin_sensor(predictor: Predictor, operator: Operator, slot: int, sensor: str) -> None:
    """The state restarts, a detector is calibrated again, and late readings from before are not inserted any more."""
    table, features = predictor.table, predictor.contract.features
    column = [feature.name for feature in features].index(sensor)
    table.restart(np.array([slot]))
    table.trail_length[slot] = 0
    table.current["held"][slot, column] = features[column].mean
    table.partial_values[slot, column] = np.nan
    if predictor.contract.alarm is not None:
        operator.begin_calibration(table.current[slot])


def _recalibrated(
    predictor: Predictor, command: Command, kept: Callable[[], Sequence[Numbered]], between: Callable[[], None]
) -> Change:
    """The stream as a new device that was given its last kept readings."""
    stream, steps = command.stream, 0
    twin = predictor.without_streams()
    for _, numbered in groupby(chosen(kept(), command.facts), itemgetter(0)):
        batch = [reading for _, reading in numbered]
        while batch:
            made, count = twin.feed_slice(batch, _SLICE_STEPS, between)
            batch = batch[count:]
            steps += 0 if made is None else len(made.order)
            if steps > MOST_STEPS:
                raise EdgeLstmError(
                    f"expected at most {MOST_STEPS:,} steps for a recalibration, found more", "name a later time"
                )
        between()
    twin.table.slot(stream)
    predictor.table.put_row(stream, twin.table.row(stream), twin.table.layout)
    return Change(steps=steps)


def chosen(kept: Sequence[Numbered], facts: Any) -> Sequence[Numbered]:
    """The readings that a recalibration steps: the last ones of its time, as many as its facts say."""
    count: int = facts["readings"]
    return since(kept, facts["from"])[-count:] if count else ()


def since(kept: Iterable[Numbered], time: float) -> Sequence[Numbered]:
    """The readings from a time on, as far as the times of the stream did not begin again."""
    found = list(kept)
    last = max((place for place, (_, reading) in enumerate(found) if reading.restart), default=0)
    return [one for one in found[last:] if one[1].time >= time]
