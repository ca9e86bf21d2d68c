"""The exceptions that a user may see: each says what was expected, what was found, where, and what to do."""

from __future__ import annotations


class EdgeLstmError(Exception):
    """A fault that the user can fix; the base of every exception that edge-lstm raises on purpose.

    `message` says what was expected, what was found and where; `hint` says what to do about it.
    The command line prints both on stderr and ends with `exit_code`. Any other exception is a bug.
    A fault of a file, a broker or a disk raises this class itself.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class BundleError(EdgeLstmError):
    """A bundle is missing, damaged, of another format version or not trusted, or the requested variant is not in it."""


class ConfigError(EdgeLstmError):
    """A service config, a recipe or a board file is not valid; the message lists every fault."""


class BackendError(EdgeLstmError):
    """An inference backend is not installed, does not run the bundle's variant, or fails its self-test."""


class ReadingError(EdgeLstmError):
    """A reading or a stream's state does not fit the model of the predictor; no stream has changed."""
