"""Everything that is carried per stream, as one array a quantity: row by row it is what a store keeps of a stream.

It knows names of streams and shapes of arrays, and nothing of what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_lstm.contract import Contract

Array = NDArray[np.generic]


class StreamTable:
    """Streams by name, each with a slot (a row) in every column.

    Columns: `time` (the last sample's, seconds since 1970, NaN before the first), `step` and `warm_steps` (counts),
    `held` (slots, features: the last value of each), and one float32 column (slots, *shape) a state tensor.
    """

    def __init__(self, contract: Contract, capacity: int = 16) -> None:
        self._slots: dict[str, int] = {}
        self._names: list[str] = []
        self._never_seen = np.array([feature.mean for feature in contract.features])
        self.time = np.full(capacity, np.nan)
        self.step = np.zeros(capacity, np.int64)
        self.warm_steps = np.zeros(capacity, np.int64)
        self.held = np.tile(self._never_seen, (capacity, 1))  # (slots, features)
        self.states = [np.zeros((capacity, *state.shape), np.float32) for state in contract.states]

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def names(self) -> Sequence[str]:
        """The streams' names, by slot."""
        return self._names

    def slot(self, stream: str) -> int:
        """The slot of `stream`; a stream not met before gets the next one, at its initial state."""
        slot = self._slots.get(stream)
        if slot is None:
            slot = self._slots[stream] = len(self._slots)
            self._names.append(stream)
            if slot == len(self.time):
                self._grow()
        return slot

    def restart(self, slot: int) -> None:
        """Put the stream's carried state back to its start; its step count and its last values stay."""
        self.warm_steps[slot] = 0
        for state in self.states:
            state[slot] = 0.0

    def row(self, stream: str) -> bytes:
        """All that is carried for `stream`, as bytes that `put_row` takes back."""
        slot = self._slots[stream]
        return b"".join(column[slot].tobytes() for column in self._columns())

    def put_row(self, stream: str, row: bytes) -> None:
        """Take back what `row` gave. Raises ValueError where it is of another layout."""
        columns = self._columns()
        size = sum(column[0].nbytes for column in columns)
        if len(row) != size:
            raise ValueError(f"expected {size} bytes for stream {stream!r}, found {len(row)}")
        slot = self.slot(stream)
        offset = 0
        for column in self._columns():
            one = column[slot]
            column[slot] = np.frombuffer(row, column.dtype, one.size, offset).reshape(one.shape)
            offset += one.nbytes

    def _columns(self) -> list[Array]:
        return [self.time, self.step, self.warm_steps, self.held, *self.states]

    def _grow(self) -> None:
        more = len(self.time)
        self.time = np.concatenate([self.time, np.full(more, np.nan)])
        self.step = np.concatenate([self.step, np.zeros(more, np.int64)])
        self.warm_steps = np.concatenate([self.warm_steps, np.zeros(more, np.int64)])
        self.held = np.concatenate([self.held, np.tile(self._never_seen, (more, 1))])
        self.states = [np.concatenate([state, np.zeros_like(state)]) for state in self.states]


def states_by_name(contract: Contract, states: Sequence[NDArray[np.float32]]) -> Mapping[str, NDArray[np.float32]]:
    """The state tensors (batch, *shape) under the names that the contract gives them."""
    return {tensor.name: state for tensor, state in zip(contract.states, states, strict=True)}
