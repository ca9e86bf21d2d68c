"""TFLite files that no export writes are refused before LiteRT sees them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest

from edge_lstm.backends import tflite_contents
from edge_lstm.backends.tflite_contents import refuse_strange_model
from edge_lstm.bundle.archive import Bundle
from edge_lstm.foundation.errors import BackendError
from tests.paths import FIXTURES, PUMP

WHOLE = Bundle.open(PUMP).content["model.int8.tflite"]


def flat(fields: dict[int, bytes]) -> bytes:
    """A flatbuffer with one table of offsets to empty vectors or tables; by field number, the bytes they lead to."""
    count = 1 + max(fields, default=0)
    begin = 8 + 4 + 2 * count
    begin += -begin % 4
    table = begin + 4
    offsets, values, tail = [0] * count, b"", b""
    for index, (field, content) in enumerate(sorted(fields.items())):
        offsets[field] = 4 + 4 * index
        place = begin + 4 + 4 * index
        target = begin + 4 + 4 * len(fields) + len(tail)
        values += struct.pack("<I", target - place)
        tail += content
    directory = struct.pack("<HH", 4 + 2 * count, 4 + 4 * len(fields)) + struct.pack(f"<{count}H", *offsets)
    head = struct.pack("<I", begin) + b"TFL3" + directory
    assert table
    return head.ljust(begin, b"\0") + struct.pack("<i", begin - 8) + values + tail


EMPTY_VECTOR = struct.pack("<I", 0)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "another format"),
        (b"\x08\x00\x00\x00TFL3", "a damaged file"),
        (WHOLE[:60], "a damaged file"),
        (flat({}), "0 graphs"),
        (flat({8: EMPTY_VECTOR}), "weights in another file, or an unknown field"),
        (flat({9: EMPTY_VECTOR}), "weights in another file, or an unknown field"),
        (flat({1: struct.pack("<I", 2**31)}), "a list of 2147483648, more than 100"),
    ],
)
def test_a_strange_model_is_refused(content: bytes, found: str) -> None:
    with pytest.raises(BackendError, match=f"^model.tflite: expected a TFLite graph of known operators .*{found}"):
        refuse_strange_model(content, "model.tflite")


@pytest.mark.parametrize("number", [119, 118, 113])  # WHILE, IF, SEGMENT_SUM
def test_an_operator_that_no_export_writes_is_refused(number: int) -> None:
    changed = bytearray(WHOLE)
    changed[_codes(WHOLE)[0]] = number
    with pytest.raises(BackendError, match=f"the operator {number} of the format's list"):
        refuse_strange_model(bytes(changed), "model.tflite")


def _codes(content: bytes) -> list[int]:
    """The places of the operators' numbers of one byte."""
    from edge_lstm.backends import tflite_contents as reader

    model = reader._Table(content, reader._unsigned(content, 0))
    return [place for code in model.tables(1, 100) if (place := code.place(0))]


def test_every_model_of_our_own_is_accepted() -> None:
    read = 0
    for path in FIXTURES.rglob("*.elstm"):
        bundle = Bundle.open(path)
        for variant in bundle.manifest.variants:
            if variant.format == "tflite":
                refuse_strange_model(bundle.content[variant.file], variant.file)
                read += 1
    assert read >= 6


def _vector(table: Any, field: int) -> int:
    """Where the length of a vector is."""
    place: int = table.place(field)
    return place + int(struct.unpack_from("<I", WHOLE, place)[0])


def _strange_numbers() -> Iterator[tuple[str, int, str, int]]:
    """What is refused, and a place in the file with the form and the number that it gets."""
    contents = tflite_contents
    model = contents._Table(WHOLE, struct.unpack_from("<I", WHOLE)[0])
    graph = next(iter(model.tables(contents._GRAPHS, 1)))
    step = next(iter(graph.tables(contents._STEPS, 1000)))
    tensor = next(iter(graph.tables(contents._TENSORS, 1000)))
    yield "a tensor that is not there", _vector(step, contents._STEP_INPUTS) + 4, "<i", 9999
    yield "a tensor that is not there", _vector(graph, contents._OUTPUTS) + 4, "<i", -2
    yield "a tensor of an impossible shape", _vector(tensor, contents._SHAPE) + 4, "<i", 10**9
    yield "a damaged file", _vector(step, contents._STEP_INPUTS), "<I", 2**30
    yield "a damaged file", graph.place(contents._STEPS), "<I", 2**30
    held = next(one for one in graph.tables(contents._TENSORS, 1000) if one.place(contents._BUFFER))
    yield "a tensor of type", held.place(contents._BUFFER), "<I", 9999
    codes = [code.number(contents._CODE, "<i") for code in model.tables(contents._CODES, 100)]
    gather = codes.index(contents._GATHER)
    for one in graph.tables(contents._STEPS, 1000):
        if one.number(contents._STEP_CODE, "<I") == gather:
            yield "with places that are computed", _vector(one, contents._STEP_INPUTS) + 8, "<i", 0
            break


@pytest.mark.parametrize(("found", "place", "form", "number"), list(_strange_numbers()))
def test_offsets_indexes_and_sizes_are_checked(found: str, place: int, form: str, number: int) -> None:
    refuse_strange_model(WHOLE, "model.tflite")
    content = bytearray(WHOLE)
    struct.pack_into(form, content, place, number)
    with pytest.raises(BackendError, match=found):
        refuse_strange_model(bytes(content), "model.tflite")
