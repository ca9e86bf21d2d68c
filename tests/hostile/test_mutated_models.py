"""Model files with random changes end in a verdict or a refusal; some of them end the child, none ends this process."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import pytest

from edge_lstm.backends.confined import self_test_confined
from edge_lstm.backends.registry import format_of, why_unavailable
from edge_lstm.bundle.archive import Bundle
from edge_lstm.foundation.errors import EdgeLstmError
from tests.paths import PUMP

FILES = 25


@pytest.mark.parametrize("backend", ["litert", "onnx", "numpy"])
def test_mutated_model_files_never_pass_with_wrong_numbers(backend: str) -> None:
    if (error := why_unavailable(backend)) is not None:
        pytest.skip(error.message)
    bundle = Bundle.open(PUMP)
    variant = bundle.variant(format_of(backend), "int8")
    whole = bundle.content[variant.file]
    random, outcomes = np.random.default_rng(11), collections.Counter[str]()
    for _ in range(FILES):
        data = bytearray(whole)
        for place in random.integers(0, len(data), 4).tolist():
            data[place] ^= 1 << int(random.integers(8))
        changed = dataclasses.replace(bundle, content={**bundle.content, variant.file: bytes(data)})
        try:
            verdict = self_test_confined(changed, backend, "int8")
        except EdgeLstmError as refusal:
            outcomes["died" if "died of" in refusal.message else "refused"] += 1
        else:
            outcomes["passed" if verdict.passed else "failed"] += 1
            assert not verdict.passed or verdict.error <= verdict.parity
    assert outcomes.total() == FILES
    assert outcomes["refused"] + outcomes["failed"] + outcomes["died"] >= FILES // 5, outcomes
