"""docs/tasks.md: its sections are recipes, and its samples are what their models publish."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.config import from_mapping
from edge_lstm.messages.encoder import Encoder
from edge_lstm.messages.mapping import OutputMapping
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from edge_lstm_train.recipe.recipe import Recipe
from tests.networks import random_network
from tests.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCUMENT = (ROOT / "docs/tasks.md").read_text(encoding="utf-8")
COMMON = {"stream", "time", "step", "warm_steps", "revision", "bundle"}
TASKS = ("forecast", "anomaly", "classify", "regress")


def blocks(task: str, language: str) -> list[str]:
    (section,) = re.findall(rf"^## {task}$(.*?)^## ", DOCUMENT, re.M | re.S | re.I)
    return re.findall(rf"```{language}\n(.*?)```", section, re.S)


def contract_of(task: str) -> Contract:
    """That of the page's recipe, over two features."""
    features: dict[str, Any] = {"pressure": {"unit": "bar"}, "flow": {}}
    whole = {"name": "page", "recording": {"path": "pumps.csv"}, "features": features}
    recipe = from_mapping({**whole, **tomllib.loads(blocks(task, "toml")[0])}, Recipe, "docs/tasks.md")
    return recipe.contract([4.0, 12.0], [1.0, 1.0])


def form(value: object) -> object:
    """A message without its numbers: names in their order, and what kind of thing stands there."""
    if isinstance(value, dict):
        return [(name, form(one)) for name, one in value.items() if name not in COMMON]
    return type(value).__name__ if not isinstance(value, bool) else value


def published(contract: Contract, make_bundle: Callable[..., Bundle], path: Path) -> list[dict[str, Any]]:
    """What a service would say to 500 steady readings and then a jump."""
    network = random_network(inputs=len(contract.inputs), hidden=32, outputs=len(contract.outputs))
    bundle = make_bundle(path, network, contract)
    predictor, encoder = Predictor.of(bundle), Encoder(OutputMapping(), bundle.id)
    random = np.random.default_rng(1)
    said = []
    for step in range(520):
        jump = 30.0 if step >= 500 else 0.0
        values = {"pressure": 4.0 + jump + random.normal(0, 0.1), "flow": 12.0 + random.normal(0, 0.1)}
        said += predictor.feed([Reading("pump-1", 1.7e9 + 60 * step, values)])
    return [json.loads(encoder.payload(prediction)) for prediction in said]


@pytest.mark.parametrize("task", TASKS)
def test_the_samples_match_what_a_service_publishes(
    task: str, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    (block,) = blocks(task, "json")
    samples = [json.loads(line) for line in re.split(r"\n(?=\{)", block.strip())]
    said = published(contract_of(task), make_bundle, tmp_path / "page.elstm")
    assert len(said) == 520
    assert all(message.keys() > COMMON for message in said)
    forms = [form(message) for message in said]
    assert list(dict.fromkeys(map(repr, forms))) == [repr(form(sample)) for sample in samples]  # in this order


@pytest.mark.parametrize("task", TASKS)
def test_the_samples_are_consistent(task: str) -> None:
    for sample in map(json.loads, re.split(r"\n(?=\{)", blocks(task, "json")[0].strip())):
        if "label" in sample:
            shares = {name: value["0"] for name, value in sample["predictions"].items()}
            assert sample["label"] == max(shares, key=lambda name: shares[name])
            assert sum(shares.values()) == pytest.approx(1.0)
        if "score" in sample:
            assert sample["alarm"] == (sample["score"] is not None and sample["score"] > 1)
