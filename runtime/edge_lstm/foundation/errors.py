"""The one exception that a user may see: what was expected, what was found, where, and what to do."""

from __future__ import annotations


class EdgeLstmError(Exception):
    """A fault that the user can mend.

    `message` says what was expected, what was found and where; `hint` says what to do about it.
    The command line prints both on stderr and ends with `exit_code`. Anything else that escapes is a bug.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message
