"""The format of log lines, in which texts of others are escaped."""

from __future__ import annotations

import logging

from edge_lstm.foundation.text import escaped


class EscapingFormatter(logging.Formatter):
    """Writes a message on one line through `escaped`; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name in logging
        """The line of the message."""
        return escaped(super().formatMessage(record)).replace("\n", "\\n")

    def format(self, record: logging.LogRecord) -> str:
        """The message and its traceback."""
        return escaped(super().format(record))
