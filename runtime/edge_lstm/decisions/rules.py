"""What a service's config says about decisions: a replay of its history needs the same."""

from __future__ import annotations

from typing import NamedTuple


class DecisionRules(NamedTuple):
    """Each field has a default, which state databases from before it have. The values are those of JSON."""

    feedback: bool = False  # whether an operator's commands are taken
    feedback_step: float = 1.0  # by how much one false alarm raises the threshold of its stream
    feedback_most: float = 1.0  # how far all marks together move it, either way
    feedback_half_life_s: float = 1.0  # in which half of a move is gone
