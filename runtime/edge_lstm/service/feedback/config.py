"""The section [feedback] of a service config: whether an operator's commands are taken, and how far they go."""

from __future__ import annotations

from dataclasses import dataclass

from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.foundation.config import key

_DAY_S = 86_400.0


@dataclass(frozen=True)
class FeedbackConfig:
    """What an operator's commands may change."""

    enabled: bool = key(
        False,
        doc="whether commands on edge-lstm/CLIENT_ID/feedback are taken; who may publish there can mute alarms",
    )
    step: float = key(
        1.0,
        least=1.0,
        most=10.0,
        doc="factor by which a missed alarm lowers the threshold; 1: it does not; a false one raises it to its peak",
    )
    most: float = key(
        1.5,
        least=1.0,
        most=10.0,
        doc="largest factor between a threshold and the calibrated one, however many marks there are",
    )
    half_life_days: float = key(
        30.0,
        least=0.001,
        most=36_500,
        doc="days of a stream after which half of a move is gone, so that wrong marks heal",
    )
    longest_maintenance_hours: float = key(
        72.0,
        least=0.1,
        most=8_784,
        doc="longest maintenance that a command may announce; its stream has no alarms then",
    )

    @property
    def rules(self) -> DecisionRules:
        """What decisions need of it."""
        if not self.enabled:
            return DecisionRules()
        return DecisionRules(
            feedback=True,
            feedback_step=self.step,
            feedback_most=self.most,
            feedback_half_life_s=_DAY_S * self.half_life_days,
        )


def feedback_topic(client_id: str) -> str:
    """The topic of a service's commands."""
    return f"edge-lstm/{client_id}/feedback"


def answers_topic(client_id: str) -> str:
    """The topic of the answers to them."""
    return f"{feedback_topic(client_id)}/answers"
