"""TFLite variants, on the interpreter of either runtime.

An interpreter has one batch size and is slow to resize. So there is one for each power of two, made at first use.
Unused rows are zeros.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from edge_lstm.backends.tflite_contents import refuse_strange_model
from edge_lstm.bundle.archive import Variant
from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.errors import BackendError

# The runtimes write this line to stderr from C++, and have no option to disable it.
_DELEGATE_MESSAGE = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
_PIPE_BYTES = 65_536


class _FixedBatch(Protocol):
    """An interpreter of one batch size, and the access to its tensors."""

    def run(self, arrays: Sequence[Floats]) -> list[Floats]:
        """Input arrays (rows, ...), rows at most the batch size -> output arrays (rows, ...)."""
        ...


class TfliteBackend:
    """Steps a TFLite graph. Its weights never change; the caller owns the returned arrays."""

    def __init__(
        self, name: str, interpreter: Callable[..., Any], variant: Variant, content: bytes, threads: int = 1
    ) -> None:
        """`interpreter` takes model_content and num_threads.

        Raises BackendError if it refuses them, or if the file holds what no export writes.
        """
        refuse_strange_model(content, variant.file)
        self.name = name
        self.scheme = variant.scheme
        self._interpreter = interpreter
        self._file = variant.file
        self._inputs = [variant.features, *[pair.input for pair in variant.states]]
        self._outputs = [variant.prediction, *[pair.output for pair in variant.states]]
        self._content = content
        self._threads = threads
        self._by_batch_size: dict[int, _FixedBatch] = {}
        self._by_batch_size[1] = self._fixed_batch(1)

    def step(self, features: Floats, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        """features (batch, inputs) raw, states (batch, *shape) each -> predictions (batch, outputs), next states."""
        size = 1 << (len(features) - 1).bit_length()  # the next power of two
        sized = self._by_batch_size.get(size)
        if sized is None:
            sized = self._by_batch_size[size] = self._fixed_batch(size)
        prediction, *following = sized.run((features, *states))
        return prediction, following

    def _fixed_batch(self, size: int) -> _FixedBatch:
        try:
            with _without_delegate_message():
                interpreter = self._interpreter(model_content=self._content, num_threads=self._threads)
                inputs = self._tensor_indexes("inputs", interpreter.get_input_details(), self._inputs)
                outputs = self._tensor_indexes("outputs", interpreter.get_output_details(), self._outputs)
                for detail in interpreter.get_input_details():
                    interpreter.resize_tensor_input(detail["index"], [size, *detail["shape"][1:].tolist()])
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise self._incompatible(f"a graph that {self.name} runs with a batch of {size}", str(error)) from None
        return _fastest_access(interpreter, inputs, outputs, size)

    def _tensor_indexes(self, what: str, details: Sequence[Any], names: Sequence[str]) -> list[int]:
        """The indexes of these tensors in the graph, which may list them in any order."""
        found = {detail["name"]: detail["index"] for detail in details}
        if set(found) != set(names):
            raise self._incompatible(f"the {what} {', '.join(names)}", ", ".join(found))
        return [found[name] for name in names]

    def _incompatible(self, expected: str, found: str) -> BackendError:
        return BackendError(
            f"{self._file}: expected {expected}, found: {found}",
            f"export the bundle again, or use another version of {self.name}",
        )


class _MemoryViews:
    """Reads and writes the interpreter's memory in place, in half the time of `_TensorCopies`.

    The public `invoke` refuses to run while views exist, since it could move the memory. The memory moves only if the
    output size of an operator depends on data, which is never so here. The private `Invoke` does not check for views.
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


class _TensorCopies:
    """Reads and writes tensors by the interpreter's public calls, which copy."""

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


def _fastest_access(interpreter: Any, inputs: Sequence[int], outputs: Sequence[int], size: int) -> _FixedBatch:
    """Memory views if the interpreter has the private call and gives the same numbers by it; else copies."""
    public = _TensorCopies(interpreter, inputs, outputs, size)
    shapes = [interpreter.get_tensor(number).shape for number in inputs]
    sample = [np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape) for shape in shapes]
    expected = public.run(sample)
    public.run([np.zeros(shape, np.float32) for shape in shapes])
    try:
        held = _MemoryViews(interpreter, inputs, outputs, size)
        for view in held.outputs:
            view.fill(np.nan)  # shows an output that is not written
        found = held.run(sample)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return public
    same = all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
    return held if same else public


@contextlib.contextmanager
def _without_delegate_message() -> Iterator[None]:
    """Removes the runtime's message from stderr. Other output is written at the end."""
    try:
        stderr = os.dup(2)
    except OSError:  # no stderr
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)  # a full pipe loses a line, and blocks nothing
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
        with contextlib.suppress(OSError):  # nothing was written, or stderr is closed
            lines = os.read(reading, _PIPE_BYTES).splitlines(keepends=True)
            os.write(2, b"".join(line for line in lines if line.strip() != _DELEGATE_MESSAGE))
        os.close(reading)
