"""The storage of a network's matrices in each scheme; biases, statistics and the highway stay float32.

The cell state is float32 in every scheme, since it accumulates rounding errors over thousands of steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from edge_lstm.bundle.network import Arithmetic, Layer, Network, Quantized, Weight, dense
from edge_lstm.bundle.schemes import Scheme
from edge_lstm.foundation.arrays import Floats
from edge_lstm_export.quantization.error_feedback import (
    LayerInputs,
    MatrixWithInputs,
    layer_inputs,
    round_with_feedback,
)

_LEAST_SCALE = np.finfo(np.float32).tiny  # for rows of zeros
# Shares of a row's largest magnitude at which int4 may clip; the share with the least squared error is used.
_CLIPS = np.linspace(0.5, 1.0, 11, dtype=np.float32)
_LEAST_HIDDEN = 128  # with fewer units, integer kernels are no faster than float32, only less exact


def int8_rows(matrix: Floats) -> Quantized:
    """matrix (rows, columns) rounded to int8, symmetric about 0, with one scale for each row.

    A row's error is at most half its scale, which is the row's largest magnitude / 127.
    """
    return _rounded(matrix, np.abs(matrix).max(axis=1), 8)


def int8_columns(matrix: Floats) -> Quantized:
    """matrix (rows, columns) rounded to int8, symmetric about 0, with one scale for each column.

    A matrix of the gates has many more rows than columns, and every scale takes twelve bytes in a TFLite file.
    """
    turned = int8_rows(np.ascontiguousarray(matrix.T))
    return Quantized(np.ascontiguousarray(turned.values.T), turned.scales, axis=1)


def int8_whole(matrix: Floats) -> Quantized:
    """matrix (rows, columns) rounded to int8 with one scale for all rows, as dynamic kernels need it."""
    return _rounded(matrix, np.full(len(matrix), np.abs(matrix).max(), np.float32), 8)


def int4_rows(matrix: Floats) -> Quantized:
    """matrix (rows, columns) rounded to -7 to 7, each row with the scale of the least squared error."""
    largest = np.abs(matrix).max(axis=1)
    tried = [_rounded(matrix, clip * largest, 4) for clip in _CLIPS]
    errors = np.stack([((one.dequantized() - matrix) ** 2).sum(axis=1) for one in tried])
    best = errors.argmin(axis=0)  # (rows,)
    rows = np.arange(len(matrix))
    values, scales = np.stack([one.values for one in tried]), np.stack([one.scales for one in tried])
    return Quantized(values[best, rows], scales[best, rows], 4)


def _rounded(matrix: Floats, largest: Floats, bits: Literal[4, 8]) -> Quantized:
    """Rounding to a symmetric range: -128 (or -8) is unused, and no zero point is needed."""
    most = 2 ** (bits - 1) - 1
    scales = np.maximum(largest / np.float32(most), _LEAST_SCALE).astype(np.float32)
    values = np.clip(np.rint(matrix / scales[:, None]), -most, most).astype(np.int8)
    return Quantized(values, scales, bits)


@dataclasses.dataclass(frozen=True)
class _Storage:
    recurrent: Callable[[Floats], Weight]
    head: Callable[[Floats], Weight]
    arithmetic: Arithmetic = "float32"


def _half(matrix: Floats) -> Weight:
    return matrix.astype(np.float16)


_STORAGE: Mapping[Scheme, _Storage] = {
    "float32": _Storage(lambda matrix: matrix, lambda matrix: matrix),
    "float16": _Storage(_half, _half),
    "int8": _Storage(int8_columns, int8_rows),
    "int8-dynamic": _Storage(int8_whole, int8_rows, "dynamic"),
    "int8-static": _Storage(int8_rows, int8_rows, "static"),
    "int4": _Storage(int4_rows, int4_rows),
}
DEFAULT_SCHEMES: tuple[Scheme, ...] = ("float32", "int8")


def unsupported_reason(network: Network, scheme: Scheme, format: str) -> str | None:
    """Why the network has no variant of that scheme and format; None if it has one."""
    if not network.layers:
        return "a network without layers has no integer kernels" if scheme == "int8-dynamic" else None
    if scheme == "int8-dynamic" and network.hidden < _LEAST_HIDDEN:
        return f"integer kernels gain nothing below {_LEAST_HIDDEN} units, and this network has {network.hidden}"
    if scheme == "int8-dynamic" and format == "onnx" and network.cell == "gru":
        return "onnxruntime has a dynamic LSTM and no dynamic GRU"
    if scheme == "int8-dynamic" and format == "numpy":
        return "numpy has no integer kernels"
    if scheme == "int8-static" and format == "tflite":
        return (
            "TFLite's static products round their outputs to int8 as well, which causes a drift of 0.02 to 0.03 or more"
        )
    return None


def quantized(network: Network, scheme: Scheme, inputs: Floats | None = None) -> Network:
    """The float32 `network` with its matrices stored as in `scheme`.

    inputs (steps, inputs): an input sequence of one stream. With it, integers are rounded with feedback, and
    int8-static is calibrated; without it, integers are rounded to the nearest. Raises ValueError if the network is
    quantized already, or if int8-static has no inputs. A network without layers has no matrix to store in another way.
    """
    if not network.layers:
        return network
    storage = _STORAGE[scheme]
    if storage.arithmetic == "static" and inputs is None:
        raise ValueError("expected an input sequence for calibration, found none")
    for weight in (network.head_weight, *(one for layer in network.layers for one in (layer.w_ih, layer.w_hh))):
        if isinstance(weight, Quantized) or weight.dtype != np.float32:
            raise ValueError("expected a float32 network, found one that is quantized already")
    layers = [_store_layer(layer, storage.recurrent) for layer in network.layers]
    head = storage.head(dense(network.head_weight))
    if inputs is not None and isinstance(head, Quantized):
        of_layers, head_inputs = layer_inputs(network, inputs)
        layers = [_round_with_feedback(*layer) for layer in zip(network.layers, layers, of_layers, strict=True)]
        (head,) = round_with_feedback([MatrixWithInputs(dense(network.head_weight), head, head_inputs)])
        if storage.arithmetic == "static":
            layers = [
                dataclasses.replace(layer, x_step=_int8_step(own.x), h_step=_int8_step(own.h))
                for layer, own in zip(layers, of_layers, strict=True)
            ]
    return dataclasses.replace(network, layers=tuple(layers), head_weight=head, arithmetic=storage.arithmetic)


def _store_layer(layer: Layer, storage: Callable[[Floats], Weight]) -> Layer:
    return dataclasses.replace(layer, w_ih=storage(dense(layer.w_ih)), w_hh=storage(dense(layer.w_hh)))


def _round_with_feedback(plain: Layer, nearest: Layer, inputs: LayerInputs) -> Layer:
    """The layer rounded with feedback over both matrices at once, since their products are added up.

    A GRU's new gate first scales one product with the reset gate. To treat them as a sum is still far better than to
    round both matrices apart.
    """
    if not isinstance(nearest.w_ih, Quantized) or not isinstance(nearest.w_hh, Quantized):
        return nearest
    from_x = MatrixWithInputs(dense(plain.w_ih), nearest.w_ih, inputs.x)
    from_h = MatrixWithInputs(dense(plain.w_hh), nearest.w_hh, inputs.h)
    w_ih, w_hh = round_with_feedback([from_x, from_h])
    return dataclasses.replace(nearest, w_ih=w_ih, w_hh=w_hh)


def _int8_step(calibrated: Floats) -> float:
    """The size of one int8 step for the range of these values."""
    return float(np.float32(max(float(np.abs(calibrated).max()), 1e-6) / 127))
