"""The smallest batch is found with streams that differ, at sizes around powers of two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.backends.selftest import smallest_isolated_batch
from tests.networks import contract_of, random_network

Floats = Any


class OtherKernel:
    """numpy's backend, where some rows of some batches have another last bit."""

    name, scheme = "other", "float32"

    def __init__(self, batches: Callable[[int], bool], rows: Callable[[Floats], Floats]) -> None:
        self._backend = ReferenceBackend(random_network())
        self._batches, self._rows = batches, rows

    def step(self, features: Floats, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        prediction, following = self._backend.step(features, states)
        if self._batches(len(features)):
            changed = np.nextafter(prediction, np.float32(np.inf))
            prediction = np.where(self._rows(features)[:, None], changed, prediction)
        return prediction, following


def rare(features: Floats) -> Floats:
    """About one row of twenty, by its own values: a copy of one stream in every place seldom shows it."""
    return (np.abs(features[:, 0]) * 1000 % 20).astype(np.int64) == 7


def all_rows(features: Floats) -> Floats:
    return np.ones(len(features), bool)


@pytest.mark.parametrize(
    ("batches", "rows", "smallest"),
    [
        (lambda size: False, rare, 1),
        (lambda size: size == 1, rare, 2),
        (lambda size: size <= 2, rare, 3),
        (lambda size: size > 64, rare, None),
        (lambda size: size == 257, rare, None),
        (lambda size: size == 127, all_rows, None),
    ],
)
def test_a_kernel_that_rounds_rare_rows_in_another_way_is_seen(
    batches: Callable[[int], bool], rows: Callable[[Floats], Floats], smallest: int | None
) -> None:
    contract = contract_of(random_network())
    tape = np.random.default_rng(2).normal(0, 1, (200, len(contract.inputs))).astype(np.float32)
    assert smallest_isolated_batch(OtherKernel(batches, rows), contract, tape) == smallest
