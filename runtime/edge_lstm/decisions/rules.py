"""What a service's config says about decisions: a replay of its history needs the same."""

from __future__ import annotations

from typing import NamedTuple


class DecisionRules(NamedTuple):
    """Each field has a default, which state databases from before it have. The values are those of JSON."""

    learn: bool = False  # whether outputs are corrected on the device
    learn_memory_steps: int = 200  # how many past errors count
    learn_margin: float = 0.02  # by which share a correction's squared error is lower while it is published
    sensor_timeout_s: float | None = None  # without a value, until a sensor is gone; None: as the bundle says
    feedback: bool = False  # whether an operator's commands are taken
    feedback_step: float = 1.0  # by how much one false alarm raises the threshold of its stream
    feedback_most: float = 1.0  # how far all marks together move it, either way
    feedback_half_life_s: float = 1.0  # in which half of a move is gone
