"""The network in NumPy, written as in a textbook; docs/lstm.md explains it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_lstm.backends.protocol import ONE_THREAD, ExecutionOptions
from edge_lstm.bundle.archive import Variant
from edge_lstm.bundle.network import CARRIED, Layer, Network, Quantized, Weight, dense, from_npz
from edge_lstm.bundle.npz import NPZ_ERRORS
from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.errors import BackendError
from edge_lstm.foundation.text import printable

_HALF, _ONE = np.float32(0.5), np.float32(1)


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), written with tanh so that no x overflows."""
    squashed: Floats = _HALF * (np.tanh(_HALF * x) + _ONE)
    return squashed


def multiply_rows(x: Floats, matrix: Floats) -> Floats:
    """x (batch, n) times matrix (n, m) -> (batch, m), each row by itself.

    One BLAS call for the whole batch would choose its kernel by the batch size. The last bits of a stream would then
    depend on the number of streams. Stacked as (batch, 1, n), every row is a product of the same shape.
    """
    products: Floats = np.matmul(x[:, None, :], matrix)[:, 0, :]
    return products


class Product:
    """Multiplies rows by a layer's matrix, in float32 or in integers (static int8)."""

    def __init__(self, weight: Weight, step: float) -> None:
        """`step`: the size of one int8 step of the rows, 0 for float32."""
        self._step = np.float32(step)
        if step and isinstance(weight, Quantized):
            # integers below 2**24, which float32 multiplies and adds exactly
            self._matrix = np.ascontiguousarray(weight.values.T.astype(np.float32))
            self._scales = self._step * weight.scales
        else:
            self._matrix = np.ascontiguousarray(dense(weight).T)  # (n, m)

    def __call__(self, x: Floats) -> Floats:
        """x (batch, n) -> (batch, m)."""
        if not self._step:
            return multiply_rows(x, self._matrix)
        whole = np.clip(np.rint(x / self._step), -128, 127)
        scaled: Floats = multiply_rows(whole, self._matrix) * self._scales
        return scaled


class LstmLayer:
    """Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000; gate order i, f, g, o as in torch."""

    def __init__(self, layer: Layer) -> None:
        self.w_x = Product(layer.w_ih, layer.x_step)  # (inputs, 4 * hidden)
        self.w_h = Product(layer.w_hh, layer.h_step)  # (hidden, 4 * hidden)
        self.bias = layer.b_ih + layer.b_hh  # (4 * hidden,)

    def step(self, x: Floats, state: Sequence[Floats]) -> list[Floats]:
        """x (batch, inputs), state [h, c] each (batch, hidden) -> the next [h, c]."""
        h, c = state
        gates = self.w_x(x) + self.w_h(h) + self.bias  # (batch, 4 * hidden)
        i, f, g, o = np.split(gates, 4, axis=1)  # (batch, hidden) each
        i = sigmoid(i)  # input gate: how much of the candidate enters the memory cell
        f = sigmoid(f)  # forget gate: how much of the memory cell stays
        g = np.tanh(g)  # candidate: what could enter
        o = sigmoid(o)  # output gate: how much of the memory cell shows
        c = f * c + i * g  # the memory cell
        h = o * np.tanh(c)  # the hidden state
        return [h, c]


class GruLayer:
    """Cho et al. 2014, in the variant that resets after the product (as torch and cuDNN do); gate order r, z, n."""

    def __init__(self, layer: Layer) -> None:
        self.w_x = Product(layer.w_ih, layer.x_step)  # (inputs, 3 * hidden)
        self.w_h = Product(layer.w_hh, layer.h_step)  # (hidden, 3 * hidden)
        self.b_x = layer.b_ih  # (3 * hidden,)
        self.b_h = layer.b_hh  # (3 * hidden,): separate, since the reset gate multiplies the new gate's part

    def step(self, x: Floats, state: Sequence[Floats]) -> list[Floats]:
        """x (batch, inputs), state [h] (batch, hidden) -> the next [h]."""
        (h,) = state
        x_r, x_z, x_n = np.split(self.w_x(x) + self.b_x, 3, axis=1)  # (batch, hidden) each
        h_r, h_z, h_n = np.split(self.w_h(h) + self.b_h, 3, axis=1)
        r = sigmoid(x_r + h_r)  # reset gate: how much of the past the new value sees
        z = sigmoid(x_z + h_z)  # update gate: how much of the past stays
        n = np.tanh(x_n + r * h_n)  # new gate: the candidate for the new value
        h = (_ONE - z) * n + z * h  # the hidden state
        return [h]


class ReferenceBackend:
    """Steps a `Network`. Each row is computed by itself, so a stream gets the same bits in a batch of any size."""

    name = "numpy"

    def __init__(self, network: Network, scheme: str = "float32") -> None:
        self.scheme = scheme
        self._network = network
        self._states_per_layer = len(CARRIED[network.cell])
        self._layers = [LstmLayer(layer) if network.cell == "lstm" else GruLayer(layer) for layer in network.layers]
        self._head = np.ascontiguousarray(dense(network.head_weight).T) if network.layers else None  # (hidden, outputs)
        self._highway = None if network.highway is None else np.ascontiguousarray(network.highway.T)
        self._inverse_scale = _ONE / network.scale

    def step(self, features: Floats, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        """features (batch, inputs) raw, states as `Network.state_names` -> predictions (batch, outputs), states."""
        x = (features - self._network.mean) * self._inverse_scale  # standardized
        following: list[Floats] = []
        standardized = x
        for index, layer in enumerate(self._layers):
            state = states[index * self._states_per_layer : (index + 1) * self._states_per_layer]
            following += layer.step(x, state)
            x = following[-self._states_per_layer]  # the layer's hidden state is the next layer's input
        if self._head is None:  # no layers: the linear path alone
            prediction: Floats = np.repeat(self._network.head_bias[None], len(features), axis=0)
        else:
            prediction = multiply_rows(x, self._head) + self._network.head_bias  # the dense output layer
        if self._highway is not None:
            size, at = self._network.recent_size, len(following)
            samples = standardized
            if size:
                register = states[at]
                if self._network.filled:
                    unfilled = _ONE - states[at + 1]  # (batch, 1): 1 at a stream's first sample, then 0
                    register = register + unfilled * np.tile(standardized, size // standardized.shape[1])
                samples = np.concatenate([standardized, register], axis=1)  # newest first
                following.append(samples[:, :size])  # drops the oldest
            if self._network.filled:
                following.append(unfilled + states[at + 1])  # 1
            prediction += multiply_rows(samples, self._highway)
        if self._network.change_of.size:
            prediction = prediction + features[:, self._network.change_of]
        return prediction, following


def load(variant: Variant, content: bytes, execution: ExecutionOptions = ONE_THREAD) -> ReferenceBackend:
    """The backend for a bundle's numpy variant. Raises BackendError if the arrays are not a network."""
    try:
        return ReferenceBackend(from_npz(content), variant.scheme)
    except (*NPZ_ERRORS, IndexError, TypeError, AttributeError) as error:
        raise BackendError(
            f"expected the arrays of a network in {variant.file}, found: {printable(str(error))}",
            "export the bundle again",
        ) from None
