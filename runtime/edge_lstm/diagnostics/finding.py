"""The result of a check: a light, what was found, and a remedy where the light is not green."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# amber: it works, with a risk; red: the service will fail or lose data; unknown: it cannot be checked here
Light = Literal["green", "amber", "red", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor."""

    check: str
    light: Light
    found: str
    remedy: str = ""
