"""What becomes of a network's matrices in each scheme; biases, statistics and the highway stay float32.

The cell state is float32 in every scheme: it adds up over thousands of steps what the gates round away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.network import CARRIED, Arithmetic, Layer, Network, Quantized, Weight, dense
from edge_lstm.schemes import Scheme

Floats = NDArray[np.float32]
_LEAST_SCALE = np.finfo(np.float32).tiny  # for rows of zeros
# Shares of a row's largest magnitude at which int4 may clip; the one with the least squared error is taken.
_CLIPS = np.linspace(0.5, 1.0, 11, dtype=np.float32)
_LEAST_HIDDEN = 128  # below, integer kernels are no faster than float32 and only less exact


def int8_rows(matrix: Floats) -> Quantized:
    """matrix (rows, columns) rounded to int8, symmetric about 0, with one scale for each row.

    A row's error is at most half its scale, which is the row's largest magnitude / 127.
    """
    return _rounded(matrix, np.abs(matrix).max(axis=1), 8)


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
    joined: bool = False  # whether a row of an LSTM's w_ih and w_hh has one scale, which saves a ninth of a TFLite file


def _half(matrix: Floats) -> Weight:
    return matrix.astype(np.float16)


_STORED: Mapping[Scheme, _Stored] = {
    "float32": _Stored(lambda matrix: matrix, lambda matrix: matrix),
    "float16": _Stored(_half, _half),
    "int8": _Stored(int8_rows, int8_rows, joined=True),
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

    int8-static is calibrated on `tape` (steps, inputs), one stream whose state is carried. Raises ValueError where
    the network is quantized already, or that tape is missing.
    """
    stored = _STORED[scheme]

    def of(weight: Weight, kind: Callable[[Floats], Weight]) -> Weight:
        if isinstance(weight, Quantized) or weight.dtype != np.float32:
            raise ValueError("expected a float32 network, found one that is quantized already")
        return kind(weight.astype(np.float32, copy=False))

    def layer_of(layer: Layer) -> Layer:
        if stored.joined and network.cell == "lstm":
            plain = [of(weight, lambda matrix: matrix) for weight in (layer.w_ih, layer.w_hh)]
            both = stored.recurrent(np.concatenate([dense(weight) for weight in plain], axis=1))
            w_ih, w_hh = _apart(both, layer.w_ih.shape[1])
            return dataclasses.replace(layer, w_ih=w_ih, w_hh=w_hh)
        w_ih, w_hh = (of(weight, stored.recurrent) for weight in (layer.w_ih, layer.w_hh))
        return dataclasses.replace(layer, w_ih=w_ih, w_hh=w_hh)

    layers = tuple(layer_of(layer) for layer in network.layers)
    if stored.arithmetic == "static":
        if tape is None:
            raise ValueError("expected a tape to calibrate on, found none")
        steps = calibrated_steps(network, tape)
        layers = tuple(
            dataclasses.replace(layer, x_step=x, h_step=h) for layer, (x, h) in zip(layers, steps, strict=True)
        )
    head = of(network.head_weight, stored.head)
    return dataclasses.replace(network, layers=layers, head_weight=head, arithmetic=stored.arithmetic)


def _apart(both: Weight, columns: int) -> tuple[Weight, Weight]:
    """The first columns and the others, with the same scales."""
    if not isinstance(both, Quantized):
        return both[:, :columns], both[:, columns:]
    left, right = (np.ascontiguousarray(values) for values in np.split(both.values, [columns], axis=1))
    return Quantized(left, both.scales, both.bits), Quantized(right, both.scales, both.bits)


def calibrated_steps(network: Network, tape: Floats) -> Sequence[tuple[float, float]]:
    """For each layer, the int8 step of its input and of its hidden state, over one stream along `tape`."""
    backend = ReferenceBackend(network)
    states = [np.zeros((1, size), np.float32) for size in network.state_sizes.values()]
    standardized = (tape - network.mean) / network.scale
    hidden = np.zeros(len(network.layers))
    for row in tape:
        _, states = backend.step(row[None], states)
        hidden = np.maximum(hidden, [float(np.abs(state).max()) for state in _hidden_states(network, states)])
    inputs = [float(np.abs(standardized).max()), *hidden[:-1].tolist()]
    return [(_step(x), _step(h)) for x, h in zip(inputs, hidden.tolist(), strict=True)]


def _hidden_states(network: Network, states: Sequence[Floats]) -> Sequence[Floats]:
    carried = len(CARRIED[network.cell])
    return states[: carried * len(network.layers) : carried]


def _step(largest: float) -> float:
    return float(np.float32(max(largest, 1e-6) / 127))
