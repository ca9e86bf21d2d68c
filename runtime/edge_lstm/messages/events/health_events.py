"""Messages about the models of streams: one where a verdict changes."""

from __future__ import annotations

import json

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.health import GOOD
from edge_lstm.messages.events.alarm_events import Change, EventHead, head_text
from edge_lstm.streaming.model_health import verdict_facts
from edge_lstm.streaming.step_results import Steps

MODEL = "model"


class HealthEvents:
    """The messages about changed verdicts that steps cause. A late reading may change a verdict again, and tell it."""

    def __init__(self, contract: Contract, bundle_id: str) -> None:
        self._contract, self._bundle_id = contract, bundle_id

    def messages(self, steps: Steps) -> list[str]:
        """The messages as JSON, in the order of the steps."""
        verdicts = steps.decisions.health
        if verdicts is None or not verdicts.turned.any():
            return []
        return [self._message(steps, place) for place in np.flatnonzero(verdicts.turned).tolist()]

    def _message(self, steps: Steps, place: int) -> str:
        verdicts = steps.decisions.health
        assert verdicts is not None
        level, cause = int(verdicts.levels[place]), int(verdicts.causes[place])
        counts = steps.steps[place].item(), steps.revisions[place].item()
        change: Change = "end" if level == GOOD else "begin"
        head = EventHead(MODEL, change, steps.streams[place], steps.times[place].item(), *counts, self._bundle_id)
        facts = json.dumps(verdict_facts(self._contract, level, cause))
        return head_text(head, f",{facts[1:-1]}")
