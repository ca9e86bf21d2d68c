"""The words that the project's texts avoid, each with plain words to use instead."""

from __future__ import annotations

import re
from dataclasses import dataclass

# (words, use instead): a regular expression over whole words; a space in it matches any white space, a line end too.
_WORDS = (
    ("rooms?", "module, package; for memory or a disk: space"),
    ("doors?", "the name of the interface: MQTT connection, API"),
    ("houses?", "project, package"),
    ("anew", "again, from the start"),
    ("afresh", "again, from the start"),
    ("whoever|whomever", "the caller, the user, whichever client"),
    ("mend|mends|mended|mending", "fix, repair"),
    ("as it was|as they were", "unchanged, as before"),
    ("told", "reported, logged, configured; told apart: distinguished"),
    ("of its own accord", "automatically, unasked"),
    ("once in a while", "rarely, from time to time"),
    ("steps the network|steps a network", "runs the network, inference backend"),
    ("of a thing that", "of what"),
    ("all the same", "nevertheless, equal"),
    ("without (?:its|a|any) word", "without confirmation, without an error"),
    ("at fault", "the cause, wrong"),
    ("speak|speaks|spoke|spoken", "use, support, send"),
    ("hear|hears|heard", "receive, listen"),
    ("bear|bears|bore", "support, have"),
    ("strangers?", "another person, an untrusted source"),
    ("for ever", "without end, permanently"),
    ("lies there|lie there|lay there", "is in the folder, exists"),
    (r"what (?:a|an|the|it|each) (?:\w+ )?comes? to", "the result of"),
    ("thereof|therein|whereof|wherein|hitherto", "of it, in it, until now"),
    ("by and by", "gradually"),
    ("makes? of it|made of it", "does with it, the result"),
)

# Plain uses of the same words: real rooms and doors of a building.
_ALLOWED = (
    r"(?:living|bath|bed|office|meeting|server) rooms?",
    r"rooms?(?:'s)? (?:temperatures?|sensors?|thermostats?|climate|air|humidity|occupancy|is occupied)",
    r"(?:occupied|empty) rooms?|(?:occupancy|temperature|air) (?:of|in) (?:a|the|one) room",
    r"doors? (?:sensors?|contacts?|events?|and motion|or window|is open|is closed|opens|closes)",
)


def _pattern(words: str) -> re.Pattern[str]:
    # Not beside a letter, hyphen, slash, brace or quote: part of another word (recommend, in-house), a topic, a path
    # or a value.
    return re.compile(rf'(?<![\w/{{"-])(?:{words})(?![\w/}}"-])'.replace(" ", r"\s+"), re.IGNORECASE)


BANNED = tuple((_pattern(words), instead) for words, instead in _WORDS)
_allowed = tuple(_pattern(words) for words in _ALLOWED)


@dataclass(frozen=True)
class Finding:
    """A banned word: its line in the text (the first is 1), the word in the text, what to use instead."""

    line: int
    word: str
    instead: str


def findings(text: str) -> list[Finding]:
    """Every banned word of a text, line by line."""
    found: list[Finding] = []
    for pattern in _allowed:  # replaced by spaces; line ends stay, so that line numbers stay
        text = pattern.sub(lambda match: re.sub(r"\S", " ", match.group()), text)
    for pattern, instead in BANNED:
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Finding(line, " ".join(match.group().split()), instead))
    return sorted(found, key=lambda each: each.line)
