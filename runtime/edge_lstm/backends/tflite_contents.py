"""What a TFLite file may contain: one graph of the operators that an export writes, with all its weights inside.

The file is read here first, in Python: later versions of the format can keep weights in other files of the device.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from edge_lstm.foundation.errors import BackendError

# ADD, CONCATENATION, DEQUANTIZE, FULLY_CONNECTED, LOGISTIC, MUL, TANH, GATHER, SUB, STRIDED_SLICE, SPLIT: their numbers
# in the format's list of operators. Absent: graphs within graphs, variables, operators of its own.
_OPERATORS = frozenset((0, 2, 6, 9, 14, 18, 28, 36, 41, 45, 49))
_MOST_OPERATORS = 100
_MOST_BUFFERS = 10_000
_IDENTIFIER = b"TFL3"
# Fields of a model, and of an operator's code.
_CODES, _GRAPHS, _BUFFERS, _LAST_FIELD = 1, 2, 4, 7
_OLD_CODE, _OWN_NAME, _CODE = 0, 1, 3


class _StrangeError(ValueError):
    """What is not allowed."""


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
    if any(model.place(field) for field in range(_LAST_FIELD + 1, model.count)):
        raise _StrangeError("weights in another file, or an unknown field")
    for code in model.tables(_CODES, _MOST_OPERATORS):
        number = max(code.number(_OLD_CODE, "<b"), code.number(_CODE, "<i"))
        if code.place(_OWN_NAME) or number not in _OPERATORS:
            raise _StrangeError(f"the operator {number} of the format's list")
    if (graphs := sum(1 for _ in model.tables(_GRAPHS, _MOST_OPERATORS))) != 1:
        raise _StrangeError(f"{graphs} graphs")
    for buffer in model.tables(_BUFFERS, _MOST_BUFFERS):
        if any(buffer.place(field) for field in range(1, buffer.count)):
            raise _StrangeError("weights outside of the model's own bytes")


def _unsigned(content: bytes, place: int) -> int:
    return int(struct.unpack_from("<I", content, place)[0])
