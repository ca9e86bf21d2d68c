"""The network over many steps with its state carried: one batch of training, or all streams of a dataset."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edge_lstm.foundation.arrays import Doubles
from edge_lstm.foundation.progress import work
from edge_lstm_train.data.batches import Batch
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.split import Part
from edge_lstm_train.model.forecaster import Forecaster, State
from edge_lstm_train.model.ridge import kept_type

_RUNS_AT_ONCE = 64
_STEPS_AT_ONCE = 262_144  # of all runs together


def forward_batch(model: Forecaster, batch: Batch, state: State | None) -> tuple[Tensor, State]:
    """Predictions (segments, steps, outputs) and the state after them, detached from what came before the batch.

    The fused kernel cannot restart a state midway, so the batch is cut where any segment restarts.
    """
    device = model.mean.device
    features = torch.from_numpy(batch.features).to(device)
    segments, steps = batch.restart.shape
    start = model.initial_state(segments)
    if state is None or state[0].shape[1] != segments:
        state = start
    state = [tensor.detach() for tensor in state]
    cuts = sorted({0, *np.flatnonzero(batch.restart.any(axis=0)).tolist()})
    pieces = []
    for first, last in zip(cuts, [*cuts[1:], steps], strict=True):
        restarts = torch.from_numpy(batch.restart[:, first].copy()).to(device)[:, None]  # (segments, 1)
        state = [torch.where(restarts, fresh, tensor) for fresh, tensor in zip(start, state, strict=True)]
        prediction, state = model(features[:, first:last], state)
        pieces.append(prediction)
    return torch.cat(pieces, dim=1), state


def predict_streamed(model: Forecaster, dataset: Dataset, last: Part = "test") -> Doubles:
    """(steps, outputs): the prediction at every step up to the end of the part `last`, with carried state.

    It equals one step at a time, but uses the kernel for whole sequences. NaN after that part in each stream.
    """
    predictions = np.full(dataset.targets.shape, np.nan, kept_type(dataset))
    needed = dataset.needed_for(last)
    begins = np.flatnonzero(dataset.restart)
    runs = np.split(np.arange(len(dataset)), begins[1:])
    runs = [run[needed[run]] for run in runs]
    runs = sorted((run for run in runs if run.size), key=len)
    device = model.mean.device
    model.eval()
    with torch.no_grad(), work("validating", sum(map(len, runs)), "steps") as advance:
        for first in range(0, len(runs), _RUNS_AT_ONCE):
            group = runs[first : first + _RUNS_AT_ONCE]
            state = [tensor.contiguous() for tensor in model.initial_state(len(group))]
            length = max(1, _STEPS_AT_ONCE // len(group))
            for begin in range(0, len(group[-1]), length):  # in pieces, since a kernel keeps all gates of all steps
                pieces = [run[begin : begin + length] for run in group]
                longest = max(map(len, pieces))
                features = np.zeros((len(group), longest, dataset.features.shape[1]), np.float32)
                for row, piece in zip(features, pieces, strict=True):
                    row[: len(piece)] = dataset.features[piece]
                found, state = model(torch.from_numpy(features).to(device), state)  # (runs, steps, outputs)
                for row, piece in zip(found.cpu().numpy(), pieces, strict=True):
                    predictions[piece] = row[: len(piece)]
                advance(sum(map(len, pieces)))
    return predictions
