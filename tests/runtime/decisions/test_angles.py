"""Positions on a circle: within it, the shorter way around it, and the published position of sine and cosine."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_lstm.bundle.contract import Feature
from edge_lstm.decisions.angles import PublishedOutputs, difference, position, sine_and_cosine, wrapped
from tests.feature_vectors import contract


def test_a_position_is_wrapped_into_its_circle() -> None:
    values = np.array([0.0, 360.0, 725.0, -1.0, -1e-9, np.nan], np.float32)
    np.testing.assert_array_equal(wrapped(values, 360.0), np.array([0, 0, 5, 359, 0, np.nan], np.float32))
    assert wrapped(np.array([2 * math.pi + 1], np.float32), 2 * math.pi)[0] == pytest.approx(1.0, abs=1e-6)


def test_a_difference_goes_the_shorter_way_around() -> None:
    found = difference(np.array([1.0, 359.0, 90.0, 10.0]), np.array([359.0, 1.0, 300.0, 10.0]), 360.0)
    np.testing.assert_allclose(found, [2, -2, 150, 0])


def test_sine_and_cosine_give_the_position_back() -> None:
    positions = np.array([0.0, 30.0, 90.0, 180.0, 270.0, 359.5])
    sine, cosine = sine_and_cosine(positions, 360.0)
    np.testing.assert_allclose(sine[[0, 1, 2]], [0, 0.5, 1], atol=1e-12)
    np.testing.assert_allclose(position(sine, cosine, 360.0), positions, atol=1e-9)
    np.testing.assert_allclose(position(0.2 * sine, 0.2 * cosine, 24.0), positions / 15, atol=1e-9)  # of any length


def test_a_circle_is_published_as_one_position_among_plain_targets() -> None:
    wind = contract(Feature("wind", period=360.0), Feature("speed"), targets=["speed", "wind"], horizons=[1, 5])
    assert wind.outputs == [("speed", 1), ("speed", 5), ("wind", 1), ("wind", 5)]
    sines, cosines = [("wind sin", 1), ("wind sin", 5)], [("wind cos", 1), ("wind cos", 5)]
    assert wind.network_outputs == [("speed", 1), ("speed", 5), *sines, *cosines]
    found = PublishedOutputs(wind)(np.array([[7, 8, 0.5, -1, 0.5, 0], [7, np.nan, 0, np.nan, 2, 1]], np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[7, 8, 45, 270], [7, np.nan, 0, np.nan]], rtol=1e-6)


def test_outputs_without_a_circle_are_published_as_they_are() -> None:
    plain = contract(Feature("speed"))
    outputs = np.ones((3, 2), np.float32)
    assert PublishedOutputs(plain)(outputs) is outputs
    assert plain.network_outputs == plain.outputs
