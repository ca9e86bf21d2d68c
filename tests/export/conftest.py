"""Checkpoints of random weights. Nothing is trained here, because the arithmetic must hold for any weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from edge_lstm.bundle.contract import Contract, Feature, Sampling, StateTensor
from edge_lstm.bundle.network import Cell
from edge_lstm_train.model.checkpoint import Checkpoint
from edge_lstm_train.model.forecaster import Forecaster, Shape
from tests.train.conftest import one_thread

__all__ = ["one_thread"]  # pytest finds the fixture here

FEATURES = [
    Feature("level", "m", 3.0, 2.0),
    Feature("temperature", "°C", 20.0, 5.0),
    Feature("pressure", "Pa", 1e5, 1e2),
]
HORIZONS = [1, 6]


@pytest.fixture(scope="session")
def make_checkpoint() -> Callable[..., Checkpoint]:
    """make_checkpoint(cell, layers, hidden=16, changes=True, features=..., steps=1000, highway=0): one target."""

    def make(
        cell: Cell = "lstm",
        layers: int = 1,
        *,
        hidden: int = 16,
        changes: bool = True,
        features: list[Feature] = FEATURES,
        steps: int = 1000,
        highway: int = 0,
        level_free: bool = True,
        linear: bool = False,
        filled: bool = False,
    ) -> Checkpoint:
        torch.manual_seed(layers)
        sizes = (hidden, layers) if cell != "none" else (0, 0)
        shape = Shape(cell, len(features), *sizes, len(HORIZONS), highway=highway, level_free=level_free)
        shape = dataclasses.replace(shape, linear=linear, filled=filled)
        model = Forecaster(shape)
        if shape.has_highway:
            torch.nn.init.normal_(model.highway.weight, std=0.3 / max(1, highway))
        mean = np.array([feature.mean for feature in features], np.float32)
        scale = np.array([feature.scale for feature in features], np.float32)
        model.mean.copy_(torch.from_numpy(mean))
        model.scale.copy_(torch.from_numpy(scale))
        model.output_scale.copy_(torch.tensor([0.5, 2.0]))
        model.output_offset.copy_(torch.tensor([0.25, -1.0]))
        if changes:
            model.change_of = torch.zeros(len(HORIZONS), dtype=torch.int64)
        rng = np.random.default_rng(layers)
        walk = np.cumsum(rng.normal(0, 0.2, (steps, len(features))), axis=0)
        inputs = (np.sin(walk) * scale + mean).astype(np.float32)
        states = [StateTensor(name, [size]) for name, size in shape.state_sizes.items()]
        sampling = Sampling(interval_s=600.0, max_gap_s=3600.0)
        contract = Contract("tank", "forecast", features, [features[0].name], HORIZONS, states, [], sampling)
        return Checkpoint(model, contract, inputs, {"recipe": "none"})

    return make
