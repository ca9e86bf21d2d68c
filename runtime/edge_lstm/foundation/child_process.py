"""Runs work in a child process, so that its crash does not end this one: a crash becomes a ChildError.

`ask` runs a module of this package in a new Python, for an import that may crash: a wheel for another processor
dies of SIGILL. The module reads one JSON value from stdin and writes one as the last line of stdout. `call_confined`
calls a function in a copy of this process without rights, for a file of unknown origin.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from edge_lstm.foundation.confinement import confine, end_with_parent
from edge_lstm.foundation.errors import EdgeLstmError

_LONGEST_FOUND = 200  # characters of an error
_SIGNALS = {
    signal.SIGILL: "SIGILL (an instruction that this processor does not have)",
    signal.SIGSEGV: "SIGSEGV (a fault in compiled code)",
    signal.SIGKILL: "SIGKILL (as the kernel does where memory runs out)",
    signal.SIGBUS: "SIGBUS (a fault in compiled code)",
}


_ANSWER_BYTES = 65_536
_TURN_S = 0.2


class ChildError(EdgeLstmError):
    """The child gave no answer; the message says why."""

    refused = False  # whether the work itself refused with this message


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
    return _checked(answer)


def call_confined(work: Callable[[], Any], timeout_s: float, turn: Callable[[], None] | None = None) -> Any:
    """The JSON value that `work()` returns in a copy of this process that has lost its rights (see `confine`).

    `turn` is called again and again while the child works. Import before the call what `work` needs.

    Raises ChildError if the child died, ended after `timeout_s`, or failed. An EdgeLstmError in the child becomes a
    ChildError with the same message and hint, and `refused` set.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python 3.12 about threads: this child starts none of Python
        child = os.fork()
    if child == 0:
        _work_confined(work, writing)
    os.close(writing)
    try:
        said = _read_answer(reading, time.monotonic() + timeout_s, turn)
    finally:
        os.close(reading)
        if _is_running(child):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if said is None:
        raise ChildError(f"no answer within {timeout_s:.0f} s")
    if os.WIFSIGNALED(status):
        raise ChildError(f"died of {signal_name(os.WTERMSIG(status))}")
    try:
        return _checked(json.loads(said))["answer"]
    except ValueError:
        raise ChildError(f"ended without an answer, exit code {os.waitstatus_to_exitcode(status)}") from None


def _is_running(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _read_answer(reading: int, deadline: float, turn: Callable[[], None] | None) -> bytes | None:
    """All that the child writes; None: it took too long."""
    said = b""
    while (left := deadline - time.monotonic()) > 0 and len(said) <= _ANSWER_BYTES:
        ready, _, _ = select.select([reading], [], [], 0 if turn is not None else min(left, _TURN_S))
        if ready:
            more = os.read(reading, _ANSWER_BYTES)
            if not more:
                return said
            said += more
        elif turn is not None:
            turn()
    return None


def _work_confined(work: Callable[[], Any], writing: int) -> NoReturn:
    """In the child: work, write the answer and end, without the parent's exit handlers."""
    try:
        gc.disable()
        faulthandler.disable()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        end_with_parent()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        os.dup2(writing, 3)
        os.closerange(4, max(os.sysconf("SC_OPEN_MAX"), 4) if os.sysconf("SC_OPEN_MAX") < 2**20 else 2**16)
        confine()
        try:
            found: Any = {"answer": work()}
        except EdgeLstmError as error:
            found = {"error": error.message, "hint": error.hint, "refused": True}
        os.write(3, json.dumps(found).encode()[:_ANSWER_BYTES])
    except BaseException as error:  # noqa: BLE001 - the child of a service must never go on as a service
        first = (str(error).splitlines() or [""])[0][:_LONGEST_FOUND]
        os.write(3, json.dumps({"error": f"{type(error).__name__}: {first}"}).encode())
    finally:
        os._exit(0)


def _checked(answer: Any) -> Any:
    """The answer. Raises ChildError where it is a refusal."""
    if isinstance(answer, dict) and "error" in answer:
        error = ChildError(str(answer["error"]), str(answer.get("hint", "")))
        error.refused = bool(answer.get("refused"))
        raise error
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
