"""A dictionary for what is computed from names that anybody may choose: it is emptied before it grows too large."""

from __future__ import annotations

from typing import TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")

_LARGEST = 1 / 64  # of all bytes: one entry must not push out all the others


class LimitedDict(dict[_K, _V]):
    """Holds at most `most` entries of `most_bytes` bytes in all, as far as they are entered with `remember`.

    It is emptied at once, and not an entry at a time: a look-up then costs no more than that of a plain dictionary.
    """

    def __init__(self, most: int = 4096, most_bytes: int = 1 << 20) -> None:
        super().__init__()
        self._most, self._most_bytes = most, most_bytes
        self._bytes = 0

    def remember(self, key: _K, value: _V, size: int) -> _V:
        """Enter a new key and its value, which take `size` bytes; return the value. A large one is not entered."""
        if size <= _LARGEST * self._most_bytes:
            if len(self) >= self._most or self._bytes + size > self._most_bytes:
                self.clear()
            self[key] = value
            self._bytes += size
        return value

    def clear(self) -> None:
        super().clear()
        self._bytes = 0
