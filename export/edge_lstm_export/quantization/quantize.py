"""What becomes of a network's matrices in each scheme; biases, statistics and the highway stay float32.

The cell state is float32 in every scheme: it adds up over thousands of steps what the gates round away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from edge_lstm.bundle.network import Arithmetic, Layer, Network, Quantized, Weight, dense
from edge_lstm.bundle.schemes import Scheme
from edge_lstm.foundation.arrays import Floats
from edge_lstm_export.quantization.error_feedback import Factor, Seen, seen, with_feedback

_LEAST_SCALE = np.finfo(np.float32).tiny  # for rows of zeros
# Shares of a row's largest magnitude at which int4 may clip; the one with the least squared error is taken.
_CLIPS = np.linspace(0.5, 1.0, 11, dtype=np.float32)
_LEAST_HIDDEN = 128  # below, integer kernels are no faster than float32 and only less exact


def int8_rows(matrix: Floats) -> Quantized:
    """matrix (rows, columns) rounded to int8, symmetric about 0, with one scale for each row.

    A row's error is at most half its scale, which is the row's largest magnitude / 127.
    """
    return _rounded(matrix, np.abs(matrix).max(axis=1), 8)


def int8_columns(matrix: Floats) -> Quantized:
    """matrix (rows, columns) rounded to int8, symmetric about 0, with one scale for each column.

    A gates' matrix has many more rows than columns, and every scale takes twelve bytes in a TFLite file.
    """
    turned = int8_rows(np.ascontiguousarray(matrix.T))
    return Quantized(np.ascontiguousarray(turned.values.T), turned.scales, axis=1)


def int8_whole(matrix: Floats) -> Quantized:
    """matrix (rows, columns) rounded to int8 with the same scale for every row, as dynamic kernels want it."""
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
    """-128 (or -8) stays unused, so that the range is symmetric and no zero point is needed."""
    most = 2 ** (bits - 1) - 1
    scales = np.maximum(largest / np.float32(most), _LEAST_SCALE).astype(np.float32)
    values = np.clip(np.rint(matrix / scales[:, None]), -most, most).astype(np.int8)
    return Quantized(values, scales, bits)


@dataclasses.dataclass(frozen=True)
class _Stored:
    recurrent: Callable[[Floats], Weight]
    head: Callable[[Floats], Weight]
    arithmetic: Arithmetic = "float32"


def _half(matrix: Floats) -> Weight:
    return matrix.astype(np.float16)


_STORED: Mapping[Scheme, _Stored] = {
    "float32": _Stored(lambda matrix: matrix, lambda matrix: matrix),
    "float16": _Stored(_half, _half),
    "int8": _Stored(int8_columns, int8_rows),
    "int8-dynamic": _Stored(int8_whole, int8_rows, "dynamic"),
    "int8-static": _Stored(int8_rows, int8_rows, "static"),
    "int4": _Stored(int4_rows, int4_rows),
}
DEFAULT_SCHEMES: tuple[Scheme, ...] = ("float32", "int8")


def unfit(network: Network, scheme: Scheme, format: str) -> str | None:
    """Why the network has no variant of that scheme and format, or None where it has one."""
    if scheme == "int8-dynamic" and network.hidden < _LEAST_HIDDEN:
        return f"integer kernels gain nothing below {_LEAST_HIDDEN} units, and this network has {network.hidden}"
    if scheme == "int8-dynamic" and format == "onnx" and network.cell == "gru":
        return "onnxruntime has a dynamic LSTM and no dynamic GRU"
    if scheme == "int8-dynamic" and format == "numpy":
        return "numpy has no integer kernels"
    if scheme == "int8-static" and format == "tflite":
        return "TFLite's static products round their outputs to int8 as well, which drifts by 0.02 to 0.03 and more"
    return None


def quantized(network: Network, scheme: Scheme, tape: Floats | None = None) -> Network:
    """The float32 `network` with its matrices stored as `scheme` says.

    With a `tape` (steps, inputs), one stream whose state is carried, integers are rounded with feedback; without, to
    the nearest. int8-static is calibrated on it. Raises ValueError where the network is quantized already, or
    int8-static has no tape.
    """
    stored = _STORED[scheme]
    if stored.arithmetic == "static" and tape is None:
        raise ValueError("expected a tape to calibrate on, found none")
    for weight in (network.head_weight, *(one for layer in network.layers for one in (layer.w_ih, layer.w_hh))):
        if isinstance(weight, Quantized) or weight.dtype != np.float32:
            raise ValueError("expected a float32 network, found one that is quantized already")
    layers = [_stored_layer(layer, stored.recurrent) for layer in network.layers]
    head = stored.head(dense(network.head_weight))
    if tape is not None and isinstance(head, Quantized):
        layers_see, head_sees = seen(network, tape)
        layers = [_fed_back(*layer) for layer in zip(network.layers, layers, layers_see, strict=True)]
        (head,) = with_feedback([Factor(dense(network.head_weight), head, head_sees)])
        if stored.arithmetic == "static":
            layers = [
                dataclasses.replace(layer, x_step=_step(sees.x), h_step=_step(sees.h))
                for layer, sees in zip(layers, layers_see, strict=True)
            ]
    return dataclasses.replace(network, layers=tuple(layers), head_weight=head, arithmetic=stored.arithmetic)


def _stored_layer(layer: Layer, stored: Callable[[Floats], Weight]) -> Layer:
    return dataclasses.replace(layer, w_ih=stored(dense(layer.w_ih)), w_hh=stored(dense(layer.w_hh)))


def _fed_back(plain: Layer, nearest: Layer, sees: Seen) -> Layer:
    """The layer rounded with feedback, over both matrices at once: their products are added up.

    A GRU's new gate weighs one of them with the reset gate first; taking it for a sum is still better by far than not
    to let them stand in for each other.
    """
    if not isinstance(nearest.w_ih, Quantized) or not isinstance(nearest.w_hh, Quantized):
        return nearest
    from_x = Factor(dense(plain.w_ih), nearest.w_ih, sees.x)
    from_h = Factor(dense(plain.w_hh), nearest.w_hh, sees.h)
    w_ih, w_hh = with_feedback([from_x, from_h])
    return dataclasses.replace(nearest, w_ih=w_ih, w_hh=w_hh)


def _step(calibrated: Floats) -> float:
    """The size of one int8 step for values as large as these."""
    return float(np.float32(max(float(np.abs(calibrated).max()), 1e-6) / 127))
