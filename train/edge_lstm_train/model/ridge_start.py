"""The highway's start: the closed-form ridge solution over the samples that it sees, so that training begins there."""

from __future__ import annotations

import numpy as np
import torch

from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.model.forecaster import Forecaster

_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the standardized taps, a row
_BLOCK = 16_384  # rows at a time, so that memory does not grow with the recording


def started_at_ridge(model: Forecaster, dataset: Dataset, refit: bool = False) -> None:
    """Put the highway's taps and the head's bias to what ridge gives (Hoerl & Kennard 1970), in place.

    Each output takes the penalty that is best on the validation part. The taps are fitted where the register is full,
    and with `refit` anew on both parts once the penalty is known.
    """
    taps = _Taps(model, dataset)
    scale, offset = model.output_scale.double().numpy(), model.output_offset.double().numpy()
    wanted = (dataset.targets - offset - _added(model, dataset)) / scale  # (steps, outputs), in the head's units
    train, validation = taps.full(dataset.steps("train")), taps.full(dataset.steps("validation"))
    both = taps.full(dataset.together().steps("train"))
    for output in range(wanted.shape[1]):
        solutions = _solutions(taps, wanted[:, output], train)
        errors = np.zeros(len(solutions))
        for rows in _blocks(validation[np.isfinite(wanted[validation, output])]):
            errors += ((taps.at(rows) @ solutions.T - wanted[rows, output][:, None]) ** 2).sum(axis=0)
        best = (_solutions(taps, wanted[:, output], both) if refit else solutions)[errors.argmin()]
        model.highway.weight[output] = torch.from_numpy(best[:-1])
        model.head.bias[output] = float(best[-1])


class _Taps:
    """What the highway sees at each step of a dataset, and a one for the bias."""

    def __init__(self, model: Forecaster, dataset: Dataset) -> None:
        mean, scale = model.mean.double().numpy(), model.scale.double().numpy()
        self._standardized = (dataset.features - mean) / scale  # (steps, inputs)
        self._earlier = model.shape.highway
        self._level_free = model.shape.level_free
        self._run_start = dataset.run_start

    def full(self, steps: Integers) -> Integers:
        """Those of the steps before which the run has as many steps as the register holds; all where none is."""
        full = steps[steps - self._run_start[steps] >= self._earlier]
        return full if full.size else steps

    def at(self, steps: Integers) -> Doubles:
        """(steps, taps + 1), zeros in the register before the run."""
        back = steps[:, None] - np.arange(1, self._earlier + 1)  # newest first, as the register
        before = back < self._run_start[steps][:, None]
        taps = self._standardized[np.maximum(back, 0)]  # (steps, highway, inputs)
        taps[before] = 0.0
        newest = self._standardized[steps][:, None]
        taps = taps - newest if self._level_free else np.concatenate([newest, taps], axis=1)
        rows = taps.reshape(len(steps), -1)
        return np.concatenate([rows, np.ones((len(steps), 1))], axis=1)


def _solutions(taps: _Taps, wanted: Doubles, train: Integers) -> Doubles:
    """One solution a penalty, (penalties, columns)."""
    known = train[np.isfinite(wanted[train])]
    size = taps.at(known[:1]).shape[1]
    gram, moment = np.zeros((size, size)), np.zeros(size)
    for rows in _blocks(known):
        x = taps.at(rows)
        gram += x.T @ x
        moment += x.T @ wanted[rows]
    shrink = np.eye(size)
    shrink[-1, -1] = 0.0  # the bias goes free
    tiny = 1e-9 * np.eye(size)  # an input that never changes has no solution of its own
    return np.stack(
        [np.linalg.solve(gram / len(known) + penalty * shrink + tiny, moment / len(known)) for penalty in _PENALTIES]
    )


def _added(model: Forecaster, dataset: Dataset) -> Doubles:
    """(steps, outputs): what the network adds to its own output, the newest values where it predicts changes."""
    if not model.change_of.numel():
        return np.zeros(dataset.targets.shape)
    return dataset.features[:, model.change_of.numpy()].astype(np.float64)


def _blocks(rows: Integers) -> list[Integers]:
    return [rows[first : first + _BLOCK] for first in range(0, len(rows), _BLOCK)]
