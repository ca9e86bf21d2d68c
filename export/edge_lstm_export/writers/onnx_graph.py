"""An ONNX graph under construction: nodes, constants, and matrices in every storage format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge_lstm.bundle.network import Quantized, Weight
from edge_lstm.foundation.arrays import Floats


class Graph:
    """Nodes and constants in the order of writing; a node has the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, array: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def matrix(self, name: str, weight: Weight, shape: Sequence[int], columns: Floats | None = None) -> str:
        """The weight times `columns` as a float32 tensor of `shape`, whose last axis but one holds the rows.

        onnxruntime computes it once from the stored tensor, when it loads the graph.
        """
        if columns is not None:
            plain = self.matrix(f"{name}.standardized", weight, shape)
            return self.node("Mul", [plain, self.constant(f"{name}.columns", columns)], name)
        if not isinstance(weight, Quantized):
            if weight.dtype == np.float32:
                return self.constant(name, weight.reshape(shape))
            stored = self.constant(f"{name}.float16", weight.reshape(shape))
            return self.node("Cast", [stored], name, to=onnx.TensorProto.FLOAT)
        if weight.bits == 4:
            return self._unpacked(name, weight, shape)
        stored = self.constant(f"{name}.int8", weight.values.reshape(shape))
        scales = self.constant(f"{name}.scales", weight.scales)
        return self.node("DequantizeLinear", [stored, scales], name, axis=len(shape) - 2 + weight.axis)

    def _unpacked(self, name: str, weight: Quantized, shape: Sequence[int]) -> str:
        """Two values per byte, separated in float32, since ONNX has four-bit tensors only since opset 21."""
        packed = weight.packed()
        stored = self.constant(f"{name}.int4", packed.reshape(*shape[:-1], packed.shape[1]))
        both = self.node("Cast", [stored], f"{name}.both", to=onnx.TensorProto.FLOAT)
        sixteen = self.constant(f"{name}.sixteen", np.array(16, np.float32))
        high = self.node("Floor", [self.node("Div", [both, sixteen], f"{name}.divided")], f"{name}.high")
        low = self.node("Sub", [both, self.node("Mul", [high, sixteen], f"{name}.high_part")], f"{name}.low")
        values = self.node("Concat", [low, high], f"{name}.shifted", axis=len(shape) - 1)
        if 2 * packed.shape[1] > shape[-1]:
            bounds = [
                self.constant(f"{name}.{what}", np.array([value], np.int64))
                for what, value in (("first", 0), ("columns", shape[-1]), ("axis", len(shape) - 1))
            ]
            values = self.node("Slice", [values, *bounds], f"{name}.cut")
        eight = self.constant(f"{name}.eight", np.array(8, np.float32))
        scales = self.constant(f"{name}.scales", weight.scales.reshape(*shape[:-1], 1))
        return self.node("Mul", [self.node("Sub", [values, eight], f"{name}.values"), scales], name)
