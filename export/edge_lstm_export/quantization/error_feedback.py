"""Rounding with feedback: later columns of a matrix compensate the rounding errors of earlier ones.

Columns with correlated inputs can replace one another. So each rounding error is passed on to the columns that are not
rounded yet, in the shares that keep the products closest over an input sequence (Hassibi & Stork 1992; GPTQ, Frantar et
al. 2022). It needs no training and changes no scale.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.network import CARRIED, Network, Quantized
from edge_lstm.foundation.arrays import Doubles, Floats

_DAMPING = 0.01  # of the mean input power: limits the feedback for inputs that hardly vary


@dataclasses.dataclass(frozen=True, eq=False)
class MatrixWithInputs:
    """A matrix, its nearest rounding, and the vectors that it is multiplied with along an input sequence."""

    matrix: Floats  # (rows, columns)
    nearest: Quantized
    inputs: Floats  # (steps, columns)


def round_with_feedback(matrices: Sequence[MatrixWithInputs]) -> list[Quantized]:
    """The matrices rounded with feedback, in the scales of their nearest rounding.

    Their products are added up, so they have the same rows: (rows, any) each.
    """
    x = np.concatenate([one.inputs for one in matrices], axis=1).astype(np.float64)
    rest = np.concatenate([one.matrix for one in matrices], axis=1).astype(np.float64)  # not rounded yet
    scales = np.concatenate([_scales(one.nearest) for one in matrices], axis=1)
    most = 2 ** (matrices[0].nearest.bits - 1) - 1
    power = x.T @ x / len(x)
    power += np.eye(len(power)) * max(_DAMPING * float(np.diag(power).mean()), 1e-12)
    shares = np.linalg.cholesky(np.linalg.inv(power)).T  # upper: of a column's error, for each column after it
    values = np.empty(rest.shape, np.int8)
    for column in range(rest.shape[1]):
        scale = scales[:, column]
        values[:, column] = np.clip(np.rint(rest[:, column] / scale), -most, most)
        error = (rest[:, column] - values[:, column] * scale) / shares[column, column]
        rest[:, column + 1 :] -= np.outer(error, shares[column, column + 1 :])
    parts = np.split(values, np.cumsum([one.matrix.shape[1] for one in matrices])[:-1], axis=1)
    rounded = (np.ascontiguousarray(part) for part in parts)
    return [dataclasses.replace(one.nearest, values=part) for one, part in zip(matrices, rounded, strict=True)]


def _scales(weight: Quantized) -> Doubles:
    """(rows, columns)"""
    scales = weight.scales if weight.axis else weight.scales[:, None]
    return np.broadcast_to(scales, weight.shape).astype(np.float64)


@dataclasses.dataclass(frozen=True, eq=False)
class LayerInputs:
    """The vectors that a layer's matrices are multiplied with along an input sequence."""

    x: Floats  # (steps, inputs)
    h: Floats  # (steps, hidden): before each step


def layer_inputs(network: Network, inputs: Floats) -> tuple[list[LayerInputs], Floats]:
    """The inputs of each layer and of the head (steps, hidden), in one stream along `inputs` (steps, inputs)."""
    backend, carried = ReferenceBackend(network), len(CARRIED[network.cell])
    states = [np.zeros((1, size), np.float32) for size in network.state_sizes.values()]
    hidden: list[list[Floats]] = [[states[index * carried][0]] for index in range(len(network.layers))]
    for row in inputs:
        _, states = backend.step(row[None], states)
        for index, column in enumerate(hidden):
            column.append(states[index * carried][0])
    x: Floats = ((inputs - network.mean) / network.scale).astype(np.float32)
    layers = []
    for column in hidden:
        layers.append(LayerInputs(x, np.stack(column[:-1])))
        x = np.stack(column[1:])
    return layers, x
