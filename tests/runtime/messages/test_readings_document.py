"""docs/readings.md: every preset is in it, its examples are read, and its sample messages give readings."""

from __future__ import annotations

import re
import sys

import pytest

from edge_lstm.foundation.config import from_mapping
from edge_lstm.messages.mapping import InputMapping
from edge_lstm.messages.presets import preset_names
from tests.device_messages import decoder
from tests.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCUMENT = (ROOT / "docs/readings.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)


def test_every_preset_is_in_the_document() -> None:
    for name in preset_names():
        assert f"\n**{name}**: " in DOCUMENT
        assert f'preset = "{name}"' in DOCUMENT


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_a_mapping(example: str) -> None:
    table = tomllib.loads(example)
    table = table.get("input", table)
    whole = {"topic": "x/{stream}", **table} if "preset" not in table else table
    mapping = from_mapping(whole, InputMapping, "docs/readings.md")
    names = set(table) - {"topic", "values", "join"}  # these are parsed further
    assert {name: getattr(mapping, name) for name in names} == {name: table[name] for name in names}


@pytest.mark.parametrize("name", preset_names())
def test_the_sample_message_of_a_preset_gives_a_reading(name: str) -> None:
    (example,) = (text for text in EXAMPLES if f'preset = "{name}"' in text)
    sample = re.search(r"preset = .*# (\S+)  (.*)", example)
    assert sample is not None
    table = tomllib.loads(example)["input"]
    (reading,) = decoder(table, ["temperature", *(set(table.get("values", {})) - {"temperature"})]).readings(
        sample[1], sample[2].encode(), {}, 1.7e9
    )
    assert reading.values["temperature"] in (22.25, 26.5, 18.4, 17.5, 19.75, 21.5, 15.5, 61.5, 48.5)
