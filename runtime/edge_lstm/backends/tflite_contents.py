"""What a TFLite file may contain: one graph of the operators that an export writes, with all its weights inside.

The file is read here first, in Python: later versions of the format can keep weights in other files of the device, and
the library trusts every offset, index and size of the file.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from edge_lstm.foundation.errors import BackendError


class _Kind(NamedTuple):
    """What is fixed for an operator."""

    inputs: int  # 0: two or more
    options: int  # number of its options' type
    constant: tuple[int, ...] = ()  # inputs that lie in the file: places and sizes, which the library does not check


_GATHER, _SPLIT = 36, 49
# By their numbers in the format's list of operators. Absent: graphs within graphs, variables, operators of its own.
_OPERATORS = {
    0: _Kind(2, 11),  # ADD
    2: _Kind(0, 10),  # CONCATENATION
    6: _Kind(1, 38),  # DEQUANTIZE
    9: _Kind(3, 8),  # FULLY_CONNECTED
    14: _Kind(1, 0),  # LOGISTIC
    18: _Kind(2, 21),  # MUL
    28: _Kind(1, 0),  # TANH
    _GATHER: _Kind(2, 23, (1,)),
    41: _Kind(2, 28),  # SUB
    45: _Kind(4, 32, (1, 2, 3)),  # STRIDED_SLICE
    _SPLIT: _Kind(2, 35, (0,)),
}
_HALF_BYTES = {0: 8, 1: 4, 2: 8, 9: 2, 17: 1}  # of an element, by type: float32, float16, int32, int8, int4
_INT32 = 2
_MOST_OPERATORS = 100  # in the list of those that the graph uses
_MOST = 10_000  # tensors, operators of the graph, buffers
_MOST_ELEMENTS, _MOST_AXES = 10**8, 4
_IDENTIFIER = b"TFL3"
# Fields of the tables, by the format's schema.
_CODES, _GRAPHS, _DESCRIPTION, _BUFFERS, _METADATA, _SIGNATURES = 1, 2, 3, 4, 6, 7
_OLD_CODE, _OWN_NAME, _CODE = 0, 1, 3  # of an operator's code
_TENSORS, _INPUTS, _OUTPUTS, _STEPS, _GRAPH_NAME = range(5)  # of a graph
_SHAPE, _TYPE, _BUFFER, _NAME, _QUANTIZATION = range(5)  # of a tensor
_SCALES, _ZERO_POINTS, _AXIS = 2, 3, 6  # of a quantization
_STEP_CODE, _STEP_INPUTS, _STEP_OUTPUTS, _OPTIONS_TYPE, _OPTIONS = range(5)  # of an operator in the graph
_MAPPED_INPUTS, _MAPPED_OUTPUTS, _KEY = 0, 1, 2  # of a signature


class _StrangeError(ValueError):
    """What is not allowed."""


class _Tensor(NamedTuple):
    shape: Sequence[int]
    kind: int
    content: bytes  # empty: it is computed


def refuse_strange_model(content: bytes, file: str) -> None:
    """Raise BackendError where the TFLite file holds anything that no export writes. `file`: its name, for messages."""
    try:
        if content[4:8] != _IDENTIFIER:
            raise _StrangeError("another format")
        _check(_Table(content, _unsigned(content, 0)))
    except (struct.error, _StrangeError) as error:
        found = error if isinstance(error, _StrangeError) else "a damaged file"
        raise BackendError(
            f"{file}: expected a TFLite graph of known operators with all its weights inside, found {found}",
            "run no file of unknown origin; export the bundle again",
        ) from None


class _Table:
    """A table of a flatbuffer."""

    def __init__(self, content: bytes, place: int) -> None:
        self._content, self._place = content, place
        self._fields = place - struct.unpack_from("<i", content, place)[0]
        if self._fields < 0:
            raise _StrangeError("a damaged file")
        self.count = (struct.unpack_from("<H", content, self._fields)[0] - 4) // 2

    def place(self, field: int) -> int:
        """Where the field's value is; 0: it is not there."""
        if field >= self.count:
            return 0
        offset: int = struct.unpack_from("<H", self._content, self._fields + 4 + 2 * field)[0]
        return self._place + offset if offset else 0

    def number(self, field: int, form: str) -> int:
        """A number, 0 where it is not there."""
        place = self.place(field)
        return int(struct.unpack_from(form, self._content, place)[0]) if place else 0

    def numbers(self, field: int, form: str) -> list[int]:
        """A vector of numbers, empty where it is not there."""
        if not (place := self.place(field)):
            return []
        vector = place + _unsigned(self._content, place)
        return list(struct.unpack_from(f"<{_unsigned(self._content, vector)}{form}", self._content, vector + 4))

    def content(self, field: int) -> bytes:
        """A vector of bytes, or a text."""
        if not (place := self.place(field)):
            return b""
        vector = place + _unsigned(self._content, place)
        found: bytes = struct.unpack_from(f"{_unsigned(self._content, vector)}s", self._content, vector + 4)[0]
        return found

    def table(self, field: int) -> _Table | None:
        """A table, or None where it is not there."""
        place = self.place(field)
        return _Table(self._content, place + _unsigned(self._content, place)) if place else None

    def tables(self, field: int, most: int) -> Iterator[_Table]:
        """The tables of a vector."""
        if place := self.place(field):
            vector = place + _unsigned(self._content, place)
            count = _unsigned(self._content, vector)
            if count > most:
                raise _StrangeError(f"a list of {count}, more than {most}")
            for at in range(vector + 4, vector + 4 + 4 * count, 4):
                yield _Table(self._content, at + _unsigned(self._content, at))


def _check(model: _Table) -> None:
    if any(model.place(field) for field in range(_SIGNATURES + 1, model.count)):
        raise _StrangeError("weights in another file, or an unknown field")
    model.content(_DESCRIPTION)
    codes = []
    for code in model.tables(_CODES, _MOST_OPERATORS):
        number = max(code.number(_OLD_CODE, "<b"), code.number(_CODE, "<i"))
        if code.place(_OWN_NAME) or number not in _OPERATORS:
            raise _StrangeError(f"the operator {number} of the format's list")
        codes.append(number)
    graphs = list(model.tables(_GRAPHS, _MOST_OPERATORS))
    if len(graphs) != 1:
        raise _StrangeError(f"{len(graphs)} graphs")
    buffers = []
    for buffer in model.tables(_BUFFERS, _MOST):
        if any(buffer.place(field) for field in range(1, buffer.count)):
            raise _StrangeError("weights outside of the model's own bytes")
        buffers.append(buffer.content(0))
    tensors = [_tensor(one, buffers) for one in graphs[0].tables(_TENSORS, _MOST)]
    _check_graph(graphs[0], codes, tensors)
    for signature in model.tables(_SIGNATURES, _MOST_OPERATORS):
        signature.content(_KEY)
        for field in (_MAPPED_INPUTS, _MAPPED_OUTPUTS):
            for mapped in signature.tables(field, _MOST):
                mapped.content(0)
                _require_places([mapped.number(1, "<I")], tensors)
    for metadata in model.tables(_METADATA, _MOST_OPERATORS):
        metadata.content(0)


def _tensor(table: _Table, buffers: Sequence[bytes]) -> _Tensor:
    shape, kind, place = table.numbers(_SHAPE, "i"), table.number(_TYPE, "<b"), table.number(_BUFFER, "<I")
    table.content(_NAME)
    if kind not in _HALF_BYTES or place >= len(buffers):
        raise _StrangeError(f"a tensor of type {kind} in buffer {place}")
    elements = math.prod(shape)
    if len(shape) > _MOST_AXES or any(size < 1 for size in shape) or elements > _MOST_ELEMENTS:
        raise _StrangeError("a tensor of an impossible shape")
    content = buffers[place]
    if content and len(content) != -(-elements * _HALF_BYTES[kind] // 2):
        raise _StrangeError(f"a tensor of {elements} elements in {len(content)} bytes")
    if (quantization := table.table(_QUANTIZATION)) is not None:
        scales = len(quantization.numbers(_SCALES, "I"))
        axis, zeros = quantization.number(_AXIS, "<i"), len(quantization.numbers(_ZERO_POINTS, "q"))
        if scales > 1 and not (0 <= axis < len(shape) and shape[axis] == scales):
            raise _StrangeError(f"{scales} scales of a tensor")
        if zeros not in (0, scales):
            raise _StrangeError(f"{scales} scales and {zeros} zero points")
    return _Tensor(shape, kind, content)


def _check_graph(graph: _Table, codes: Sequence[int], tensors: Sequence[_Tensor]) -> None:
    graph.content(_GRAPH_NAME)
    for field in (_INPUTS, _OUTPUTS):
        _require_places(graph.numbers(field, "i"), tensors)
    for step in graph.tables(_STEPS, _MOST):
        at = step.number(_STEP_CODE, "<I")
        if at >= len(codes):
            raise _StrangeError(f"operator {at} of {len(codes)}")
        kind, inputs, outputs = _OPERATORS[codes[at]], step.numbers(_STEP_INPUTS, "i"), step.numbers(_STEP_OUTPUTS, "i")
        _require_places([*inputs, *outputs], tensors)
        fits = len(inputs) == kind.inputs if kind.inputs else len(inputs) > 1
        options = step.table(_OPTIONS)
        if not fits or step.number(_OPTIONS_TYPE, "<B") not in (0, kind.options) or not outputs:
            raise _StrangeError(f"the operator {codes[at]} with {len(inputs)} inputs or other options")
        if any(not tensors[inputs[place]].content for place in kind.constant):
            raise _StrangeError(f"the operator {codes[at]} with places that are computed")
        if any(tensors[place].content for place in outputs) or (codes[at] != _SPLIT and len(outputs) != 1):
            raise _StrangeError(f"the operator {codes[at]} with outputs that are weights")
        if codes[at] == _GATHER:
            _check_gathered(tensors[inputs[0]], tensors[inputs[1]], options)


def _check_gathered(source: _Tensor, places: _Tensor, options: _Table | None) -> None:
    """The places of a GATHER: int32, within the axis."""
    axis = 0 if options is None else options.number(0, "<i")
    if not -len(source.shape) <= axis < len(source.shape) or places.kind != _INT32:
        raise _StrangeError(f"the axis {axis}")
    found = struct.unpack(f"<{len(places.content) // 4}i", places.content)
    if any(not 0 <= place < source.shape[axis] for place in found):
        raise _StrangeError("a place outside of a tensor")


def _require_places(places: Sequence[int], tensors: Sequence[_Tensor]) -> None:
    if any(not 0 <= place < len(tensors) for place in places):
        raise _StrangeError("a tensor that is not there")


def _unsigned(content: bytes, place: int) -> int:
    return int(struct.unpack_from("<I", content, place)[0])
