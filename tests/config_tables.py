"""Tables of the keys of service.toml, boards and recipes: written from the code, between marks in the documents.

A document says `<!-- keys: MqttConfig -->` and, on a line below, `<!-- end -->`. `python -m tests.config_tables` writes
the table of that class between the two; `outdated` finds the documents that differ from the code.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union

from edge_lstm.bundle.contract import Sampling
from edge_lstm.hardware.boards import BoardConfig, Budget, Image, ServiceDefaults
from edge_lstm.messages.forecasts.forecast_mapping import ForecastMapping
from edge_lstm.messages.mapping import InputMapping, Join, OutputMapping, ValueMapping
from edge_lstm.service.config import ClockConfig, LearnConfig, MetricsConfig, MqttConfig, ServiceConfig
from edge_lstm.service.feedback.config import FeedbackConfig
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.recording_sections import FeatureSection, LabelSection, RecordingSection
from edge_lstm_train.recipe.task_sections import AnomalySection, ClassifySection, ForecastSection, RegressSection
from edge_lstm_train.recipe.training_sections import (
    AugmentSection,
    FitSection,
    ModelSection,
    Range,
    ReportSection,
    SplitSection,
)
from tests.paths import ROOT

RUNTIME: tuple[type, ...] = (
    *(ServiceConfig, MqttConfig, ClockConfig, MetricsConfig, LearnConfig, FeedbackConfig),
    *(InputMapping, Join, ValueMapping, ForecastMapping, OutputMapping),
    *(BoardConfig, Image, ServiceDefaults, Budget),
)
RECIPE: tuple[type, ...] = (
    *(Recipe, RecordingSection, FeatureSection, LabelSection, SplitSection),
    *(ForecastSection, AnomalySection, ClassifySection, RegressSection),
    *(Sampling, AugmentSection, ModelSection, FitSection, ReportSection, Range),
)
SCHEMAS: dict[str, type] = {schema.__name__: schema for schema in (*RUNTIME, *RECIPE)}

_TABLE = re.compile(r"(<!-- keys: (\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)
_HEAD = "| key | type | unit | default | meaning |\n|---|---|---|---|---|\n"
_UNITS = {"s": "s", "ms": "ms", "mb": "MB", "hz": "Hz", "bytes": "bytes", "degrees": "degrees", "steps": "steps"}
_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}
_CODE = re.compile(  # a key with its value, a name that only a key has, parts of a topic, a text
    r'\b[a-z_]+ = (?:"[^"]*"|\{[^}]*\})|\b[a-z]+(?:_[a-z0-9]+)+|\{[^}]*\}(?:-\{\w+\})*|"[^"]*"'
)


def documents(schemas: tuple[type, ...]) -> dict[str, list[Path]]:
    """The documents that hold a table of each of these classes."""
    found: dict[str, list[Path]] = {schema.__name__: [] for schema in schemas}
    for path in sorted((ROOT / "docs").glob("*.md")):
        for _, name, _ in _TABLE.findall(path.read_text(encoding="utf-8")):
            if name in found:
                found[name].append(path)
    return found


def outdated(schemas: tuple[type, ...]) -> list[Path]:
    """The documents whose tables of these classes differ from the code."""
    paths = {path for of_one in documents(schemas).values() for path in of_one}
    return [path for path in sorted(paths) if (text := path.read_text(encoding="utf-8")) != rewritten(text)]


def rewritten(text: str) -> str:
    """The document with each table as the code has it. Raises KeyError where a mark names an unknown class."""
    return _TABLE.sub(lambda found: found[1] + table(SCHEMAS[found[2]]) + found[3], text)


def table(schema: type) -> str:
    """A Markdown table, with a row for each key that may be written."""
    return _HEAD + "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |") for cells in _rows(schema))


def _rows(schema: type) -> Iterator[list[str]]:
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        meta = field.metadata
        if not meta["refused"]:
            kind = named(hints[field.name], meta["least"], meta["most"])
            meaning = _CODE.sub(r"`\g<0>`", meta["doc"]).replace("*", r"\*")
            cells = [f"`{field.name}`", kind, _UNITS.get(field.name.rpartition("_")[2], ""), _default(field), meaning]
            yield [cell.replace("|", r"\|") for cell in cells]


def named(kind: Any, least: float | None = None, most: float | None = None) -> str:
    """A type in words, with the bounds of its numbers: `list[int] | None` is a "list of whole numbers"."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(named(one, least, most) for one in arguments if one is not type(None))
    if origin is Literal:
        return f"one of {', '.join(_toml(one) for one in arguments)}"
    if origin is list:
        return f"list of {_plural(arguments[0], least, most)}"
    if origin is dict:
        return f"table of {_plural(arguments[1], least, most)}"
    if dataclasses.is_dataclass(kind):
        return "table"
    return _NAMES[kind] + _bounds(least, most)


def _plural(kind: Any, least: float | None, most: float | None) -> str:
    if typing.get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_plural(one, least, most) for one in typing.get_args(kind))
    if typing.get_origin(kind) is list:
        return f"lists of {_plural(typing.get_args(kind)[0], least, most)}"
    if typing.get_origin(kind) is Literal:
        return ", ".join(_toml(one) for one in typing.get_args(kind))
    if typing.get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_plural(one, least, most) for one in typing.get_args(kind))
    return re.sub(r"^(text|whole number|number|table|list)", r"\1s", named(kind, least, most))


def _bounds(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f" from {_number(least)} to {_number(most)}"
    if least is not None:
        return f" ≥ {_number(least)}"
    return "" if most is None else f" ≤ {_number(most)}"


def _number(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}".replace("e-0", "e-")


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return _toml(field.default_factory())
    if field.default is dataclasses.MISSING:
        return "required"
    return _toml(field.default)


def _toml(value: Any) -> str:
    if value is None:
        return "none"
    if dataclasses.is_dataclass(value):
        return "its defaults"
    if isinstance(value, str):
        return f'`"{value}"`'
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def main() -> None:
    """Write the tables into the documents, and name those that changed."""
    for path in outdated((*RUNTIME, *RECIPE)):
        path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: tables of keys written", file=sys.stderr)


if __name__ == "__main__":
    main()
