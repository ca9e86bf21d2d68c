"""What a text from a file may hold that is shown on a terminal: it refuses what terminals obey or turn round."""

from __future__ import annotations

import re

# Control characters, separators of lines, marks that turn the direction of writing, and halves of characters.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MAX_LENGTH = 400


def is_printable(text: str) -> bool:
    """Whether the text can be shown as it is, on one line."""
    return _UNPRINTABLE.search(text) is None


def printable(text: str) -> str:
    """The text as an error may tell it, on one line and not too long: of what is longer, both ends."""
    short = text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH // 2]} … {text[-_MAX_LENGTH // 2 :]}"
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), short)
