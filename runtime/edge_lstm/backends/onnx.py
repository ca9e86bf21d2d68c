"""ONNX variants on onnxruntime, on the requested execution providers and no others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _native

from edge_lstm.backends.onnx_contents import refuse_strange_graph
from edge_lstm.backends.protocol import ONE_THREAD, ExecutionOptions
from edge_lstm.bundle.archive import Variant
from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.errors import BackendError

MoveBatchAxis = Callable[[Floats], Floats]

_ERRORS_ONLY = 3
_CPU = "CPUExecutionProvider"
# TensorFloat-32 keeps ten bits of each factor, which fails the golden vectors
_PROVIDER_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
# onnxruntime's exceptions have no common base class
_ONNXRUNTIME_ERRORS: tuple[type[Exception], ...] = tuple(
    kind for kind in vars(_native).values() if isinstance(kind, type) and issubclass(kind, Exception)
)


class OnnxBackend:
    """Steps an ONNX graph. Its weights never change; the caller owns the returned arrays."""

    name = "onnx"

    def __init__(self, variant: Variant, session: Any) -> None:
        self.scheme = variant.scheme
        self._session = session
        self._file = variant.file
        self._inputs = [variant.features, *[pair.input for pair in variant.states]]
        self._outputs = [variant.prediction, *[pair.output for pair in variant.states]]
        given, wanted = _shapes(session.get_outputs()), _shapes(session.get_inputs())
        for what, names, found in (("inputs", self._inputs, wanted), ("outputs", self._outputs, given)):
            if absent := sorted(set(names) - set(found)):
                raise _incompatible(variant.file, f"{what} named {', '.join(absent)}", f"only {', '.join(found)}")
        if extra := sorted(set(wanted) - set(self._inputs)):
            raise _incompatible(variant.file, f"no inputs but {', '.join(self._inputs)}", f"also {', '.join(extra)}")
        self._to_graph = [_to_graph(wanted[name], variant.file, name) for name in self._inputs]
        self._from_graph = [_from_graph(given[name], variant.file, name) for name in self._outputs]

    def step(self, features: Floats, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        """features (batch, inputs) raw, states (batch, *shape) each -> predictions (batch, outputs), next states."""
        arrays = [move(array) for move, array in zip(self._to_graph, (features, *states), strict=True)]
        try:
            given = self._session.run(self._outputs, dict(zip(self._inputs, arrays, strict=True)))
        except _ONNXRUNTIME_ERRORS as error:
            raise _incompatible(
                self._file, f"a graph that steps a batch of {len(features)}", _first_line(error)
            ) from None
        prediction, *following = [move(array) for move, array in zip(self._from_graph, given, strict=True)]
        return prediction, following


def load(variant: Variant, content: bytes, execution: ExecutionOptions = ONE_THREAD) -> OnnxBackend:
    """The backend for a bundle's ONNX variant.

    If the CPU is not among the providers, no node of the graph may run on it. Raises EdgeLstmError if the graph holds
    what no bundle needs (see `refuse_strange_graph`), or if onnxruntime refuses it or lacks a provider.
    """
    refuse_strange_graph(content, variant.file)
    wanted = list(execution.providers)
    _require_providers(wanted, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = execution.threads, 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")  # the format that was checked
    # without this option int8 weights are dequantized at every step, which takes 1.3 to 2.9 times as long
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if _CPU not in wanted:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    providers = [(name, _PROVIDER_OPTIONS.get(name, {})) for name in wanted]
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except _ONNXRUNTIME_ERRORS as error:
        version = onnxruntime.__version__
        raise _incompatible(variant.file, f"a graph that onnxruntime {version} runs", _first_line(error)) from None
    # onnxruntime drops a provider whose libraries do not load, and continues without it
    _require_providers(wanted, session.get_providers())
    return OnnxBackend(variant, session)


def _require_providers(wanted: Sequence[str], found: Sequence[str]) -> None:
    absent = [name for name in wanted if name not in found]
    if absent:
        raise BackendError(
            f"expected onnxruntime to have {', '.join(wanted)}, found {', '.join(found)}",
            f"install an onnxruntime with {', '.join(absent)} and its libraries, or leave providers out",
        )


def _shapes(ports: Sequence[Any]) -> dict[str, list[int | str | None]]:
    return {port.name: port.shape for port in ports}


def _batch_axis(shape: list[int | str | None], file: str, name: str) -> int:
    """The index of the only axis without a fixed size."""
    free = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
    if len(free) != 1:
        raise _incompatible(file, f"one axis of any size in {name}", f"shape {shape}")
    return free[0]


def _to_graph(shape: list[int | str | None], file: str, name: str) -> MoveBatchAxis:
    """Moves the batch axis from the front to its place in the graph."""
    axis = _batch_axis(shape, file, name)
    if axis == 0:
        return np.ascontiguousarray
    if prod(size for size in shape[:axis] if isinstance(size, int)) == 1:
        sizes = [size if isinstance(size, int) else -1 for size in shape]
        return lambda array: array.reshape(sizes)
    return lambda array: np.ascontiguousarray(np.moveaxis(array, 0, axis))


def _from_graph(shape: list[int | str | None], file: str, name: str) -> MoveBatchAxis:
    """Moves the batch axis from its place in the graph to the front."""
    axis = _batch_axis(shape, file, name)
    if axis == 0:
        return lambda array: array
    if prod(size for size in shape[:axis] if isinstance(size, int)) == 1:
        return lambda array: array.reshape(array.shape[axis:])
    return lambda array: np.ascontiguousarray(np.moveaxis(array, axis, 0))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _incompatible(file: str, expected: str, found: str) -> BackendError:
    return BackendError(
        f"{file}: expected {expected}, found: {found}", "export the bundle again, or use another version of onnxruntime"
    )
