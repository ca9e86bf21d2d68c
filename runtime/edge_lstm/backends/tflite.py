"""The TFLite variants, for whichever runtime brings an interpreter; one interpreter a batch size.

An interpreter takes one batch size at a time and is slow to resize, so there is one for each power of two, made when
first needed; rows that are left over are zeros.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from edge_lstm.bundle.archive import Variant
from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.errors import BackendError

# The runtimes write this line on stderr from C++, and have no switch for it.
_GREETING = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
_PIPE_BYTES = 65_536


class _Sized(Protocol):
    """An interpreter of one batch size, and the way to its tensors."""

    def run(self, arrays: Sequence[Floats]) -> list[Floats]:
        """Each array (rows, ...) with no more rows than the interpreter's batch -> the outputs, (rows, ...) each."""
        ...


class TfliteBackend:
    """Steps a TFLite graph; its weights never change, and what it returns is the caller's."""

    def __init__(
        self, name: str, interpreter: Callable[..., Any], variant: Variant, content: bytes, threads: int = 1
    ) -> None:
        """`interpreter` makes one from model_content and num_threads. Raises BackendError where it refuses that."""
        self.name = name
        self.scheme = variant.scheme
        self._interpreter = interpreter
        self._file = variant.file
        self._inputs = [variant.features, *[pair.input for pair in variant.states]]
        self._outputs = [variant.prediction, *[pair.output for pair in variant.states]]
        self._content = content
        self._threads = threads
        self._sized: dict[int, _Sized] = {}
        self._sized[1] = self._of_size(1)

    def step(self, features: Floats, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        """features (batch, inputs) raw, states (batch, *shape) each -> predictions (batch, outputs), next states."""
        size = 1 << (len(features) - 1).bit_length()  # the next power of two
        sized = self._sized.get(size)
        if sized is None:
            sized = self._sized[size] = self._of_size(size)
        prediction, *following = sized.run((features, *states))
        return prediction, following

    def _of_size(self, size: int) -> _Sized:
        try:
            with _without_greeting():
                interpreter = self._interpreter(model_content=self._content, num_threads=self._threads)
                inputs = self._numbers("inputs", interpreter.get_input_details(), self._inputs)
                outputs = self._numbers("outputs", interpreter.get_output_details(), self._outputs)
                for detail in interpreter.get_input_details():
                    interpreter.resize_tensor_input(detail["index"], [size, *detail["shape"][1:].tolist()])
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise self._unfit(f"a graph that {self.name} runs with a batch of {size}", str(error)) from None
        return _fastest(interpreter, inputs, outputs, size)

    def _numbers(self, what: str, details: Sequence[Any], names: Sequence[str]) -> list[int]:
        """The graph's numbers for these tensors; a file may list them in any order."""
        found = {detail["name"]: detail["index"] for detail in details}
        if set(found) != set(names):
            raise self._unfit(f"the {what} {', '.join(names)}", ", ".join(found))
        return [found[name] for name in names]

    def _unfit(self, expected: str, found: str) -> BackendError:
        return BackendError(
            f"{self._file}: expected {expected}, found: {found}",
            f"export the bundle again, or use another version of {self.name}",
        )


class _HeldViews:
    """Reads and writes the interpreter's memory in place, in half the time of `_SetAndGet`.

    While somebody holds views, the public `invoke` refuses to run, since running could move the memory. It moves only
    where an operator's output size depends on data, which is never so here; the private `Invoke` does not ask.
    """

    def __init__(self, interpreter: Any, inputs: Sequence[int], outputs: Sequence[int], size: int) -> None:
        self._size = size
        self._invoke = interpreter._interpreter.Invoke
        self.inputs: list[Floats] = [interpreter.tensor(number)() for number in inputs]
        self.outputs: list[Floats] = [interpreter.tensor(number)() for number in outputs]

    def run(self, arrays: Sequence[Floats]) -> list[Floats]:
        rows = len(arrays[0])
        if rows == self._size:
            for view, array in zip(self.inputs, arrays, strict=True):
                view[...] = array
            self._invoke()
            return [view.copy() for view in self.outputs]
        for view, array in zip(self.inputs, arrays, strict=True):
            view[:rows] = array
            view[rows:] = 0
        self._invoke()
        return [view[:rows].copy() for view in self.outputs]


class _SetAndGet:
    """The interpreter's public calls, which copy."""

    def __init__(self, interpreter: Any, inputs: Sequence[int], outputs: Sequence[int], size: int) -> None:
        self._interpreter = interpreter
        self._inputs = inputs
        self._outputs = outputs
        self._size = size

    def run(self, arrays: Sequence[Floats]) -> list[Floats]:
        rows = len(arrays[0])
        for number, array in zip(self._inputs, arrays, strict=True):
            padding = np.zeros((self._size - rows, *array.shape[1:]), np.float32)
            self._interpreter.set_tensor(number, np.concatenate([array, padding]))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(number)[:rows] for number in self._outputs]


def _fastest(interpreter: Any, inputs: Sequence[int], outputs: Sequence[int], size: int) -> _Sized:
    """Held views where this interpreter has the private call and it gives what the public ones give; else those."""
    public = _SetAndGet(interpreter, inputs, outputs, size)
    shapes = [interpreter.get_tensor(number).shape for number in inputs]
    sample = [np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape) for shape in shapes]
    expected = public.run(sample)
    public.run([np.zeros(shape, np.float32) for shape in shapes])
    try:
        held = _HeldViews(interpreter, inputs, outputs, size)
        for view in held.outputs:
            view.fill(np.nan)  # so that an output which is not written is seen
        found = held.run(sample)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return public
    same = all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
    return held if same else public


@contextlib.contextmanager
def _without_greeting() -> Iterator[None]:
    """Keeps the runtime's greeting from stderr; whatever else is written meanwhile comes out at the end."""
    try:
        stderr = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)  # a full pipe loses a line, and stops nobody
    os.set_blocking(reading, False)
    if sys.stderr is not None:
        sys.stderr.flush()
    os.dup2(writing, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(writing)
        with contextlib.suppress(OSError):  # nothing was written, or nobody reads stderr
            lines = os.read(reading, _PIPE_BYTES).splitlines(keepends=True)
            os.write(2, b"".join(line for line in lines if line.strip() != _GREETING))
        os.close(reading)
