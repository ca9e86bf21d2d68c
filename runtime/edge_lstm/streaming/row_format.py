"""The bytes of a stored row, and the layout that describes them."""

from __future__ import annotations

from typing import NamedTuple


class StoredRow(NamedTuple):
    """A stored row of a stream: its bytes, and the layout of the table that wrote it.

    An empty layout: release 0.1.0 wrote the row.
    """

    content: bytes
    layout: str = ""
