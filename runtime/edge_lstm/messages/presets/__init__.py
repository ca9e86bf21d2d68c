"""Mappings of well-known device software, by name: TOML files that hold what `[input]` would."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from importlib import resources
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@functools.cache
def preset(name: str) -> Mapping[str, Any]:
    """The keys of a preset, or none where there is no such preset."""
    file = resources.files(__name__) / f"{name}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8")) if name in preset_names() else {}


@functools.cache
def preset_names() -> tuple[str, ...]:
    """All presets, by name."""
    files = (file.name for file in resources.files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml")))
