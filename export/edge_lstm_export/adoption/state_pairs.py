"""State pairs of a foreign graph, found by shape and name: which output is the next value of which input."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# Parts of a tensor's name that mark it as a state's input or output, and are no part of the state's own name.
_OF_INPUT = re.compile(r"^(prev|initial|init|old)_|_?(0|in|prev|init|old|input)$")
_OF_OUTPUT = re.compile(r"^(next|new|final)_|_?(n|out|next|new|final|output)$")


def find_state_pairs(
    inputs: Mapping[str, tuple[int | None, ...]], outputs: Mapping[str, tuple[int | None, ...]]
) -> dict[str, str]:
    """Input -> output, for each input that exactly one output of its shape continues; shapes by name, None: any size.

    The names match as state and stateN, as h and next_h, or as h_0 and h_n.
    """
    pairs = {}
    for name, shape in inputs.items():
        alike = [other for other, given in outputs.items() if _fits(shape, given)]
        matching = [other for other in alike if other.startswith(name) or other.endswith(name)]
        matching = matching or [other for other in alike if _OF_OUTPUT.sub("", other) == _OF_INPUT.sub("", name) != ""]
        if len(matching) == 1:
            pairs[name] = matching[0]
    return pairs


def _fits(one: Sequence[int | None], other: Sequence[int | None]) -> bool:
    return len(one) == len(other) and all(a is None or b is None or a == b for a, b in zip(one, other, strict=True))
