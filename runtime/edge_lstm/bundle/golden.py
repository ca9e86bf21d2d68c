"""Golden vectors: a tape of real inputs, with the outputs and states of the torch model."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_lstm.bundle.archive import GOLDEN, Bundle
from edge_lstm.bundle.npz import NPZ_ERRORS, read_npz
from edge_lstm.foundation.arrays import Floats, Integers
from edge_lstm.foundation.errors import BundleError
from edge_lstm.foundation.text import printable

_MAX_STEPS = 20_000  # twenty times what an export writes


@dataclass(frozen=True, eq=False)
class Expected:
    """The results of one scheme's weights for one stream, computed by torch in float32."""

    prediction: Floats  # (steps, outputs)
    states: Sequence[Floats]  # per state tensor (marks, *shape): after each step of `GoldenVectors.marks`


@dataclass(frozen=True, eq=False)
class GoldenVectors:
    """The input tape of one stream, and the results of each scheme."""

    features: Floats  # (steps, inputs)
    marks: Integers  # (marks,): the steps (from 1) after which states are recorded
    expected: Mapping[str, Expected]  # by scheme; float32 is always there


def to_npz(golden: GoldenVectors) -> bytes:
    """The golden vectors as an .npz file without pickles. Equal vectors give equal bytes."""
    arrays: dict[str, NDArray[np.generic]] = {"features": golden.features, "marks": golden.marks}
    for scheme, expected in golden.expected.items():
        arrays[f"{scheme}.prediction"] = expected.prediction
        for index, state in enumerate(expected.states):
            arrays[f"{scheme}.state{index}"] = state
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def read_golden_vectors(bundle: Bundle) -> GoldenVectors:
    """The bundle's golden vectors. Raises BundleError if they are missing or do not fit its contract."""
    states = len(bundle.contract.states)
    try:
        arrays = read_npz(bundle.content[GOLDEN])
        expected = {
            scheme: Expected(
                arrays[f"{scheme}.prediction"], [arrays[f"{scheme}.state{index}"] for index in range(states)]
            )
            for scheme in {*bundle.schemes, "float32"}
        }
        golden = GoldenVectors(arrays["features"], arrays["marks"], expected)
    except NPZ_ERRORS as error:
        raise BundleError(
            f"{bundle.source}: expected golden vectors in {GOLDEN}, found: {printable(str(error))}",
            "export the bundle again",
        ) from None
    if fault := _fault(bundle, golden):
        raise BundleError(f"{bundle.source}: expected golden {fault}", "export the bundle again")
    return golden


def _fault(bundle: Bundle, golden: GoldenVectors) -> str | None:
    """What does not fit the contract; None: all fits."""
    contract, steps, marks = bundle.contract, len(np.atleast_1d(golden.features)), golden.marks
    if steps > _MAX_STEPS:
        return f"vectors of at most {_MAX_STEPS} steps, found {steps}"
    if marks.ndim != 1 or marks.dtype.kind not in "iu" or not marks.size or marks.min() < 1 or marks.max() > steps:
        return f"marks among {steps} steps, found {marks.tolist()!r:.60}"
    shapes: list[tuple[str, Floats, tuple[int, ...]]] = [("features", golden.features, (steps, len(contract.inputs)))]
    for scheme, expected in golden.expected.items():
        shapes.append((f"predictions of {scheme}", expected.prediction, (steps, len(contract.network_outputs))))
        for state, array in zip(contract.states, expected.states, strict=True):
            shapes.append((f"{state.name} of {scheme}", array, (len(marks), *state.shape)))
    for name, array, shape in shapes:
        if array.shape != shape or array.dtype != np.float32:
            return f"{name} of shape {shape} in float32, found {array.shape} in {array.dtype}"
    return None
