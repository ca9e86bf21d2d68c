"""The state of one stream as a value: taken from a predictor, kept or changed, and given to another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arguments import described, quoted
from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import ReadingError
from edge_lstm.foundation.times.text import is_time
from edge_lstm.streaming.stream_table import MOST_STEPS


@dataclass(frozen=True, eq=False)
class StreamState:
    """The complete state of one stream. It shares no memory with the predictor, and can be pickled.

    `states` maps the names of the contract's state tensors to arrays (float32, of the contract's shapes).
    `time` is the time of the last sample in seconds since 1970, or None before the first sample. `step` and
    `warm_steps` count as in `Prediction`. `bundle` is the bundle's id; it is empty if the predictor was made without a
    bundle. `row` is everything else as bytes: the last values, derived inputs, an incomplete sample, the open interval
    of a grid, the votes for a label, the calibration of alarms, and the last samples, which late readings need.
    `layout` describes these bytes, so that a later release can read them; keep it with them.
    """

    states: Mapping[str, Floats]
    time: float | None
    step: int
    warm_steps: int
    bundle: str = ""
    row: bytes = field(default=b"", repr=False)
    layout: str = field(default="", repr=False)  # empty: taken by release 0.1.0


def require_fit(state: StreamState, contract: Contract, bundle: str) -> None:
    """Raise ReadingError that names what does not fit a predictor of this contract and bundle id."""
    if not isinstance(state, StreamState):
        raise _unfit("a StreamState", described(state), "give what Predictor.state returned")
    for name, kind, expected_kind in (("bundle", str, "a str"), ("row", bytes, "bytes"), ("layout", str, "a str")):
        if not isinstance(found := getattr(state, name), kind):
            raise _unfit(f"{name} as {expected_kind}", described(found), "keep what Predictor.state returned")
    if not isinstance(state.states, Mapping):
        raise _unfit("states as a mapping of names to arrays", described(state.states), "give a dict")
    if state.bundle and bundle and state.bundle != bundle:
        raise _unfit(
            f"a state of the bundle {bundle}", f"one of {state.bundle}", "open the bundle that the state was taken from"
        )
    expected = {tensor.name: tuple(tensor.shape) for tensor in contract.states}
    if unknown := [name for name in state.states if name not in expected]:
        raise _unfit(f"states named {', '.join(expected)}", _name(unknown[0]), suggestion(str(unknown[0]), expected))
    for name, shape in expected.items():
        if name not in state.states:
            raise _unfit(f"states named {', '.join(expected)}", f'no "{name}"', f"give an array of shape {shape}")
        _require_array(name, state.states[name], shape)
    if state.time is not None and not is_time(state.time):
        expected_time = "time in seconds since 1970, of the years 1 to 9999, or None"
        raise _unfit(expected_time, described(state.time), "give the time of the stream's last sample")
    counts = {"step": state.step, "warm_steps": state.warm_steps}
    if odd := [name for name, count in counts.items() if type(count) is not int]:
        raise _unfit(f"{odd[0]} as an int", described(counts[odd[0]]), "convert it with int()")
    if not 0 <= state.warm_steps <= state.step <= MOST_STEPS:
        found = f"warm_steps {_shown(state.warm_steps)} and step {_shown(state.step)}"
        expected_counts = f"whole numbers 0 <= warm_steps <= step <= {MOST_STEPS}"
        raise _unfit(expected_counts, found, "give the counts that Predictor.state returned")


def _require_array(name: str, array: object, shape: tuple[int, ...]) -> None:
    expected = f"{name} as an array of shape {shape} in float32"
    if not isinstance(array, np.ndarray):
        raise _unfit(expected, described(array), "convert it with numpy.asarray")
    if array.shape != shape or array.dtype != np.float32:
        raise _unfit(expected, f"shape {array.shape} in {array.dtype}", "reshape it, or convert it with astype")
    if not np.isfinite(array).all():
        raise _unfit(f"finite numbers in {name}", "NaN or infinity", "take a state from before the fault")


def _name(name: object) -> str:
    return quoted(name) if isinstance(name, str) else described(name)


def _shown(count: int) -> str:
    return str(count) if abs(count) <= 10 * MOST_STEPS else "a larger number"


def _unfit(expected: str, found: str, remedy: str) -> ReadingError:
    return ReadingError(f"state: expected {expected}, found {found}", remedy)
