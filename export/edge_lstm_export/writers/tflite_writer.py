"""A network as a TFLite graph of one step, written operator by operator without torch or TensorFlow.

Every operator has a version that tflite-runtime 2.14 supports. Inputs are `features` (batch, inputs) in raw units and
each state (batch, hidden). Outputs are `prediction` (batch, outputs) in the targets' units and each next state. The
batch can be resized.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.network import CARRIED, GATES, RECENT, STARTED, Layer, Network, Quantized, Weight
from edge_lstm.foundation.arrays import Floats
from edge_lstm_export.writers.input_scaling import InputScaling, input_scaling_of
from edge_lstm_export.writers.tensor_names import FEATURES, PREDICTION, metadata
from edge_lstm_export.writers.tflite_builder import TfliteBuilder

_HALF_DEQUANTIZE, _FOUR_BIT_DEQUANTIZE = 3, 6
_DYNAMIC_PRODUCT = 9  # the first version of FULLY_CONNECTED whose dynamic inputs have zero points
_SCALES_DEQUANTIZE = 5  # the first version of DEQUANTIZE that takes a scale for each row or column


def write_tflite(network: Network, contract: Contract) -> bytes:
    """The network as a .tflite file; equal arguments give equal bytes."""
    graph = _Graph(network)
    features = graph.model.batched(FEATURES, len(network.mean))
    states = [graph.model.batched(name, size) for name, size in network.state_sizes.items()]
    scaling = input_scaling_of(network, columns_at_load=False)
    x = standardized = graph.scaled_inputs(features, scaling)
    step = graph.lstm if network.cell == "lstm" else graph.gru
    carried = len(CARRIED[network.cell])
    following: list[int] = []
    for index, layer in enumerate((*scaling.first, *network.layers[1:])):
        following += step(index, layer, x, states[index * carried : (index + 1) * carried])
        x = following[-carried]  # the layer's hidden state is the next layer's input
    dense = graph.dense_head(x) if network.layers else None
    if network.highway is not None:
        at = len(following)
        samples = standardized
        if network.filled:
            register, started = graph.filled_register(standardized, states[at], states[at + 1])
            samples = graph.highway_samples(standardized, register)
        elif network.recent_size:
            samples = graph.highway_samples(standardized, states[at])
        dense = graph.highway(dense, samples, network.highway)
    if dense is None:
        raise ValueError("expected layers or a highway, found neither")
    prediction = graph.add_level(features, dense)
    if network.recent_size:
        following.append(graph.next_register(samples))
    if network.filled:
        following.append(started)
    note = json.dumps(metadata(contract), ensure_ascii=False).encode()
    return graph.model.finish([features, *states], [prediction, *following], contract.name, note)


def join_weights(left: Weight, right: Weight) -> Weight | None:
    """Both matrices as one, since one product is faster than two; None if each has a scale per row."""
    if isinstance(left, Quantized) and isinstance(right, Quantized):
        if (left.bits, left.axis) != (8, 1) or (right.bits, right.axis) != (8, 1):
            return None
        values, scales = ([left.values, right.values], [left.scales, right.scales])
        return Quantized(np.concatenate(values, axis=1), np.concatenate(scales), axis=1)
    if isinstance(left, Quantized) or isinstance(right, Quantized) or left.dtype != right.dtype:
        return None
    return np.concatenate([left, right], axis=1)


class _Graph:
    """A model built by one expression per call; every tensor is (batch, width) and named after its content."""

    def __init__(self, network: Network) -> None:
        self.model = TfliteBuilder()
        self._network = network
        self._columns: int | None = None

    def scaled_inputs(self, features: int, scaling: InputScaling) -> int:
        """The features (batch, inputs), scaled for the first layer."""
        x, width = features, len(self._network.mean)
        if scaling.offset is not None:
            x = self._apply("SUB", [x, self.model.constant("mean", scaling.offset)], "centred", width)
        if scaling.factor is not None:
            x = self._apply("MUL", [x, self.model.constant("inverse_scale", scaling.factor)], "standardized", width)
        return x

    def lstm(self, index: int, layer: Layer, x: int, state: Sequence[int]) -> list[int]:
        """x (batch, inputs), state [h, c] each (batch, hidden) -> the next [h, c], as edge_lstm.backends.reference."""
        h, c = state
        at = f"layer_{index}/"
        width = GATES["lstm"] * self._network.hidden
        joined = join_weights(layer.w_ih, layer.w_hh) if self._network.arithmetic == "float32" else None
        if joined is not None:
            both = self._apply("CONCATENATION", [x, h], f"{at}x_and_h", joined.shape[1], Axis=1)
            gates = self._dense(both, joined, layer.b_ih + layer.b_hh, f"{at}gates")
        else:
            from_x = self._dense(x, layer.w_ih, layer.b_ih, f"{at}from_x")
            from_h = self._dense(h, layer.w_hh, layer.b_hh, f"{at}from_h")
            gates = self._apply("ADD", [from_x, from_h], f"{at}gates", width)
        i, f, g, o = self._gates(gates, "ifgo", at)
        i = self._pointwise("LOGISTIC", [i], f"{at}input_gate")
        f = self._pointwise("LOGISTIC", [f], f"{at}forget_gate")
        g = self._pointwise("TANH", [g], f"{at}candidate")
        o = self._pointwise("LOGISTIC", [o], f"{at}output_gate")
        kept = self._pointwise("MUL", [f, c], f"{at}kept")
        entered = self._pointwise("MUL", [i, g], f"{at}entered")
        c = self._pointwise("ADD", [kept, entered], f"next_cell_state_{index}")
        squashed = self._pointwise("TANH", [c], f"{at}squashed_cell")
        h = self._pointwise("MUL", [o, squashed], f"next_hidden_state_{index}")
        return [h, c]

    def gru(self, index: int, layer: Layer, x: int, state: Sequence[int]) -> list[int]:
        """x (batch, inputs), state [h] (batch, hidden) -> the next [h], as edge_lstm.backends.reference."""
        (h,) = state
        at = f"layer_{index}/"
        x_r, x_z, x_n = self._gates(self._dense(x, layer.w_ih, layer.b_ih, f"{at}from_x"), "rzn", f"{at}x_")
        h_r, h_z, h_n = self._gates(self._dense(h, layer.w_hh, layer.b_hh, f"{at}from_h"), "rzn", f"{at}h_")
        r = self._pointwise("LOGISTIC", [self._pointwise("ADD", [x_r, h_r], f"{at}r")], f"{at}reset_gate")
        z = self._pointwise("LOGISTIC", [self._pointwise("ADD", [x_z, h_z], f"{at}z")], f"{at}update_gate")
        past = self._pointwise("MUL", [r, h_n], f"{at}past")
        n = self._pointwise("TANH", [self._pointwise("ADD", [x_n, past], f"{at}n")], f"{at}new")
        # (1 - z) * n + z * h with one product less
        over = self._pointwise("SUB", [h, n], f"{at}over_new")
        stays = self._pointwise("MUL", [z, over], f"{at}stays")
        return [self._pointwise("ADD", [n, stays], f"next_hidden_state_{index}")]

    def dense_head(self, hidden: int) -> int:
        """The dense layer over hidden (batch, hidden), (batch, outputs)."""
        network = self._network
        name = self._head_output if network.highway is None else "recurrent_part"
        return self._dense(hidden, network.head_weight, network.head_bias, name)

    def filled_register(self, standardized: int, recent: int, started: int) -> tuple[int, int]:
        """The shift register, full of the newest sample where a stream starts with it; and the next `started`."""
        width, size = len(self._network.mean), self._network.recent_size
        ones = self.model.constant("one", np.ones(1, np.float32))
        unfilled = self._apply("SUB", [ones, started], "unfilled", 1)  # 1 at a stream's first sample, then 0
        columns = self.model.constant("columns_of_copies", np.tile(np.arange(width, dtype=np.int32), size // width))
        copies = self._apply("GATHER", [standardized, columns], "copies", size, Axis=1)
        filling = self._apply("MUL", [copies, unfilled], "filling", size)
        register = self._apply("ADD", [recent, filling], "register", size)
        return register, self._apply("ADD", [unfilled, started], f"next_{STARTED}", 1)

    def highway_samples(self, standardized: int, recent: int) -> int:
        """The standardized sample and the shift register, the newest first."""
        width = len(self._network.mean) + self._network.recent_size
        return self._apply("CONCATENATION", [standardized, recent], "samples", width, Axis=1)

    def highway(self, dense: int | None, samples: int, taps: Floats) -> int:
        """dense (batch, outputs) plus the highway's weights over the samples; None: the head's bias plus these."""
        outputs = len(taps)
        if dense is None:
            return self._dense(samples, taps, self._network.head_bias, self._head_output)
        linear = self._dense(samples, taps, np.zeros(outputs, np.float32), "highway")
        return self._apply("ADD", [dense, linear], self._head_output, outputs)

    def next_register(self, samples: int) -> int:
        """The next shift register: the samples without the oldest.

        STRIDED_SLICE is used because the fast kernels of tflite-runtime have no SLICE. With its slow kernels, the last
        bits of a row depend on the batch size.
        """
        size = self._network.recent_size
        bounds = [
            self.model.constant("newest", np.array([0, 0], np.int32)),
            self.model.constant("oldest", np.array([0, size], np.int32)),
            self.model.constant("strides", np.array([1, 1], np.int32)),
        ]
        return self._apply("STRIDED_SLICE", [samples, *bounds], f"next_{RECENT}", size, BeginMask=1, EndMask=1)

    def add_level(self, features: int, dense: int) -> int:
        """dense (batch, outputs), plus the raw features if the network predicts changes."""
        network = self._network
        if not network.change_of.size:
            return dense
        outputs = len(network.head_bias)
        indices = self.model.constant("change_of", network.change_of)
        level = self._apply("GATHER", [features, indices], "level", outputs, Axis=1)
        return self._apply("ADD", [dense, level], PREDICTION, outputs)

    @property
    def _head_output(self) -> str:
        """The name of the sum of head and highway."""
        return "change" if self._network.change_of.size else PREDICTION

    def _apply(self, operator: str, inputs: Sequence[int], name: str, width: int, **options: int) -> int:
        output = self.model.batched(name, width)
        self.model.operator(operator, inputs, [output], **options)
        return output

    def _pointwise(self, operator: str, inputs: Sequence[int], name: str) -> int:
        return self._apply(operator, inputs, name, self._network.hidden)

    def _dense(self, x: int, weight: Weight, bias: Floats, name: str) -> int:
        """x (batch, columns) @ weight.T + bias, (batch, rows)."""
        if self._network.arithmetic == "dynamic" and name.startswith("layer_"):
            return self._dynamic(x, weight, bias, name)
        inputs = [x, self._matrix(f"{name}/weight", weight), self.model.constant(f"{name}/bias", bias)]
        return self._apply("FULLY_CONNECTED", inputs, name, weight.shape[0])

    def _dynamic(self, x: int, weight: Weight, bias: Floats, name: str) -> int:
        """The same product in integers: LiteRT finds the scale of each row of x at each step."""
        if not isinstance(weight, Quantized):
            raise ValueError(f"expected int8 weights for dynamic kernels, found {weight.dtype}")
        stored = self.model.constant(f"{name}/int8", weight.values, weight.scales[:1])
        inputs = [x, stored, self.model.constant(f"{name}/bias", bias)]
        output = self.model.batched(name, weight.shape[0])
        self.model.operator(
            "FULLY_CONNECTED", inputs, [output], version=_DYNAMIC_PRODUCT, AsymmetricQuantizeInputs=True
        )
        return output

    def _matrix(self, name: str, weight: Weight) -> int:
        """The weight as a float32 tensor; other types are dequantized once, when a runtime loads the model."""
        if not isinstance(weight, Quantized):
            if weight.dtype == np.float32:
                return self.model.constant(name, weight)
            stored, version = self.model.constant(f"{name}/float16", weight), _HALF_DEQUANTIZE
        elif weight.bits == 4:
            stored, version = self.model.four_bits(f"{name}/int4", weight.values, weight.scales), _FOUR_BIT_DEQUANTIZE
        else:
            stored = self.model.constant(f"{name}/int8", weight.values, weight.scales, weight.axis)
            version = _SCALES_DEQUANTIZE
        matrix = self.model.fixed(name, weight.shape)
        self.model.operator("DEQUANTIZE", [stored], [matrix], version=version)
        return matrix

    def _gates(self, stacked: int, letters: str, prefix: str) -> list[int]:
        """stacked (batch, gates * hidden) -> a (batch, hidden) for each gate, in torch's order."""
        if self._columns is None:
            self._columns = self.model.constant("axis_of_columns", np.array(1, np.int32))
        parts = [self.model.batched(f"{prefix}{letter}_sum", self._network.hidden) for letter in letters]
        self.model.operator("SPLIT", [self._columns, stacked], parts, NumSplits=len(parts))
        return parts
