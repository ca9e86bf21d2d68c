"""The self-test of a bundle in a confined child process, before this process gives the model to its runtime.

A model file can crash a runtime, or let it work without end. In the child this is a refusal.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from edge_lstm.backends.kinds import BACKENDS
from edge_lstm.backends.protocol import ONE_THREAD, ExecutionOptions
from edge_lstm.backends.registry import format_of, imported, load, why_unavailable
from edge_lstm.backends.selftest import SelfTestError, Verdict, run_self_test
from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.golden import read_golden_vectors
from edge_lstm.foundation.child_process import ChildError, call_confined
from edge_lstm.foundation.errors import BackendError

TIMEOUT_S = 120.0


def self_test_confined(
    bundle: Bundle,
    name: str,
    scheme: str,
    execution: ExecutionOptions = ONE_THREAD,
    turn: Callable[[], None] | None = None,
) -> Verdict:
    """The verdict of the self-test, from a child process. `turn` is called again and again while it works.

    Where `execution` names other providers than the CPU, the child uses the CPU: a GPU can't be shared with a child.

    Raises BackendError as `load` does, and SelfTestError where the runtime crashes, hangs, or raises anything else.
    """
    if name in BACKENDS and why_unavailable(name) is None:
        imported(name)  # in this process: the child has no right to read it if this is root

    def work() -> dict[str, Any]:
        options = ExecutionOptions(execution.threads, ONE_THREAD.providers)
        loaded = load(bundle, name, scheme, options)
        golden = read_golden_vectors(bundle)
        _, verdict = run_self_test(loaded, bundle.contract, golden, bundle.variant(format_of(name), scheme))
        return dataclasses.asdict(verdict)

    try:
        return Verdict(**call_confined(work, TIMEOUT_S, turn))
    except ChildError as error:
        if error.refused:
            raise BackendError(error.message, error.hint) from None
        raise SelfTestError(
            f"{bundle.source}: expected {name} {scheme} to give the golden vectors, found that it {_ended(error)}",
            "do not run this bundle if its origin is unknown; else use another backend, or another version of this one",
            Verdict(name, scheme, 0, math.nan, 0.0, math.nan, 0.0, None, None, False),
        ) from None


def _ended(error: ChildError) -> str:
    return error.message if error.message.startswith(("died", "ended")) else f"failed: {error.message}"
