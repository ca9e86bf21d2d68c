"""What a check found: a light, words, and what to do where it is not green."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# amber: it works, and you should know; red: the service will not do what it promises; unknown: nobody here can tell
Light = Literal["green", "amber", "red", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor."""

    check: str
    light: Light
    found: str
    remedy: str = ""
