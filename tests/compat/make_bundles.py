"""The export half: writes a bundle for every cell, depth, head and scheme into the given folder.

python -m tests.compat.make_bundles FOLDER
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch

from edge_lstm.bundle.contract import Contract, Feature, StateTensor
from edge_lstm.bundle.network import Cell
from edge_lstm_export.assemble import FORMATS, bundle_bytes
from edge_lstm_train.model.checkpoint import Checkpoint
from edge_lstm_train.model.forecaster import Forecaster, Shape

CELLS: tuple[Cell, ...] = ("lstm", "gru")
FEATURES = [Feature("level", "m", 3.0, 2.0), Feature("pressure", "Pa", 1e5, 1e2)]


def checkpoint(cell: Cell, layers: int, highway: int, changes: bool, hidden: int = 16) -> Checkpoint:
    """Random weights: the arithmetic has to hold for any."""
    torch.manual_seed(layers)
    shape = Shape(cell, len(FEATURES), hidden, layers, 2, highway=highway)
    model = Forecaster(shape)
    model.mean, model.scale = torch.tensor([3.0, 1e5]), torch.tensor([2.0, 1e2])
    if changes:
        model.change_of = torch.zeros(2, dtype=torch.int64)
    states = [StateTensor(name, [size]) for name, size in shape.state_sizes.items()]
    contract = Contract(f"{cell}-{layers}-{highway}-{changes}", "forecast", FEATURES, ["level"], [1, 6], states)
    walk = np.cumsum(np.random.default_rng(0).normal(0, 0.2, (300, 2)), axis=0)
    tape = (np.sin(walk) * [2.0, 1e2] + [3.0, 1e5]).astype(np.float32)
    return Checkpoint(model, contract, tape, {})


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for cell, layers, highway, changes in product(CELLS, (1, 2, 3), (0, 4), (True, False)):
        made = checkpoint(cell, layers, highway, changes)
        schemes = ["float32", "float16", "int8", "int8-static", "int4"]
        content = bundle_bytes(made, schemes, FORMATS)  # type: ignore[arg-type]
        (folder / f"{made.contract.name}.elstm").write_bytes(content)
    dynamic = checkpoint("lstm", 1, 0, True, 128)
    (folder / "dynamic.elstm").write_bytes(bundle_bytes(dynamic, ["int8-dynamic"], FORMATS))
