"""One of our modules as a child process: its answer, or in words what became of it; nothing that it does ends us.

The module reads one JSON value from stdin and writes one as the last line of stdout. What kills it (a wheel built for
another processor dies with SIGILL) is an answer like any other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

from edge_lstm.foundation.errors import EdgeLstmError

_LONGEST_FOUND = 200
_SIGNALS = {
    signal.SIGILL: "SIGILL (an instruction that this processor does not have)",
    signal.SIGSEGV: "SIGSEGV (a fault in compiled code)",
    signal.SIGKILL: "SIGKILL (as the kernel does where memory runs out)",
    signal.SIGBUS: "SIGBUS (a fault in compiled code)",
}


class ChildError(EdgeLstmError):
    """The child gave no answer; the message is what became of it."""


def ask(module: str, question: Any, timeout_s: float) -> Any:
    """The answer of `python -m module` to `question`, both JSON-able.

    Raises ChildError where it died, was ended after `timeout_s`, or failed; the words of an EdgeLstmError that it met
    are those of the answer's `error` and `hint`.
    """
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}  # what lies in the working folder is not a package to import
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
    """The signal that ended a process, and what that means where it is one that broken wheels die of."""
    try:
        known = signal.Signals(number)
    except ValueError:
        return f"signal {number}"
    return _SIGNALS.get(known, known.name)


def question() -> Any:
    """In the child: what is asked."""
    return json.load(sys.stdin)


def answer(facts: Any) -> None:
    """In the child: say it."""
    print(json.dumps(facts), flush=True)


def refuse(error: EdgeLstmError) -> None:
    """In the child: say why there is no answer."""
    answer({"error": error.message, "hint": error.hint})
