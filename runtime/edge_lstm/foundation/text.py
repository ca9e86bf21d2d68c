"""Texts of files: reads them by their byte order mark, and makes texts of others safe to show.

Shown without control characters, changes of writing direction, invisible signs, and logins in addresses. Names in a
bundle, headers of a CSV file, topics, retained messages and errors of libraries are such texts.
"""

from __future__ import annotations

import codecs
import re

_LOGIN = re.compile(r"(?<=://)\S*@")  # user and password in an address; a password may have / and @ too
# Control characters, line separators, marks of writing direction, surrogates.
_REFUSED = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
# Signs without width, and no characters at all. A name may have them, and they are shown as escapes.
_INVISIBLE = (
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2060-\u2065\u206a-\u206f\u3164\ufeff"
    "\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
)
_NO_CHARACTERS = "".join(chr((plane << 16) + low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
_TAGS = f"\ufdd0-\ufdef{_NO_CHARACTERS}\U000e0000-\U000e007f"
# Joiners and choices of a glyph are needed in many scripts and in emoji. Behind a sign of ASCII they do nothing, but in
# a keycap (1 + U+FE0F + U+20E3), and a name that has them looks like one without.
_JOINER = "[\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef]"
_IDLE_JOINER = f"(?:^|(?<=[\x00-\x7f])){_JOINER}(?!\u20e3)|[\u200c\u200d]$"
_UNPRINTABLE = re.compile(f"[{_REFUSED}]")
_ESCAPED = re.compile(f"[{_REFUSED}{_INVISIBLE}{_TAGS}]|{_IDLE_JOINER}")
_MAX_LENGTH = 400
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def marked_encoding(content: bytes) -> str | None:
    """The encoding of a text by the byte order mark at its beginning; None without a mark."""
    return next((encoding for mark, encoding in _MARKS if content.startswith(mark)), None)


def decoded(content: bytes) -> str:
    """A text in UTF-8, or as its byte order mark says, without the mark. Raises UnicodeDecodeError."""
    return content.decode(marked_encoding(content) or "utf-8")


def is_printable(text: str) -> bool:
    """Whether the text can be shown on one line without escapes."""
    return _UNPRINTABLE.search(text) is None


def disguise(text: str) -> str | None:
    """The first sign, as an escape, by which the text looks like another one or changes what is beside it; or None."""
    if text.isascii() and text.isprintable():
        return None
    found = _ESCAPED.search(text)
    return None if found is None else _escape(found)


def escaped(text: str) -> str:
    """The text for a terminal or a log: everything that could change how it is read is escaped, line ends are kept.

    A user and password in an address, as in mqtt://user:password@host, are left out.
    """
    text = _without_login(text)
    return text if text.isascii() and text.isprintable() else _ESCAPED.sub(_escape_in_lines, text)


def printable(text: str) -> str:
    """The text for an error message: as `escaped`, on one line, a long text cut in the middle."""
    text = _without_login(text)
    short = text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH // 2]} … {text[-_MAX_LENGTH // 2 :]}"
    return _ESCAPED.sub(_escape, short)


def _without_login(text: str) -> str:
    return _LOGIN.sub("…@", text) if "://" in text else text


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _escape_in_lines(found: re.Match[str]) -> str:
    return found[0] if found[0] in "\n\t" else _escape(found)
