"""Digits of float32 numbers, shortest and exact on every path; units and thousands in the texts of numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_lstm.foundation import numbers as digits
from edge_lstm.foundation.numbers import without_thousands, without_unit


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


@pytest.mark.parametrize(
    ("text", "unit", "number"),
    [
        ("4.1 bar", "bar", "4.1"),
        ("-20.6 \u2103", "\u00b0C", "-20.6"),
        ("20,6\u00a0C", "degC", "20,6"),
        ("12.0m\u00b3/h", "m3/h", "12.0"),
        ("12 m3/h", "m\u00b3/h", "12"),
        ("1e3 Pa", "Pa", "1e3"),
        ("55 % RH", "%", "55"),
        ("5 \u00b5g/m\u00b3", "\u03bcg/m^3", "5"),
        ("5 mW", "MW", None),
        ("4.1 psi", "bar", None),
        ("4.1", "bar", None),
        ("4.1 bar", "", None),
        ("bar 4.1", "bar", None),
        ("4.1 psi", "strip", "4.1"),
        ("3 kg/m3", "strip", "3"),
        ("7 m s-1", "strip", "7"),
        ("45 %", "strip", "45"),
        ("21 \u00b0C", "strip", "21"),
        ("12:30", "strip", None),
        ("12h30", "strip", None),
        ("2024-03-01", "strip", None),
        ("1/2", "strip", None),
        ("0x1", "strip", None),
        ("5e", "strip", None),
        ("12 V 3 A", "strip", None),
        ("5 " + "V" * 30, "strip", None),
    ],
)
def test_a_unit_is_taken_off_a_number(text: str, unit: str, number: str | None) -> None:
    assert without_unit(text, unit) == number


@pytest.mark.parametrize(
    ("point", "comma", "plain"),
    [
        ("1,234.5", "1.234,5", "1234.5"),
        ("-1,234,567", "-1.234.567", "-1234567"),
        ("1'234", "1'234", "1234"),
        ("1\u202f234.5", "1\u202f234,5", "1234.5"),
        ("1,234", "1.234", None),
        ("1 234", "1 234", None),
        ("12,34.5", "12.34,5", None),
        ("1234,567.0", "1234.567,0", None),
    ],
)
def test_thousands_are_joined_where_nothing_else_is_meant(point: str, comma: str, plain: str | None) -> None:
    assert without_thousands(point) == plain
    assert without_thousands(comma, decimal_comma=True) == (None if plain is None else plain.replace(".", ","))
