"""A TFLite model as tensors and operators, written as a flatbuffer; independent of networks.

The schema is tensorflow/compiler/mlir/lite/schema/schema.fbs; the package `tflite` holds its generated accessors.
A flatbuffer is written from its leaves up: everything that a table points to has to be in the buffer before the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import tflite
from numpy.typing import NDArray

from edge_lstm.foundation.arrays import Floats

SCHEMA_VERSION = 3
_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # bytes: the runtimes map constants in place and load them with vector instructions
_NO_DATA = 0  # in the schema, buffer 0 is empty
_ONE_BYTE_CODES = 127  # codes up to this one are also written in the field that old runtimes read
_TYPES = {np.dtype(np.float32): tflite.TensorType.FLOAT32, np.dtype(np.int8): tflite.TensorType.INT8,
          np.dtype(np.float16): tflite.TensorType.FLOAT16,
          np.dtype(np.int32): tflite.TensorType.INT32}  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    type: int
    buffer: int = _NO_DATA
    batched: bool = False  # whether its first axis has any size
    scales: Floats | None = None  # of int8 constants, one per index along `axis`
    axis: int = 0


@dataclass(frozen=True)
class _Operator:
    code: int  # its index in the table of operator codes
    inputs: Sequence[int]
    outputs: Sequence[int]
    name: str
    options: Mapping[str, int]


class _Builder(flatbuffers.Builder):  # type: ignore[misc]
    """A builder that writes equal vectors of numbers once, since most tensors share two or three shapes."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._vectors: dict[tuple[str, bytes], int] = {}

    def shared_vector(self, values: NDArray[Any]) -> int:
        """The offset of a vector of these numbers."""
        known = (values.dtype.str, values.tobytes())
        if known not in self._vectors:
            self._vectors[known] = self.CreateNumpyVector(values)
        return self._vectors[known]


class TfliteBuilder:
    """Collects tensors, each with a number, and operators in the order of execution; `finish` returns the file."""

    def __init__(self) -> None:
        self._tensors: list[_Tensor] = []
        self._operators: list[_Operator] = []
        self._codes: list[tuple[int, int]] = []  # (builtin code, version)
        self._buffers: list[bytes] = [b""]

    def batched(self, name: str, width: int) -> int:
        """A float32 tensor (batch, width): an input of the model or an operator's output."""
        return self._add(_Tensor(name, (1, width), tflite.TensorType.FLOAT32, batched=True))

    def fixed(self, name: str, shape: tuple[int, ...]) -> int:
        """A float32 tensor of fixed size: an operator's output."""
        return self._add(_Tensor(name, shape, tflite.TensorType.FLOAT32))

    def constant(self, name: str, array: NDArray[Any], scales: Floats | None = None, axis: int = 0) -> int:
        """A constant: float32, int32, float16, or int8 with `scales` along `axis` (zero points 0)."""
        self._buffers.append(np.ascontiguousarray(array).tobytes())
        tensor = _Tensor(name, array.shape, _TYPES[array.dtype], len(self._buffers) - 1, scales=scales, axis=axis)
        return self._add(tensor)

    def four_bits(self, name: str, values: NDArray[np.int8], scales: Floats) -> int:
        """An INT4 constant of values within -8 to 7, two per byte, the first in the low half."""
        flat = np.append(values.ravel(), np.zeros(values.size % 2, np.int8)).astype(np.uint8) & 15
        self._buffers.append((flat[::2] | flat[1::2] << 4).tobytes())
        tensor = _Tensor(name, values.shape, tflite.TensorType.INT4, len(self._buffers) - 1, scales=scales)
        return self._add(tensor)

    def operator(
        self, name: str, inputs: Sequence[int], outputs: Sequence[int], *, version: int = 1, **options: int
    ) -> None:
        """Add the builtin operator `name`, such as FULLY_CONNECTED; `options` are the fields of its options table.

        version: the lowest one that covers its use here, since a runtime refuses versions that it does not know.
        """
        code = (getattr(tflite.BuiltinOperator, name), version)
        if code not in self._codes:
            self._codes.append(code)
        self._operators.append(_Operator(self._codes.index(code), inputs, outputs, name, options))

    def finish(self, inputs: Sequence[int], outputs: Sequence[int], description: str, note: bytes) -> bytes:
        """The .tflite file, with `note` as the metadata entry edge-lstm. Equal calls give equal bytes."""
        builder = _Builder(1024 + sum(map(len, self._buffers)))
        buffers = [_buffer(builder, data) for data in [*self._buffers, note]]
        subgraph = self._subgraph(builder, inputs, outputs)
        fields = {
            "OperatorCodes": _vector(builder, [_operator_code(builder, *code) for code in self._codes]),
            "Subgraphs": _vector(builder, [subgraph]),
            "Description": builder.CreateString(description),
            "Buffers": _vector(builder, buffers),
            "Metadata": _vector(builder, [_metadata(builder, "edge-lstm", len(self._buffers))]),
            "SignatureDefs": _vector(builder, [self._signature(builder, inputs, outputs)]),
        }
        builder.Finish(_table(builder, "Model", Version=SCHEMA_VERSION, **fields), _IDENTIFIER)
        return bytes(builder.Output())

    def _add(self, tensor: _Tensor) -> int:
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _subgraph(self, builder: Any, inputs: Sequence[int], outputs: Sequence[int]) -> int:
        fields = {
            "Tensors": _vector(builder, [_tensor(builder, tensor) for tensor in self._tensors]),
            "Inputs": _numbers(builder, inputs),
            "Outputs": _numbers(builder, outputs),
            "Operators": _vector(builder, [_operator(builder, operator) for operator in self._operators]),
            "Name": builder.CreateString("step"),
        }
        return _table(builder, "SubGraph", **fields)

    def _signature(self, builder: Any, inputs: Sequence[int], outputs: Sequence[int]) -> int:
        """The names of inputs and outputs, for `get_signature_runner`."""

        def port(number: int) -> int:
            name = builder.CreateSharedString(self._tensors[number].name)
            return _table(builder, "TensorMap", Name=name, TensorIndex=number)

        fields = {
            "Inputs": _vector(builder, [port(number) for number in inputs]),
            "Outputs": _vector(builder, [port(number) for number in outputs]),
        }
        return _table(builder, "SignatureDef", SignatureKey=builder.CreateString("serving_default"), **fields)


def _table(builder: Any, name: str, **fields: int) -> int:
    """A table of the schema with these fields: numbers, or offsets of objects in the buffer."""
    getattr(tflite, f"{name}Start")(builder)
    for field, value in fields.items():
        getattr(tflite, f"{name}Add{field}")(builder, value)
    end: Callable[[Any], int] = getattr(tflite, f"{name}End")
    return end(builder)


def _vector(builder: Any, offsets: Sequence[int]) -> int:
    """A vector of tables."""
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    end: int = builder.EndVector()
    return end


def _numbers(builder: _Builder, values: Sequence[int], type: type[np.generic] = np.int32) -> int:
    return builder.shared_vector(np.asarray(values, type))


def _buffer(builder: Any, data: bytes) -> int:
    if not data:
        return _table(builder, "Buffer")
    builder.Prep(_ALIGNMENT, len(data))
    return _table(builder, "Buffer", Data=builder.CreateByteVector(data))


def _tensor(builder: Any, tensor: _Tensor) -> int:
    fields = {"Name": builder.CreateSharedString(tensor.name), "Shape": _numbers(builder, tensor.shape)}
    if tensor.batched:
        fields["ShapeSignature"] = _numbers(builder, (-1, *tensor.shape[1:]))
    if tensor.scales is not None:
        scales = builder.CreateNumpyVector(tensor.scales)
        zeros = _numbers(builder, [0] * len(tensor.scales), np.int64)
        described = {"Scale": scales, "ZeroPoint": zeros, "QuantizedDimension": tensor.axis}
        fields["Quantization"] = _table(builder, "QuantizationParameters", **described)
    return _table(builder, "Tensor", Type=tensor.type, Buffer=tensor.buffer, HasRank=True, **fields)


def _operator(builder: Any, operator: _Operator) -> int:
    fields = {"Inputs": _numbers(builder, operator.inputs), "Outputs": _numbers(builder, operator.outputs)}
    table = "".join(word.capitalize() for word in operator.name.split("_")) + "Options"
    if hasattr(tflite.BuiltinOptions, table):  # LOGISTIC and TANH have none
        fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, table)
        fields["BuiltinOptions"] = _table(builder, table, **operator.options)
    return _table(builder, "Operator", OpcodeIndex=operator.code, **fields)


def _operator_code(builder: Any, code: int, version: int) -> int:
    old = min(code, _ONE_BYTE_CODES)
    return _table(builder, "OperatorCode", DeprecatedBuiltinCode=old, Version=version, BuiltinCode=code)


def _metadata(builder: Any, name: str, buffer: int) -> int:
    return _table(builder, "Metadata", Name=builder.CreateString(name), Buffer=buffer)
