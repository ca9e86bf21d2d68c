"""The schemes: how each matrix of a network is stored; biases, statistics and arithmetic stay float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from edge_lstm.bundle import Scheme
from edge_lstm.network import Network, Quantized, Weight

Floats = NDArray[np.float32]
_LARGEST = 127  # -128 stays unused, so that the range is symmetric and no zero point is needed
_LEAST_SCALE = np.finfo(np.float32).tiny  # for rows of zeros


def int8_rows(matrix: Floats) -> Quantized:
    """matrix (rows, columns) rounded to int8, symmetric about 0, with one scale for each row.

    A row's error is at most half its scale, which is the row's largest magnitude / 127.
    """
    scales = np.maximum(np.abs(matrix).max(axis=1) / np.float32(_LARGEST), _LEAST_SCALE).astype(np.float32)
    values = np.clip(np.rint(matrix / scales[:, None]), -_LARGEST, _LARGEST).astype(np.int8)
    return Quantized(values, scales)


_STORED_AS: Mapping[Scheme, Callable[[Floats], Weight]] = {
    "float32": lambda matrix: matrix,
    "int8": int8_rows,
}
SCHEMES: tuple[Scheme, ...] = tuple(_STORED_AS)


def quantized(network: Network, scheme: Scheme) -> Network:
    """The float32 `network` with its matrices stored as `scheme` says; w_ih and w_hh have scales of their own."""
    stored = _STORED_AS[scheme]

    def of(weight: Weight) -> Weight:
        if isinstance(weight, Quantized):
            raise ValueError("expected a float32 network, found one that is quantized already")
        return stored(weight)

    layers = tuple(dataclasses.replace(layer, w_ih=of(layer.w_ih), w_hh=of(layer.w_hh)) for layer in network.layers)
    return dataclasses.replace(network, layers=layers, head_weight=of(network.head_weight))
