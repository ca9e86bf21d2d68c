"""Paths into a message, like `DHT11.Temperature` or `sensors[0]."1-0:1.8.0"`."""

from __future__ import annotations

import re
from typing import Any

ABSENT: Any = object()  # what a path finds if it leads nowhere; None is a value that devices send
_STEP = re.compile(
    r"""\[(?P<index>\d{1,9})\]|(?P<dot>\.?)(?:"(?P<double>[^"]+)"|'(?P<single>[^']+)'|(?P<key>[^."'\[\]]+))"""
)


class Path:
    """Keys and list positions, parsed once. A key whose name is the whole path is found first."""

    __slots__ = ("_steps", "key", "text")

    def __init__(self, text: str, steps: list[tuple[str, int | None]]) -> None:
        self.text = text
        self._steps = steps
        self.key = steps[0][0] if len(steps) == 1 and steps[0][1] is None else None  # of a path that is one key

    @classmethod
    def parse(cls, text: str) -> Path:
        """The path in `text`: keys with dots between, `[0]` or `.0` for a position, keys with a dot in quotes.

        Raises ValueError if it is not a path.
        """
        steps: list[tuple[str, int | None]] = []
        at = 0
        while at < len(text) or not text:
            step = _STEP.match(text, at)
            if step is None or (step["index"] is None and (step["dot"] == ".") != bool(at)):
                raise ValueError(f"""expected a path like a.b[0].'c.d', found "{text}\"""")
            name = step["index"] or step["double"] or step["single"] or step["key"]
            quoted = step["double"] or step["single"]
            steps.append((name, int(name) if name.isdecimal() and len(name) < 10 and not quoted else None))
            at = step.end()
        return cls(text, steps)

    @classmethod
    def of_key(cls, key: str) -> Path:
        """The path of one key, with any characters in its name."""
        return cls(key, [(key, None)])

    @property
    def begins_with_a_position(self) -> bool:
        """Whether it can lead into a list."""
        return self._steps[0][1] is not None

    def find(self, facts: object) -> Any:
        """What the path leads to in `facts`, or ABSENT."""
        if self.key is None and isinstance(facts, dict) and self.text in facts:
            return facts[self.text]
        for name, position in self._steps:
            if isinstance(facts, dict):
                facts = facts.get(name, ABSENT)
            elif isinstance(facts, list) and position is not None and position < len(facts):
                facts = facts[position]
            else:
                return ABSENT
        return facts


def find_in(path: Path | None, *places: Any) -> Any:
    """What the path leads to in the first of the places where it leads to anything, or ABSENT."""
    if path is not None:
        for place in places:
            if (found := path.find(place)) is not ABSENT:
                return found
    return ABSENT
