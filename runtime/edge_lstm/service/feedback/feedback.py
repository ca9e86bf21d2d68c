"""Takes an operator's commands from their topic: each is checked, applied, committed and answered exactly once.

A command is processed where it arrived among the readings, and in a slice of its own, which the history keeps.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from edge_lstm.decisions.alarms.operator import Operator
from edge_lstm.foundation.times.text import format_time
from edge_lstm.mqtt.client.received import Message
from edge_lstm.service.database.answered_commands import Answered
from edge_lstm.service.database.store import Store
from edge_lstm.service.feedback import answers
from edge_lstm.service.feedback.applying import apply
from edge_lstm.service.feedback.checks import CommandChecks
from edge_lstm.service.feedback.commands import CommandError, Request, request_of
from edge_lstm.service.feedback.config import FeedbackConfig
from edge_lstm.service.intake.message_reader import message_identity
from edge_lstm.service.processing.committer import Committer
from edge_lstm.service.processing.processor import Slice
from edge_lstm.service.processing.suspects import Suspects
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Command

log = logging.getLogger(__name__)

_MOST_SHOWN = 10  # streams, in the statistics


class Feedback:
    """Processes commands. `counts` says how many were taken, refused and repeated."""

    def __init__(
        self,
        config: FeedbackConfig,
        topic: str,
        predictor: Predictor,
        store: Store,
        committer: Committer,
        suspects: Suspects,
        is_processed: Callable[[str], bool],
        between: Callable[[], None],
    ) -> None:
        """`topic`: of the answers; `is_processed`: whether a message of this identity was processed before.

        `between` is called between the steps of a recalibration, and ends it with an exception.
        """
        self.counts: Counter[str] = Counter(taken=0, refused=0, repeated=0)
        self._topic, self._most, self._between = topic, config.most, between
        self._predictor, self._store, self._committer, self._suspects = predictor, store, committer, suspects
        self._is_processed = is_processed
        self._operator = Operator(config.rules)
        self._checks = CommandChecks(config, predictor, store.kept_readings, self._taken)

    def process(self, message: Message) -> Iterator[Slice]:
        """The slice of a message on the topic of commands."""
        if not message.payload or (message.repeated and self._is_processed(message_identity(message))):
            self.counts["repeated"] += bool(message.payload)
            yield Slice((), (), (), 0, [message])
            return
        self._suspects.begin(self._committer.batch + 1, [message])
        command: Command | None = None
        try:
            command, answer = self._answered(message)
        except CommandError as error:
            self.counts["refused"] += 1
            log.warning("command refused: %s", error.message)
            answer = answers.refused(error)
            if error.command_id is not None and not message.retained:
                self._committer.answers[error.command_id] = Answered(error.command_id, None, answer)
        self._suspects.end([message], [message])
        outgoing = [(self._topic, answer.encode())]
        yield Slice((), (), outgoing, 0, [message], (), [] if command is None else [command])

    def _answered(self, message: Message) -> tuple[Command | None, str]:
        """The command, None where it came before, and its answer."""
        if (fault := self._suspects.fault(message)) is not None:
            raise CommandError(f"expected a command that can be processed, found that {fault}", "report it")
        request = request_of(message.payload)
        if message.retained:
            raise CommandError(
                "expected a command that is not retained, found a retained one",
                "publish it without the retain flag, and clear the topic with an empty retained message",
                request.id,
            )
        former = self._former(request.id)
        if former is not None:
            self.counts["repeated"] += 1
            return None, former.answer
        command, answer = self._applied(request)
        self.counts["taken"] += 1
        self._committer.changed(command.stream)
        self._committer.answers[command.id] = Answered(command.id, command, answer)
        log.info("command taken stream=%s id=%s command=%s", command.stream, command.id, command.kind)
        return command, answer

    def _applied(self, request: Request) -> tuple[Command, str]:
        try:
            command = self._checks.command(request)
            kept = lambda: self._store.kept_readings(command.stream)[0]  # noqa: E731
            change = apply(self._predictor, self._operator, command, kept, self._between)
        except CommandError as error:
            raise CommandError(error.message, error.hint, request.id) from None
        return command, answers.taken(command, change, self._most)

    def _former(self, command_id: str) -> Answered | None:
        return self._committer.answers.get(command_id) or self._store.answer(command_id)

    def _taken(self, command_id: str) -> Command | None:
        former = self._former(command_id)
        return None if former is None else former.command

    def figures(self) -> dict[str, object]:
        """For the statistics: how many commands came, and the streams that have another threshold or maintenance."""
        return {"commands": dict(self.counts), "operator": list(self._told())}

    def _told(self) -> Iterator[dict[str, object]]:
        table = self._predictor.table
        slots = np.array([table.slot(name) for name in table.names], np.int64)
        current = table.current
        if not slots.size:
            return
        maintained = self._operator.maintained(current, slots)
        moved = current["is_moved"][slots] if "is_moved" in (current.dtype.names or ()) else np.zeros(len(slots), bool)
        for slot in slots[maintained | moved][:_MOST_SHOWN].tolist():
            record = current[slot]
            facts: dict[str, object] = {"stream": table.name(slot)}
            if moved.any() and record["is_moved"]:
                facts["threshold"] = round(self._operator.factor(record, float(record["time"])), 3)
            if record["time"] < record["maintenance"][1]:  # False for NaN
                facts["maintenance_until"] = format_time(float(record["maintenance"][1]))
            yield facts
