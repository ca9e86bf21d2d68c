"""A recipe as TOML text with a comment per key, and single values as TOML."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from edge_lstm_train.recipe.recipe import Recipe


def recipe_toml(recipe: Recipe) -> str:
    """The recipe as TOML with every default and a comment per key; `read_recipe` reads it back."""
    return "\n".join(_toml_lines(recipe, "")) + "\n"


def _toml_lines(section: Any, prefix: str) -> Iterator[str]:
    tables: list[tuple[str, Any, str]] = []
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        doc = field.metadata.get("doc", "")
        if dataclasses.is_dataclass(value):
            tables.append((f"{prefix}{field.name}", value, doc))
        elif isinstance(value, Mapping) and not any(dataclasses.is_dataclass(item) for item in value.values()):
            if value:
                yield f"{field.name} = {toml_value(value)}" + (f"  # {doc}" if doc else "")
        elif isinstance(value, Mapping):
            tables += [(f"{prefix}{field.name}.{toml_key(name)}", item, doc) for name, item in value.items()]
        elif value is not None:
            yield f"{field.name} = {toml_value(value)}" + (f"  # {doc}" if doc else "")
    for header, value, doc in tables:
        yield ""
        yield f"[{header}]" + (f"  # {doc}" if doc else "")
        yield from _toml_lines(value, f"{header}.")


def toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def toml_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{toml_key(name)} = {toml_value(item)}' for name, item in value.items())}}}"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)  # strings, integers and booleans look alike in JSON and TOML
