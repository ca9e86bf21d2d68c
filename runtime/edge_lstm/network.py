"""The arrays of a network, float32 or quantized: what the numpy backend steps and the writers author."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Cell = Literal["lstm", "gru"]

# Gates in torch's order: input, forget, cell candidate, output; and reset, update, new.
GATES: dict[Cell, int] = {"lstm": 4, "gru": 3}
# What a layer carries, each (batch, hidden).
CARRIED: dict[Cell, tuple[str, ...]] = {"lstm": ("hidden_state", "cell_state"), "gru": ("hidden_state",)}


@dataclass(frozen=True, eq=False)
class Quantized:
    """An int8 matrix with one float32 scale a row: the weight is `values * scales[:, None]`, its zero point 0."""

    values: NDArray[np.int8]  # (rows, columns)
    scales: Floats  # (rows,)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def dequantized(self) -> Floats:
        return self.values.astype(np.float32) * self.scales[:, None]


Weight = Floats | Quantized


def dense(weight: Weight) -> Floats:
    """The weight as a float32 matrix."""
    return weight.dequantized() if isinstance(weight, Quantized) else weight


@dataclass(frozen=True, eq=False)
class Layer:
    """One recurrent layer, with its gates stacked in torch's order (`GATES`)."""

    w_ih: Weight  # (gates * hidden, inputs)
    w_hh: Weight  # (gates * hidden, hidden)
    b_ih: Floats  # (gates * hidden,)
    b_hh: Floats  # (gates * hidden,)


@dataclass(frozen=True, eq=False)
class Network:
    """A whole step, raw features to raw predictions.

    standardized = (features - mean) / scale; the layers; prediction = head_weight @ hidden + head_bias (already in the
    targets' units), plus the raw feature `change_of[o]` for each output o where the network predicts changes.
    """

    cell: Cell
    mean: Floats  # (inputs,)
    scale: Floats  # (inputs,)
    layers: tuple[Layer, ...]
    head_weight: Weight  # (outputs, hidden)
    head_bias: Floats  # (outputs,)
    change_of: NDArray[np.int32]  # (outputs,), or empty where the outputs are absolute

    @property
    def hidden(self) -> int:
        return self.head_weight.shape[1]

    @property
    def state_names(self) -> list[str]:
        """The carried tensors in the order of every backend: layer by layer, hidden state before cell state."""
        return [f"{name}_{layer}" for layer in range(len(self.layers)) for name in CARRIED[self.cell]]

    @property
    def parameters(self) -> int:
        """How many numbers training has set (mean and scale are statistics and do not count)."""
        sizes = [weight.shape[0] * weight.shape[1] for weight in self._weights()]
        biases = [layer.b_ih.size + layer.b_hh.size for layer in self.layers]
        return sum(sizes) + sum(biases) + self.head_bias.size

    def _weights(self) -> list[Weight]:
        return [weight for layer in self.layers for weight in (layer.w_ih, layer.w_hh)] + [self.head_weight]


def to_npz(network: Network) -> bytes:
    """The network as an .npz file without pickles; equal networks give equal bytes."""
    arrays: dict[str, NDArray[np.generic]] = {
        "cell": np.array(network.cell),
        "mean": network.mean,
        "scale": network.scale,
        "head_bias": network.head_bias,
        "change_of": network.change_of,
    }
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
    """What `to_npz` wrote. Raises KeyError or ValueError where arrays are missing or of another kind."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        cell = str(arrays["cell"])
        if cell not in get_args(Cell):
            raise ValueError(f"expected a cell of {get_args(Cell)}, found {cell!r}")
        count = sum(name.endswith(".b_ih") for name in arrays.files)
        layers = tuple(
            Layer(
                _get_weight(arrays, f"layer{index}.w_ih"),
                _get_weight(arrays, f"layer{index}.w_hh"),
                arrays[f"layer{index}.b_ih"],
                arrays[f"layer{index}.b_hh"],
            )
            for index in range(count)
        )
        return Network(
            "lstm" if cell == "lstm" else "gru",
            arrays["mean"],
            arrays["scale"],
            layers,
            _get_weight(arrays, "head_weight"),
            arrays["head_bias"],
            arrays["change_of"],
        )


def _put_weight(arrays: dict[str, NDArray[np.generic]], name: str, weight: Weight) -> None:
    if isinstance(weight, Quantized):
        arrays[f"{name}.int8"], arrays[f"{name}.scales"] = weight.values, weight.scales
    else:
        arrays[name] = weight


def _get_weight(arrays: np.lib.npyio.NpzFile, name: str) -> Weight:
    if f"{name}.int8" in arrays.files:
        return Quantized(arrays[f"{name}.int8"], arrays[f"{name}.scales"])
    weight: Floats = arrays[name]
    return weight
