"""The state of one stream as a value: taken from a predictor, kept or changed, and given to another one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import ReadingError


@dataclass(frozen=True, eq=False)
class StreamState:
    """The complete state of one stream. It shares no memory with the predictor, and can be pickled.

    `states` maps the names of the contract's state tensors to arrays (float32, of the contract's shapes).
    `time` is the time of the last sample in seconds since 1970, or None before the first sample. `step` and
    `warm_steps` count as in `Prediction`. `bundle` is the bundle's id; it is empty if the predictor was made without a
    bundle. `row` is everything else as bytes: the last values, derived inputs, an incomplete sample, the open interval
    of a grid, the votes for a label, the calibration of alarms, and the last samples, which late readings need.
    """

    states: Mapping[str, Floats]
    time: float | None
    step: int
    warm_steps: int
    bundle: str = ""
    row: bytes = field(default=b"", repr=False)


def require_fit(state: StreamState, contract: Contract, bundle: str) -> None:
    """Raise ReadingError that names what does not fit a predictor of this contract and bundle id."""
    if not isinstance(state, StreamState):
        raise _unfit("a StreamState", f"an object of type {type(state).__name__}", "give what Predictor.state returned")
    if state.bundle and bundle and state.bundle != bundle:
        raise _unfit(
            f"a state of the bundle {bundle}", f"one of {state.bundle}", "open the bundle that the state was taken from"
        )
    expected = {tensor.name: tuple(tensor.shape) for tensor in contract.states}
    if unknown := [name for name in state.states if name not in expected]:
        raise _unfit(f"states named {', '.join(expected)}", f'"{unknown[0]}"', suggestion(str(unknown[0]), expected))
    for name, shape in expected.items():
        if name not in state.states:
            raise _unfit(f"states named {', '.join(expected)}", f'no "{name}"', f"give an array of shape {shape}")
        _require_array(name, state.states[name], shape)
    time, counts = state.time, (state.step, state.warm_steps)
    if time is not None and not (isinstance(time, (int, float)) and math.isfinite(time)):
        raise _unfit("time in seconds since 1970, or None", repr(time), "give the time of the stream's last sample")
    if not all(isinstance(count, int) for count in counts) or not 0 <= state.warm_steps <= state.step:
        found = f"warm_steps {state.warm_steps!r} and step {state.step!r}"
        raise _unfit("whole numbers 0 <= warm_steps <= step", found, "give the counts that Predictor.state returned")


def _require_array(name: str, array: object, shape: tuple[int, ...]) -> None:
    expected = f"{name} as an array of shape {shape} in float32"
    if not isinstance(array, np.ndarray):
        raise _unfit(expected, f"an object of type {type(array).__name__}", "convert it with numpy.asarray")
    if array.shape != shape or array.dtype != np.float32:
        raise _unfit(expected, f"shape {array.shape} in {array.dtype}", "reshape it, or convert it with astype")
    if not np.isfinite(array).all():
        raise _unfit(f"finite numbers in {name}", "NaN or infinity", "take a state from before the fault")


def _unfit(expected: str, found: str, remedy: str) -> ReadingError:
    return ReadingError(f"state: expected {expected}, found {found}", remedy)
