"""The way of raw features into the first layer: folded into its weights where float32 can afford it, else operations.

(features - mean) / scale is linear, so the first layer's matrix and bias can take it over and a step has two
operations less. Not where a feature lies far from zero, as an air pressure does: its large product and the bias that
takes it back would cancel, and what is left has lost its last digits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edge_lstm.bundle.network import Layer, Network, Quantized, dense
from edge_lstm.foundation.arrays import Floats

# Standard deviations from zero up to which a mean goes into the bias: it costs three bits of the twenty-four.
_NEAR = 8.0
_PLAIN_SCALES = (1e-20, 1e20)  # beyond, a folded weight could leave float32's range


@dataclass(frozen=True, eq=False)
class InputScaling:
    """x = (features - offset) * factor goes into `first`, whose w_ih's columns are multiplied by `columns` at load."""

    first: Layer
    offset: Floats | None = None  # (inputs,), None: nothing to subtract
    factor: Floats | None = None  # (inputs,), None: nothing to multiply by
    columns: Floats | None = None  # (inputs,), None: w_ih stays as it is stored


def input_scaling_of(network: Network, *, columns_at_load: bool) -> InputScaling:
    """How the network takes raw features; `columns_at_load`: whether the format can scale stored columns once.

    Rounded weights are those of standardized features, so their columns are scaled after rounding and not before:
    features of different units in one row would leave the small ones nothing. Where each column has a scale already,
    that scale takes it over. A highway and integer arithmetic want standardized features.
    """
    inverse_scale = np.float32(1) / network.scale
    least, most = _PLAIN_SCALES
    plain = bool(((network.scale > least) & (network.scale < most)).all())
    first = network.layers[0]
    if network.highway is not None or network.arithmetic != "float32" or not plain:
        return InputScaling(first, network.mean, inverse_scale)
    far = np.abs(network.mean) > _NEAR * network.scale
    offset = np.where(far, network.mean, np.float32(0)) if far.any() else None
    near = np.where(far, 0, network.mean).astype(np.float64) / network.scale  # (inputs,)
    first = replace(first, b_ih=(first.b_ih - dense(first.w_ih).astype(np.float64) @ near).astype(np.float32))
    if isinstance(first.w_ih, Quantized):
        if first.w_ih.axis == 1:
            scales = np.maximum(first.w_ih.scales * inverse_scale, np.finfo(np.float32).tiny)
            return InputScaling(replace(first, w_ih=replace(first.w_ih, scales=scales)), offset)
    elif first.w_ih.dtype == np.float32:
        return InputScaling(replace(first, w_ih=dense(first.w_ih) * inverse_scale), offset)
    if columns_at_load:
        return InputScaling(first, offset, columns=inverse_scale)
    return InputScaling(first, offset, inverse_scale)
