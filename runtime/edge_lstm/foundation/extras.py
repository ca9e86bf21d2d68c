"""Packages that a command needs beyond the base: found or refused by name, before anything is imported."""

from __future__ import annotations

from edge_lstm.foundation.errors import EdgeLstmError


def require(extras: str, *packages: str) -> None:
    """Raise EdgeLstmError for the first of `packages` that is not installed; `extras` is what brings them."""
    from importlib.util import find_spec  # here: every command imports this module, and few ask it

    for package in packages:
        if find_spec(package) is None:
            raise EdgeLstmError(f"{package} is not installed here", f"run pip install 'edge-lstm[{extras}]'")
