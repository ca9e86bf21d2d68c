"""The bundle that the benchmarks serve: a pump's pressure and flow, one layer of 32 units, random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edge_lstm.bundle.contract import Contract, Feature, Sampling, StateTensor
from edge_lstm_export.assemble import export_bundle
from edge_lstm_train.model.checkpoint import Checkpoint
from edge_lstm_train.model.forecaster import Forecaster, Shape

HIDDEN = 32


def write_pump_bundle(path: Path) -> None:
    """Write it as ONNX, TFLite and numpy, float32 and int8; the cost of a step does not depend on the weights."""
    torch.manual_seed(0)
    model = Forecaster(Shape("lstm", inputs=5, hidden=HIDDEN, layers=1, outputs=2))
    model.mean, model.scale = torch.tensor([4.0, 12.0, 0, 0, 0]), torch.tensor([0.5, 3.0, 1, 1, 1])
    model.output_scale, model.change_of = torch.tensor([0.4, 0.9]), torch.tensor([0, 0])
    contract = Contract(
        name="pump",
        task="forecast",
        features=[Feature("pressure", "bar", 4.0, 0.5, mask=True), Feature("flow", "m3/h", 12.0, 3.0)],
        targets=["pressure"],
        horizons=[1, 10],
        states=[StateTensor(name, [HIDDEN]) for name in model.network().state_names],
        clock=["time_of_day"],
        sampling=Sampling(interval_s=60.0, max_gap_s=600.0),
    )
    inputs = np.random.default_rng(0).normal((4, 12, 0, 0, 0), (0.5, 3, 0, 0.7, 0.7), (300, 5)).astype(np.float32)
    export_bundle(Checkpoint(model, contract, inputs, {}), path)


if __name__ == "__main__":
    import sys

    write_pump_bundle(Path(sys.argv[1]))
