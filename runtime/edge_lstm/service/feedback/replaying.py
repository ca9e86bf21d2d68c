"""Applies the commands of a history in a replay, between the readings where the service took them."""

from __future__ import annotations

from collections.abc import Sequence

from edge_lstm.decisions.alarms.operator import Operator
from edge_lstm.service.database.history_reader import Part
from edge_lstm.service.database.spans import SteppingRules
from edge_lstm.service.feedback.applying import Numbered, apply
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Command, Forgotten


class ReplayedCommands:
    """Follows a replay part by part, with the readings that a recalibration steps again."""

    def __init__(self, parts: Sequence[Part]) -> None:
        commands = [one for part in parts for one in part.before if isinstance(one, Command)]
        self._kept: dict[str, list[Numbered]] = {one.stream: [] for one in commands if one.facts.get("readings")}

    def begin(self, part: Part, predictor: Predictor) -> None:
        """Do what happened to streams before the readings of the part; then note these."""
        for one in part.before:
            if isinstance(one, Forgotten):
                self._forget(one.stream, predictor)
            else:
                self._apply(one, part, predictor)
        if self._kept:
            for batch, reading in zip(part.batches, part.readings, strict=True):
                if reading.stream in self._kept:
                    self._kept[reading.stream].append((batch, reading))

    def _forget(self, stream: str, predictor: Predictor) -> None:
        if stream in predictor.table.names:
            predictor.table.evict(stream)
        if stream in self._kept:
            self._kept[stream] = []

    def _apply(self, command: Command, part: Part, predictor: Predictor) -> None:
        rules = part.rules or SteppingRules()
        if rules.decision_rules.feedback:
            operator = Operator(rules.decision_rules)
            apply(predictor, operator, command, lambda: self._kept.get(command.stream, []))
