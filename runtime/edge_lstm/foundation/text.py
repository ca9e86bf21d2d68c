"""Texts of files: reads them by their byte order mark, and makes them safe to show on a terminal."""

from __future__ import annotations

import codecs
import re

# Control characters, line separators, marks of writing direction, surrogates.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LOGIN = re.compile(r"(?<=://)\S*@")  # user and password in an address; a password may have / and @ too
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


def printable(text: str) -> str:
    """The text for an error message: on one line, control characters escaped, a long text cut in the middle.

    A user and password in an address, as in mqtt://user:password@host, are left out.
    """
    text = _LOGIN.sub("…@", text)
    short = text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH // 2]} … {text[-_MAX_LENGTH // 2 :]}"
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), short)
