"""The arrays of a network, float32 or quantized, for the numpy backend and the writers of export."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from edge_lstm.bundle.npz import read_npz
from edge_lstm.foundation.arrays import Floats

# none: no recurrent layers, a linear path alone
Cell = Literal["lstm", "gru", "none"]

# Gates in torch's order: input, forget, cell candidate, output; and reset, update, new.
GATES: dict[Cell, int] = {"lstm": 4, "gru": 3, "none": 0}
# The states of a layer, (batch, hidden) each.
CARRIED: dict[Cell, tuple[str, ...]] = {"lstm": ("hidden_state", "cell_state"), "gru": ("hidden_state",), "none": ()}
# State of the highway, a shift register: the last standardized samples, newest first.
RECENT = "recent_samples"
# State of a highway whose register starts full: 0 before a stream's first sample, then 1.
STARTED = "register_started"


@dataclass(frozen=True, eq=False)
class Quantized:
    """A matrix of small integers with a float32 scale per row or per column. The zero point is 0."""

    values: NDArray[np.int8]  # (rows, columns)
    scales: Floats  # (rows,) or (columns,)
    bits: Literal[4, 8] = 8  # of each stored value; 4: values from -7 to 7, a scale per row
    axis: Literal[0, 1] = 0  # 0: a scale per row; 1: a scale per column

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def dequantized(self) -> Floats:
        return self.values.astype(np.float32) * (self.scales if self.axis else self.scales[:, None])

    def packed(self) -> NDArray[np.uint8]:
        """The values plus 8, two per byte: a row's first half in the low four bits, its second in the high four."""
        half = -(-self.shape[1] // 2)
        shifted = np.full((self.shape[0], 2 * half), 8, np.uint8)
        shifted[:, : self.shape[1]] = self.values + 8
        return (shifted[:, :half] | shifted[:, half:] << 4).astype(np.uint8)


def unpacked(packed: NDArray[np.uint8], scales: Floats, columns: int) -> Quantized:
    """The matrix from the bytes of `Quantized.packed`."""
    shifted = np.concatenate([packed & 15, packed >> 4], axis=1)[:, :columns]
    return Quantized(shifted.astype(np.int8) - np.int8(8), scales, 4)


Weight = Floats | NDArray[np.float16] | Quantized

# How the recurrent products are computed: in float32; in integers, with activation scales from each step (dynamic); or
# in integers, with activation scales from calibration (static).
Arithmetic = Literal["float32", "dynamic", "static"]


def dense(weight: Weight) -> Floats:
    """The weight as a float32 matrix."""
    return weight.dequantized() if isinstance(weight, Quantized) else weight.astype(np.float32, copy=False)


@dataclass(frozen=True, eq=False)
class Layer:
    """One recurrent layer. Its gates are stacked in the order of torch (`GATES`)."""

    w_ih: Weight  # (gates * hidden, inputs)
    w_hh: Weight  # (gates * hidden, hidden)
    b_ih: Floats  # (gates * hidden,)
    b_hh: Floats  # (gates * hidden,)
    # in static arithmetic: the size of one int8 step of the input and of the hidden state
    x_step: float = 0.0
    h_step: float = 0.0


@dataclass(frozen=True, eq=False)
class Network:
    """A step from raw features to raw predictions.

    standardized = (features - mean) / scale; then the layers; then prediction = head_weight @ hidden + head_bias, in
    the units of the targets. If the network predicts changes, the raw feature `change_of[o]` is added to output o.

    A highway adds highway @ samples: a linear path beside the layers. Its samples are the standardized sample and the
    earlier ones in the shift register. It is float32 in every scheme: taps that form differences of neighbours cancel
    exactly, and rounded taps would add a part of the signal's level. Without earlier samples, it has no register. A
    register that is `filled` holds copies of a stream's first sample at its start, others hold zeros.

    With the cell "none" there are no layers: hidden is 0, and prediction = highway @ samples + head_bias.
    """

    cell: Cell
    mean: Floats  # (inputs,)
    scale: Floats  # (inputs,)
    layers: tuple[Layer, ...]
    head_weight: Weight  # (outputs, hidden); hidden is 0 without layers
    head_bias: Floats  # (outputs,)
    change_of: NDArray[np.int32]  # (outputs,); empty: the outputs are absolute
    highway: Floats | None = None  # (outputs, (1 + earlier samples) * inputs): taps, newest sample first
    arithmetic: Arithmetic = "float32"
    filled: bool = False  # whether a stream's first sample fills the shift register

    @property
    def hidden(self) -> int:
        return self.head_weight.shape[1]

    @property
    def state_names(self) -> list[str]:
        """The state tensors in the order of every backend: layer by layer, hidden state before cell state."""
        return list(self.state_sizes)

    @property
    def state_sizes(self) -> dict[str, int]:
        """Numbers per stream in each state tensor; the shift register follows the layers."""
        return state_sizes(self.cell, len(self.layers), self.hidden, self.recent_size, self.filled)

    @property
    def recent_size(self) -> int:
        """Numbers in the highway's shift register: earlier samples * inputs, 0 without a highway."""
        return 0 if self.highway is None else self.highway.shape[1] - len(self.mean)

    @property
    def parameters(self) -> int:
        """Number of trained parameters. Mean and scale are statistics and do not count."""
        sizes = [weight.shape[0] * weight.shape[1] for weight in self._weights()]
        biases = [layer.b_ih.size + layer.b_hh.size for layer in self.layers]
        taps = 0 if self.highway is None else self.highway.size
        if self.highway is not None and self._taps_sum_to_zero:
            taps = len(self.head_bias) * self.recent_size  # those of the newest sample follow from the others
        return sum(sizes) + sum(biases) + self.head_bias.size + taps

    @property
    def _taps_sum_to_zero(self) -> bool:
        """Whether the highway's taps on each input sum to zero, so that the input's level has no effect."""
        assert self.highway is not None  # the caller checks it
        taps = self.highway.reshape(len(self.head_bias), -1, len(self.mean)).astype(np.float64)
        return bool(np.all(np.abs(taps.sum(axis=1)) <= 1e-5 * (1e-12 + np.abs(taps).sum(axis=1))))

    @property
    def multiply_accumulates(self) -> int:
        """Multiply-accumulates of one step of one stream: one per weight of each product."""
        products = sum(weight.shape[0] * weight.shape[1] for weight in self._weights())
        return products + (0 if self.highway is None else self.highway.size)

    def _weights(self) -> list[Weight]:
        return [weight for layer in self.layers for weight in (layer.w_ih, layer.w_hh)] + [self.head_weight]


def state_sizes(cell: Cell, layers: int, hidden: int, recent: int, filled: bool = False) -> dict[str, int]:
    """The state tensors of such a network by name, with the numbers per stream of each.

    recent: numbers in the shift register; filled: whether a stream's first sample fills it.
    """
    sizes = {f"{name}_{layer}": hidden for layer in range(layers) for name in CARRIED[cell]}
    if recent:
        sizes[RECENT] = recent
    if recent and filled:
        sizes[STARTED] = 1
    return sizes


def to_npz(network: Network) -> bytes:
    """The network as an .npz file without pickles. Equal networks give equal bytes."""
    arrays: dict[str, NDArray[np.generic]] = {
        "cell": np.array(network.cell),
        "mean": network.mean,
        "scale": network.scale,
        "head_bias": network.head_bias,
        "change_of": network.change_of,
    }
    if network.arithmetic != "float32":
        arrays["arithmetic"] = np.array(network.arithmetic)
        arrays["steps"] = np.array([[layer.x_step, layer.h_step] for layer in network.layers], np.float32)
    if network.highway is not None:
        arrays["highway"] = network.highway
    if network.filled:
        arrays["filled"] = np.array(1)
    _put_weight(arrays, "head_weight", network.head_weight)
    for index, layer in enumerate(network.layers):
        _put_weight(arrays, f"layer{index}.w_ih", layer.w_ih)
        _put_weight(arrays, f"layer{index}.w_hh", layer.w_hh)
        arrays[f"layer{index}.b_ih"] = layer.b_ih
        arrays[f"layer{index}.b_hh"] = layer.b_hh
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def from_npz(content: bytes) -> Network:
    """The network from the bytes of `to_npz`. Raises one of NPZ_ERRORS if arrays are missing or have another type."""
    arrays = read_npz(content)
    cell = str(arrays["cell"])
    if cell not in get_args(Cell):
        raise ValueError(f"expected a cell of {get_args(Cell)}, found {cell!r}")
    count = sum(name.endswith(".b_ih") for name in arrays)
    arithmetic = str(arrays["arithmetic"]) if "arithmetic" in arrays else "float32"
    steps = arrays["steps"].tolist() if arithmetic != "float32" else [(0.0, 0.0)] * count
    layers = tuple(
        Layer(
            _get_weight(arrays, f"layer{index}.w_ih"),
            _get_weight(arrays, f"layer{index}.w_hh"),
            arrays[f"layer{index}.b_ih"],
            arrays[f"layer{index}.b_hh"],
            *steps[index],
        )
        for index in range(count)
    )
    return Network(
        cast(Cell, cell),
        arrays["mean"],
        arrays["scale"],
        layers,
        _get_weight(arrays, "head_weight"),
        arrays["head_bias"],
        arrays["change_of"],
        arrays.get("highway"),
        cast(Arithmetic, arithmetic),
        "filled" in arrays,
    )


def _put_weight(arrays: dict[str, NDArray[np.generic]], name: str, weight: Weight) -> None:
    if isinstance(weight, Quantized) and weight.bits == 4:
        arrays[f"{name}.int4"], arrays[f"{name}.scales"] = weight.packed(), weight.scales
        arrays[f"{name}.columns"] = np.array(weight.shape[1])
    elif isinstance(weight, Quantized):
        arrays[f"{name}.int8"] = weight.values
        arrays[f"{name}.column_scales" if weight.axis else f"{name}.scales"] = weight.scales
    else:
        arrays[name] = weight


def _get_weight(arrays: Mapping[str, NDArray[Any]], name: str) -> Weight:
    if f"{name}.int8" in arrays:
        if f"{name}.column_scales" in arrays:
            return Quantized(arrays[f"{name}.int8"], arrays[f"{name}.column_scales"], axis=1)
        return Quantized(arrays[f"{name}.int8"], arrays[f"{name}.scales"])
    if f"{name}.int4" in arrays:
        return unpacked(arrays[f"{name}.int4"], arrays[f"{name}.scales"], int(arrays[f"{name}.columns"]))
    weight: Weight = arrays[name]
    return weight
