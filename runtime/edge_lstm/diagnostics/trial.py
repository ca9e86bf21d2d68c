"""Tries one backend in a child process, where a crash does no harm: its import, or the golden vectors of a bundle."""

from __future__ import annotations

import importlib
import time
from typing import Any

from edge_lstm.backends.confined import self_test_confined
from edge_lstm.backends.protocol import ONE_THREAD, ExecutionOptions
from edge_lstm.backends.registry import format_of, load, module_of, package_of
from edge_lstm.backends.selftest import run_self_test
from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.golden import read_golden_vectors
from edge_lstm.foundation.child_process import answer, question, refuse
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.hardware.machine import run_on


def import_facts(backend: str) -> dict[str, Any]:
    """The version of the backend's package, and the time of its import in milliseconds."""
    begun = time.perf_counter()
    importlib.import_module(module_of(backend))
    took_ms = 1000 * (time.perf_counter() - begun)
    version = getattr(importlib.import_module(package_of(backend)), "__version__", "of unknown version")
    return {"version": str(version), "import_ms": took_ms}


def self_test_facts(
    bundle: str, backend: str, scheme: str, threads: int, providers: list[str], cores: list[int] | None
) -> dict[str, Any]:
    """Whether the bundle in the file `bundle` passes its self-test with these options, and the finding."""
    if cores is not None:
        run_on(cores)
    opened = Bundle.open(bundle)
    execution = ExecutionOptions(threads, tuple(providers))
    verdict = self_test_confined(opened, backend, scheme, execution)
    if verdict.passed and execution.providers != ONE_THREAD.providers:  # that was on the CPU
        loaded = load(opened, backend, scheme, execution)
        variant = opened.variant(format_of(backend), scheme)
        _, verdict = run_self_test(loaded, opened.contract, read_golden_vectors(opened), variant)
    return {"passed": verdict.passed, "finding": verdict.finding}


def main() -> None:
    """Answer one request of the doctor."""
    asked = question()
    try:
        answer(self_test_facts(**asked) if "bundle" in asked else import_facts(**asked))
    except EdgeLstmError as error:
        refuse(error)
    except Exception as error:  # noqa: BLE001 - a broken wheel may raise anything, and that is the answer
        refuse(EdgeLstmError(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"))


if __name__ == "__main__":
    main()
