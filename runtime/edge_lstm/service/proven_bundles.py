"""Remembers which bundles passed their self-test in a child process, by bundle, backend and processor.

The file is beside the state database. A known bundle starts without a child. Its golden vectors are stepped in any
case.
"""

from __future__ import annotations

import contextlib
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import edge_lstm
from edge_lstm.backends.confined import self_test_confined
from edge_lstm.backends.kinds import BACKENDS
from edge_lstm.backends.protocol import ExecutionOptions
from edge_lstm.backends.registry import imported
from edge_lstm.backends.selftest import Isolation, SelfTestError, required_isolation
from edge_lstm.bundle.archive import Bundle
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.files import write_file
from edge_lstm.foundation.hashing import sha256

_PROCESSOR_LINES = ("model name", "flags", "features", "cpu implementer", "cpu part", "cpu variant", "cpu revision")
_MOST_REMEMBERED = 32
_MOST_BYTES = 2**16
_refusals: dict[str, SelfTestError] = {}


def proven(
    bundle: Bundle,
    name: str,
    scheme: str,
    execution: ExecutionOptions,
    memory: Path,
    turn: Callable[[], None] | None = None,
) -> Isolation:
    """What the self-test in a child process found about batches, now or at an earlier start; see `self_test_confined`.

    `memory`: the file that remembers it. Raises BackendError or SelfTestError.
    """
    known, key = _read(memory), _key(bundle, name, scheme, execution)
    if (refusal := _refusals.pop(key, None)) is not None:
        raise refusal
    if key not in known:
        try:
            isolation = required_isolation(bundle, self_test_confined(bundle, name, scheme, execution, turn))
        except SelfTestError as error:
            if turn is not None:  # a running service asked first: its successor gets the same answer at once
                _refusals[key] = error
            raise
        known = dict([*known.items(), (key, isolation)][-_MOST_REMEMBERED:])
        _write(memory, known)
    return known[key]


def _key(bundle: Bundle, name: str, scheme: str, execution: ExecutionOptions) -> str:
    """A hash of all that the result depends on: the manifest has the hashes of all files of the bundle."""
    package = imported(name) and sys.modules[BACKENDS[name].package]
    versions = [edge_lstm.__version__, np.__version__, str(getattr(package, "__version__", package.__file__))]
    facts = [name, scheme, execution.threads, *execution.providers, *versions, *_processor()]
    key: str = sha256(bundle.manifest_bytes + json.dumps(facts).encode()).hexdigest()
    return key


def _processor() -> list[str]:
    """What chooses the kernels: the first processor's lines in /proc/cpuinfo, without its present speed."""
    try:
        first = Path("/proc/cpuinfo").read_bytes().split(b"\n\n")[0].decode("utf-8", "replace").lower().splitlines()
    except OSError:
        first = []
    return [platform.machine(), *(line for line in first if line.startswith(_PROCESSOR_LINES))]


def _read(memory: Path) -> dict[str, Isolation]:
    """What is remembered; nothing where the file is missing or damaged."""
    try:
        data = memory.read_bytes()
        if len(data) > _MOST_BYTES:
            return {}
        return {key: Isolation(int(smallest), bool(alone)) for key, (smallest, alone) in json.loads(data).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(memory: Path, known: dict[str, Isolation]) -> None:
    with contextlib.suppress(EdgeLstmError):  # the next start tests again
        write_file(memory, json.dumps(known).encode())
