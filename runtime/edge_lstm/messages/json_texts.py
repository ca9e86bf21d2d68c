"""Single values as JSON texts, and numbers from JSON values."""

from __future__ import annotations

import functools
import json
import math
from sys import getsizeof
from typing import Any

from edge_lstm.foundation.limited_dict import LimitedDict
from edge_lstm.foundation.times.text import format_time


class _QuotedTexts(LimitedDict[str, str]):
    """Texts as JSON: the same streams and labels again and again."""

    def __missing__(self, text: str) -> str:
        quoted = json.dumps(text)
        return self.remember(text, quoted, getsizeof(text) + getsizeof(quoted))


quoted = _QuotedTexts().__getitem__
time_text = functools.lru_cache(4096)(format_time)  # the beginning of an event, again and again


def score_text(score: float) -> float | str:
    """A score with six digits; NaN and infinity are null."""
    return float(f"{score:.6g}") if math.isfinite(score) else "null"


def number_text(number: float) -> float | str:
    """A number with all its digits; NaN and infinity are null."""
    return number if math.isfinite(number) else "null"


def number_of(value: Any) -> float:
    """The number of a JSON value; null is NaN."""
    return math.nan if value is None else float(value)
