"""The interface of every backend, and the options of its execution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_lstm.foundation.arrays import Floats


@dataclass(frozen=True)
class ExecutionOptions:
    """The resources that a backend may use. A backend that cannot keep these limits refuses to load."""

    threads: int = 1  # for one step
    providers: tuple[str, ...] = ("CPUExecutionProvider",)  # of onnxruntime, in order of preference


ONE_THREAD = ExecutionOptions()


class Backend(Protocol):
    """An immutable model. The state is a separate value: an argument and a result of each step."""

    @property
    def name(self) -> str: ...

    @property
    def scheme(self) -> str: ...

    def step(self, features: Floats, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        """features (batch, inputs) raw; states in the contract's order, (batch, *shape) each.

        Returns predictions (batch, outputs) in the units of the targets, and the next states. The caller owns both.
        """
        ...
