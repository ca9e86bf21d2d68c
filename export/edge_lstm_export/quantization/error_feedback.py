"""Rounding with feedback: what one column of a matrix loses, the columns after it make up for.

Columns that see inputs which move together can stand in for one another, so each rounding error is passed on to those
that are not rounded yet, in the shares that keep the products closest over a tape's inputs (Hassibi & Stork 1992;
GPTQ, Frantar et al. 2022). It needs no training and changes no scale.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.network import CARRIED, Network, Quantized
from edge_lstm.foundation.arrays import Doubles, Floats

_DAMPING = 0.01  # of the mean input's power: it holds back where the tape says little


@dataclasses.dataclass(frozen=True, eq=False)
class Factor:
    """A matrix, its nearest rounding, and what it is multiplied with along a tape."""

    matrix: Floats  # (rows, columns)
    nearest: Quantized
    inputs: Floats  # (steps, columns)


def with_feedback(factors: Sequence[Factor]) -> list[Quantized]:
    """Matrices whose products are added up, (rows, any) each, rounded again in the scales of their nearest rounding."""
    x = np.concatenate([one.inputs for one in factors], axis=1).astype(np.float64)
    left = np.concatenate([one.matrix for one in factors], axis=1).astype(np.float64)
    scales = np.concatenate([_scales(one.nearest) for one in factors], axis=1)
    most = 2 ** (factors[0].nearest.bits - 1) - 1
    power = x.T @ x / len(x)
    power += np.eye(len(power)) * max(_DAMPING * float(np.diag(power).mean()), 1e-12)
    shares = np.linalg.cholesky(np.linalg.inv(power)).T  # upper: of a column's error to those after it
    values = np.empty(left.shape, np.int8)
    for column in range(left.shape[1]):
        scale = scales[:, column]
        values[:, column] = np.clip(np.rint(left[:, column] / scale), -most, most)
        error = (left[:, column] - values[:, column] * scale) / shares[column, column]
        left[:, column + 1 :] -= np.outer(error, shares[column, column + 1 :])
    parts = np.split(values, np.cumsum([one.matrix.shape[1] for one in factors])[:-1], axis=1)
    rounded = (np.ascontiguousarray(part) for part in parts)
    return [dataclasses.replace(one.nearest, values=part) for one, part in zip(factors, rounded, strict=True)]


def _scales(weight: Quantized) -> Doubles:
    """(rows, columns)"""
    scales = weight.scales if weight.axis else weight.scales[:, None]
    return np.broadcast_to(scales, weight.shape).astype(np.float64)


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """What a layer's matrices are multiplied with along a tape."""

    x: Floats  # (steps, inputs)
    h: Floats  # (steps, hidden): before each step


def seen(network: Network, tape: Floats) -> tuple[list[Seen], Floats]:
    """What each layer sees, and what the head sees (steps, hidden), in one stream along `tape` (steps, inputs)."""
    backend, carried = ReferenceBackend(network), len(CARRIED[network.cell])
    states = [np.zeros((1, size), np.float32) for size in network.state_sizes.values()]
    hidden: list[list[Floats]] = [[states[index * carried][0]] for index in range(len(network.layers))]
    for row in tape:
        _, states = backend.step(row[None], states)
        for index, column in enumerate(hidden):
            column.append(states[index * carried][0])
    x: Floats = ((tape - network.mean) / network.scale).astype(np.float32)
    layers = []
    for column in hidden:
        layers.append(Seen(x, np.stack(column[:-1])))
        x = np.stack(column[1:])
    return layers, x
