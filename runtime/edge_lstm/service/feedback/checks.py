"""Checks an operator's command against the streams of the service; what it then changes is fixed, for a replay too."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.times.text import format_time, parse_time
from edge_lstm.messages.formats.payloads import shown
from edge_lstm.service.feedback.applying import Numbered, number_of, since
from edge_lstm.service.feedback.commands import CommandError, Request
from edge_lstm.service.feedback.config import FeedbackConfig
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Command

_MOST_NAMED = 20  # streams, in a message
_HOUR_S = 3600.0

KeptReadings = Callable[[str], tuple[Sequence[Numbered], bool]]  # of a stream, and whether they are all that it had


class CommandChecks:
    """Makes a `Command` of each request, with the numbers that `applying` needs."""

    def __init__(
        self,
        config: FeedbackConfig,
        predictor: Predictor,
        kept_readings: KeptReadings,
        taken: Callable[[str], Command | None],
    ) -> None:
        """`taken`: a former command by its id; None: there was none, or it was refused."""
        self._config, self._predictor = config, predictor
        self._kept_readings, self._taken = kept_readings, taken
        self._makers = {
            "false_alarm": self._false_alarm,
            "missed": self._missed,
            "maintenance": self._maintenance,
            "recalibrate": self._recalibrate,
            "sensor_replaced": self._sensor_replaced,
        }

    def command(self, request: Request) -> Command:
        """The command of a request. Raises CommandError where it does not fit, with the reason."""
        if request.kind == "revert":
            return self._revert(request)
        stream = request.stream
        time = self._known(request.kind, stream)
        facts = self._makers[request.kind](stream, time, request.values)
        return Command(stream, request.id, request.kind, time, facts)

    def _known(self, kind: str, stream: str) -> float:
        """The last time of a stream."""
        time = self._predictor.table.last_time(stream)
        if math.isnan(time):
            names = list(self._predictor.table.names)
            remedy = suggestion(stream, names[:_MOST_NAMED]) if names else "no stream had a reading yet"
            raise CommandError(f"{kind}: expected a stream that had readings, found {shown(stream)}", remedy)
        return time

    def _record(self, stream: str) -> Any:
        table = self._predictor.table
        return table.current[table.slot(stream)]

    def _false_alarm(self, stream: str, time: float, values: Mapping[str, Any]) -> dict[str, Any]:
        self._require_detector("false_alarm")
        event = values["event"]
        begin = self._time_of(event)
        record = self._record(stream)
        found = [place for place, at in enumerate(record["alarm_begins"].tolist()) if at == begin and at != 0]
        residuals = bool(values.get("residuals", False))
        if found:
            if begin in record["move_events"]:
                raise CommandError(
                    f"false_alarm: expected an event that is not marked yet, found {shown(event)}",
                    "revert the former command first",
                )
            end = float(record["alarm_ends"][found[0]])
            return {"from": begin, "to": end, "event": event, "residuals": residuals, "moves": True}
        readings, _ = self._kept_readings(stream)
        times = [reading.time for _, reading in readings]
        if not times or not min(times) <= begin <= max(times):
            latest = [f"{stream}@{format_time(at)}" for at in record["alarm_begins"].tolist() if at != 0]
            raise CommandError(
                f"false_alarm: expected an event of the kept history, found {shown(event)}",
                f"the latest events of this stream are {', '.join(latest)}" if latest else "this stream had no alarm",
            )
        return {"from": begin, "to": begin, "event": event, "residuals": False, "moves": False}

    def _time_of(self, event: str) -> float:
        text = event.rpartition("@")[2]
        try:
            return parse_time(text)
        except ValueError as error:
            raise CommandError(
                f"false_alarm: expected an event like pump-7@2026-03-01T08:00:00Z, found {shown(event)} ({error})",
                "the id of an event is its stream and the time of its first step",
            ) from None

    def _missed(self, stream: str, time: float, values: Mapping[str, Any]) -> dict[str, Any]:
        if values["from"] > time:
            raise CommandError(
                f"missed: expected a time up to the stream's last one, {format_time(time)}, found a later `from`",
                "correct the times",
            )
        return {"from": values["from"], "to": values["to"], "moves": self._config.step > 1}

    def _maintenance(self, stream: str, time: float, values: Mapping[str, Any]) -> dict[str, Any]:
        hours = self._config.longest_maintenance_hours
        length_s = values["until"] - time
        if not 0 < length_s <= hours * _HOUR_S:
            raise CommandError(
                f"maintenance: expected an end at most {hours:g} hours after the stream's last time, "
                f"{format_time(time)}, found {format_time(values['until'])}",
                "choose a time within longest_maintenance_hours of [feedback]",
            )
        return {"from": time, "to": values["until"], "until": values["until"]}

    def _recalibrate(self, stream: str, time: float, values: Mapping[str, Any]) -> dict[str, Any]:
        if "from" not in values:
            return {"from": time, "readings": 0, "reaches": True}
        begin = values["from"]
        if begin > time:
            raise CommandError(
                f"recalibrate: expected a time up to the stream's last one, {format_time(time)}, found a later one",
                "leave out `from` to begin now",
            )
        kept, is_whole = self._kept_readings(stream)
        chosen = since(kept, begin)
        reaches = bool(chosen) and (is_whole or len(chosen) < len(kept) or chosen[0][1].time == begin)
        return {"from": begin, "readings": len(chosen) if reaches else 0, "reaches": reaches}

    def _sensor_replaced(self, stream: str, time: float, values: Mapping[str, Any]) -> dict[str, Any]:
        names = [feature.name for feature in self._predictor.contract.features]
        if values["sensor"] not in names:
            raise CommandError(
                f"sensor_replaced: expected a sensor of the model, found {shown(values['sensor'])}",
                suggestion(values["sensor"], names),
            )
        return {"sensor": values["sensor"]}

    def _revert(self, request: Request) -> Command:
        former = self._taken(request.values["of"])
        if former is None:
            raise CommandError(
                f"revert: expected the id of a command that was taken, found {shown(request.values['of'])}",
                "the answer to a command has its id",
            )
        if former.kind not in ("false_alarm", "missed", "maintenance"):
            raise CommandError(
                f"revert: expected a false_alarm, missed or maintenance, found a {former.kind}", "it cannot be reverted"
            )
        time = self._known("revert", former.stream)
        record = self._record(former.stream)
        number = number_of(former.id)
        moves = record["move_ids"] if "move_ids" in (record.dtype.names or ()) else np.zeros(0, np.uint64)
        is_label = former.kind != "maintenance" and (not len(moves) or not former.facts.get("moves", True))
        if not is_label and number not in moves and record["maintenance_id"] != number:
            raise CommandError(
                f"revert: expected one of the last {max(len(moves), 1)} commands to {former.stream} that still hold, "
                f"found {shown(former.id)}",
                "it was reverted, or later commands took its place",
            )
        return Command(former.stream, request.id, "revert", time, {"of": former.id})

    def _require_detector(self, kind: str) -> None:
        if self._predictor.contract.alarm is None:
            raise CommandError(
                f"{kind}: expected a bundle with alarms, found the task {self._predictor.contract.task}",
                "mark what it missed, or announce maintenance",
            )
