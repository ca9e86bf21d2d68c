"""What every backend is: an immutable model that steps states which others keep; and what it may use for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_lstm.foundation.arrays import Floats


@dataclass(frozen=True)
class ExecutionOptions:
    """What a backend may use of the machine: this and nothing else, or it refuses."""

    threads: int = 1  # of one step
    providers: tuple[str, ...] = ("CPUExecutionProvider",)  # onnxruntime's, in the order of preference


ONE_THREAD = ExecutionOptions()


class Backend(Protocol):
    """An immutable model; the state is a separate value that goes in and comes out."""

    @property
    def name(self) -> str: ...

    @property
    def scheme(self) -> str: ...

    def step(self, features: Floats, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        """features (batch, inputs) raw; states in the contract's order, (batch, *shape) each.

        Returns predictions (batch, outputs) in the targets' units and the next states, in arrays that are the caller's.
        """
        ...
