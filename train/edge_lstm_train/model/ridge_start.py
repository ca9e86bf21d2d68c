"""The start of the highway at the closed-form ridge solution over the samples that it sees."""

from __future__ import annotations

import numpy as np
import torch

from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.model.forecaster import Forecaster
from edge_lstm_train.model.ridge import blocks_of

_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the standardized samples, per training row


def start_at_ridge(model: Forecaster, dataset: Dataset, refit: bool = False) -> None:
    """Set the highway's weights and the head's bias to the ridge solution (Hoerl & Kennard 1970), in place.

    Each output takes the penalty that is best on the validation part. The fit uses the steps at which the register is
    full. With `refit`, once the penalty is known, the weights are fitted again on training and validation part.
    """
    inputs = _HighwayInputs(model, dataset)
    scale, offset = model.output_scale.double().numpy(), model.output_offset.double().numpy()
    train, validation = inputs.full(dataset.steps("train")), inputs.full(dataset.steps("validation"))
    both = inputs.full(dataset.with_validation_in_training().steps("train"))
    for output in range(dataset.targets.shape[1]):
        # (steps,), in the head's units; one output at a time, so that memory holds few copies of the recording
        wanted = (dataset.targets[:, output] - offset[output] - _level(model, dataset, output)) / scale[output]
        solutions = _solutions(inputs, wanted, train)
        errors = np.zeros(len(solutions))
        for rows in blocks_of(validation[np.isfinite(wanted[validation])]):
            errors += ((inputs.at(rows) @ solutions.T - wanted[rows][:, None]) ** 2).sum(axis=0)
        best = (_solutions(inputs, wanted, both) if refit else solutions)[errors.argmin()]
        model.highway.weight[output] = torch.from_numpy(best[:-1])
        model.head.bias[output] = float(best[-1])


class _HighwayInputs:
    """The inputs of the highway at each step of a dataset, and a one for the bias."""

    def __init__(self, model: Forecaster, dataset: Dataset) -> None:
        mean, scale = model.mean.double().numpy(), model.scale.double().numpy()
        self._features, self._mean, self._scale = dataset.features, mean, scale
        self._earlier = model.shape.highway
        self._level_free = model.shape.level_free
        self._run_start = dataset.run_start

    def _standardized(self, steps: Integers) -> Doubles:
        """(*steps.shape, inputs): computed where it is needed, since all of it would double the memory."""
        found: Doubles = (self._features[steps] - self._mean) / self._scale
        return found

    def full(self, steps: Integers) -> Integers:
        """The steps whose run has filled the register; all of them if there is none."""
        full = steps[steps - self._run_start[steps] >= self._earlier]
        return full if full.size else steps

    def at(self, steps: Integers) -> Doubles:
        """(steps, highway inputs + 1): zeros in the register before the run."""
        back = steps[:, None] - np.arange(1, self._earlier + 1)  # newest first, as in the register
        before = back < self._run_start[steps][:, None]
        earlier = self._standardized(np.maximum(back, 0))  # (steps, highway, inputs)
        earlier[before] = 0.0
        newest = self._standardized(steps)[:, None]
        samples = earlier - newest if self._level_free else np.concatenate([newest, earlier], axis=1)
        rows = samples.reshape(len(steps), -1)
        return np.concatenate([rows, np.ones((len(steps), 1))], axis=1)


def _solutions(inputs: _HighwayInputs, wanted: Doubles, train: Integers) -> Doubles:
    """(penalties, columns): one solution per penalty."""
    known = train[np.isfinite(wanted[train])]
    size = inputs.at(known[:1]).shape[1]
    gram, moment = np.zeros((size, size)), np.zeros(size)
    for rows in blocks_of(known):
        x = inputs.at(rows)
        gram += x.T @ x
        moment += x.T @ wanted[rows]
    shrink = np.eye(size)
    shrink[-1, -1] = 0.0  # no penalty on the bias
    tiny = 1e-9 * np.eye(size)  # an input that never changes makes the matrix singular
    return np.stack(
        [np.linalg.solve(gram / len(known) + penalty * shrink + tiny, moment / len(known)) for penalty in _PENALTIES]
    )


def _level(model: Forecaster, dataset: Dataset, output: int) -> Doubles:
    """(steps,): the newest value that the network adds to the output; zeros if it predicts no changes."""
    if not model.change_of.numel():
        return np.zeros(len(dataset))
    return dataset.features[:, int(model.change_of[output])].astype(np.float64)
