"""Runs a module of this package in a child process, so that its crash does not end this one.

The module reads one JSON value from stdin and writes one as the last line of stdout. A crash (a wheel for another
processor dies of SIGILL) becomes a ChildError.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

from edge_lstm.foundation.errors import EdgeLstmError

_LONGEST_FOUND = 200  # characters of an error
_SIGNALS = {
    signal.SIGILL: "SIGILL (an instruction that this processor does not have)",
    signal.SIGSEGV: "SIGSEGV (a fault in compiled code)",
    signal.SIGKILL: "SIGKILL (as the kernel does where memory runs out)",
    signal.SIGBUS: "SIGBUS (a fault in compiled code)",
}


class ChildError(EdgeLstmError):
    """The child gave no answer; the message says why."""


def ask(module: str, question: Any, timeout_s: float) -> Any:
    """The answer of `python -m module` to `question`; both are JSON values.

    Raises ChildError if the child died, ended after `timeout_s`, or failed. An EdgeLstmError in the child (see
    `refuse`) becomes a ChildError with the same message and hint.
    """
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}  # import no module from the working folder
    command = [sys.executable, "-m", module]
    try:
        done = subprocess.run(
            command, input=json.dumps(question).encode(), capture_output=True, timeout=timeout_s, env=environment
        )
    except subprocess.TimeoutExpired:
        raise ChildError(f"no answer within {timeout_s:.0f} s") from None
    except OSError as error:
        raise ChildError(f"no process could be started ({error.strerror})") from None
    if done.returncode < 0:
        raise ChildError(f"died of {signal_name(-done.returncode)}")
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    try:
        answer = json.loads(lines[-1])
    except (IndexError, ValueError):
        last = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise ChildError(last[-1][:_LONGEST_FOUND]) from None
    if isinstance(answer, dict) and "error" in answer:
        raise ChildError(str(answer["error"]), str(answer.get("hint", "")))
    return answer


def signal_name(number: int) -> str:
    """The name of the signal that ended a process, and its meaning if broken wheels die of it."""
    try:
        known = signal.Signals(number)
    except ValueError:
        return f"signal {number}"
    return _SIGNALS.get(known, known.name)


def question() -> Any:
    """In the child: the question."""
    return json.load(sys.stdin)


def answer(facts: Any) -> None:
    """In the child: write the answer."""
    print(json.dumps(facts), flush=True)


def refuse(error: EdgeLstmError) -> None:
    """In the child: write why there is no answer."""
    answer({"error": error.message, "hint": error.hint})
