"""ONNX files byte by byte, without the package onnx: messages of protobuf by field number."""

from __future__ import annotations

Value = int | str | bytes


def varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def message(*fields: tuple[int, Value]) -> bytes:
    """(field number, value) in order; an int becomes a varint, a text or bytes a field of bytes."""
    written = []
    for number, value in fields:
        if isinstance(value, int):
            written.append(varint(number << 3) + varint(value))
        else:
            content = value.encode() if isinstance(value, str) else value
            written.append(varint(number << 3 | 2) + varint(len(content)) + content)
    return b"".join(written)


def tensor(name: str, *others: tuple[int, Value]) -> bytes:
    """A float tensor (1,)."""
    return message((1, 1), (2, 1), (8, name), *others)


def external(location: str) -> tuple[tuple[int, Value], ...]:
    """The fields of a tensor whose numbers are in a file."""
    return (13, message((1, "location"), (2, location))), (14, 1)


def node(operator: str, inputs: str, outputs: str, *others: tuple[int, Value]) -> bytes:
    names = [*((1, name) for name in inputs.split()), *((2, name) for name in outputs.split())]
    return message(*names, (4, operator), *others)


def port(name: str) -> bytes:
    """A float input or output (batch, 1)."""
    shape = message((1, message((2, "batch"))), (1, message((1, 1))))
    return message((1, name), (2, message((1, message((1, 1), (2, shape))))))


def graph(*fields: tuple[int, Value]) -> bytes:
    """y = next_h = tanh(x + h), with more fields."""
    nodes = [node("Add", "x h", "sum"), node("Tanh", "sum", "next_h"), node("Identity", "next_h", "y")]
    return message(
        *((1, one) for one in nodes),
        (2, "small"),
        *fields,
        *((11, port(name)) for name in ("x", "h")),
        *((12, port(name)) for name in ("y", "next_h")),
    )


def model(*fields: tuple[int, Value], of: bytes | None = None) -> bytes:
    """The graph `of` (default: `graph()`) as a model, with more fields."""
    return message((1, 8), (8, message((1, ""), (2, 17))), (7, graph() if of is None else of), *fields)
