"""The standardization of raw features: folded into the first layer if float32 allows it, else separate operations.

(features - mean) / scale is linear, so the first layer's matrix and bias can include it, which saves two operations per
step. A feature far from zero, such as an air pressure, is not folded: its large product and the bias would cancel, and
the result would lose its last digits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edge_lstm.bundle.network import Layer, Network, Quantized, dense
from edge_lstm.foundation.arrays import Floats

# The largest mean, in standard deviations, that goes into the bias: this costs three bits of the twenty-four.
_NEAR = 8.0
_PLAIN_SCALES = (1e-20, 1e20)  # with other scales, a folded weight could leave float32's range


@dataclass(frozen=True, eq=False)
class InputScaling:
    """x = (features - offset) * factor is the input of `first`, whose w_ih is multiplied by `columns` at load."""

    first: tuple[Layer, ...]  # the first layer; empty: the network has none
    offset: Floats | None = None  # (inputs,), None: nothing to subtract
    factor: Floats | None = None  # (inputs,), None: nothing to multiply by
    columns: Floats | None = None  # (inputs,), None: w_ih is used as stored


def input_scaling_of(network: Network, *, columns_at_load: bool) -> InputScaling:
    """The scaling for a network; `columns_at_load`: whether the format can scale stored columns once at load.

    Weights are rounded for standardized features, and their columns are scaled after rounding. Before it, features with
    small values would lose their precision to others in the same row. If each column has a scale already, that scale
    includes the factor. A highway and integer arithmetic need standardized features.
    """
    inverse_scale = np.float32(1) / network.scale
    least, most = _PLAIN_SCALES
    foldable = bool(((network.scale > least) & (network.scale < most)).all())
    if not network.layers:
        return InputScaling((), network.mean, inverse_scale)
    first = network.layers[0]
    if network.highway is not None or network.arithmetic != "float32" or not foldable:
        return InputScaling((first,), network.mean, inverse_scale)
    is_far = np.abs(network.mean) > _NEAR * network.scale
    offset = np.where(is_far, network.mean, np.float32(0)) if is_far.any() else None
    near = np.where(is_far, 0, network.mean).astype(np.float64) / network.scale  # (inputs,)
    first = replace(first, b_ih=(first.b_ih - dense(first.w_ih).astype(np.float64) @ near).astype(np.float32))
    if isinstance(first.w_ih, Quantized):
        if first.w_ih.axis == 1:
            scales = np.maximum(first.w_ih.scales * inverse_scale, np.finfo(np.float32).tiny)
            return InputScaling((replace(first, w_ih=replace(first.w_ih, scales=scales)),), offset)
    elif first.w_ih.dtype == np.float32:
        return InputScaling((replace(first, w_ih=dense(first.w_ih) * inverse_scale),), offset)
    if columns_at_load:
        return InputScaling((first,), offset, columns=inverse_scale)
    return InputScaling((first,), offset, inverse_scale)
