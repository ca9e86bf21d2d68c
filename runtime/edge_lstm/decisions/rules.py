"""What a service's config says about decisions: a replay of its history needs the same."""

from __future__ import annotations

from typing import NamedTuple


class DecisionRules(NamedTuple):
    """Each field has a default, which state databases from before it have. The values are those of JSON."""

    sensor_timeout_s: float | None = None  # without a value, until a sensor is gone; None: as the bundle says
