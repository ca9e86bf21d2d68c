"""The interface of every backend, and the options of its execution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_lstm.foundation.arguments import described, whole_number
from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.errors import BackendError

_MOST_THREADS = 256


@dataclass(frozen=True)
class ExecutionOptions:
    """The resources that a backend may use. A backend that cannot keep these limits refuses to load."""

    threads: int = 1  # for one step
    providers: tuple[str, ...] = ("CPUExecutionProvider",)  # of onnxruntime, in order of preference

    def __post_init__(self) -> None:
        """Raises BackendError where the fields are not of these types, or empty."""
        whole_number(self.threads, "threads", 1, _MOST_THREADS, BackendError)
        providers: object = self.providers
        if not isinstance(providers, tuple) or not providers or not all(isinstance(one, str) for one in providers):
            raise BackendError(
                f"expected providers as a tuple of at least one name, found {_listed(providers)}",
                'write providers=("CPUExecutionProvider",)',
            )


def _listed(providers: object) -> str:
    if not isinstance(providers, tuple):
        return described(providers)
    return "an empty one" if not providers else ", ".join(map(described, providers))


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
