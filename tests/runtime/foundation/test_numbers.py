"""Digits of float32 numbers: the shortest that read back exactly, the same on every path."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_lstm.foundation import numbers as digits


def any_float32(count: int) -> np.ndarray:
    bits = np.random.default_rng(0).integers(0, 2**32, count, dtype=np.uint64).astype(np.uint32)
    edges = np.array([0.0, -0.0, 1e-45, 1.17549435e-38, 3.4028235e38, 1e16, 1e-5, 16777216.0, 0.1], np.float32)
    values = np.concatenate([edges, bits.view(np.float32)])
    return values[np.isfinite(values)][: count // 2 * 2].reshape(-1, 2)


def test_float32_digits_are_shortest_and_read_back_exactly() -> None:
    values = any_float32(20_000)
    written = digits.shortest_digits(values)
    assert (np.array(written, np.float64).astype(np.float32).view(np.uint32) == values.view(np.uint32)).all()
    assert digits.shortest_digits(np.array([[812.4, 0.1]], np.float32)) == [[812.4, 0.1]]
    assert all(type(value) is float for row in written for value in row)


def test_orjson_and_json_write_the_same_digits() -> None:
    pytest.importorskip("orjson", reason="the extra `fast` is not installed")
    values = any_float32(200_000)
    fast, plain = digits._orjson_digits(values), digits._python_digits(values)
    assert list(map(repr, fast)) == list(map(repr, plain))


def test_nan_and_infinity_are_kept() -> None:
    (row,) = digits.shortest_digits(np.array([[np.nan, np.inf]], np.float32))
    assert math.isnan(row[0])
    assert row[1] == math.inf


def test_texts_are_as_python_writes_them_and_nan_is_null() -> None:
    values = np.vstack([any_float32(200_000), np.array([[np.nan, -np.inf], [9.99e-4, 1e12]], np.float32)])
    expected = [
        repr(number) if math.isfinite(number) else "null" for row in digits.shortest_digits(values) for number in row
    ]
    assert digits.shortest_texts(values[-2:]) == expected[-4:]
    assert digits._python_texts(values[-40:]) == expected[-80:]
    if digits.shortest_texts is not digits._python_texts:
        usual = values[(np.abs(values) >= 1e-3).all(axis=1) & (np.abs(values) < 1e12).all(axis=1)]
        assert len(usual) > 3000
        for part in (values, usual):
            assert digits._orjson_texts(part) == digits._python_texts(part)
