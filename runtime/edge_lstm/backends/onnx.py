"""The ONNX variants, stepped by onnxruntime on the providers that were asked for; no other is ever tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _native

from edge_lstm.backends.protocol import ONE_THREAD, ExecutionOptions
from edge_lstm.bundle.archive import Variant
from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.errors import BackendError

Turn = Callable[[Floats], Floats]

_ERRORS_ONLY = 3
_CPU = "CPUExecutionProvider"
# TensorFloat-32 keeps ten bits of a product's factors, which no golden vector forgives
_PROVIDER_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
# onnxruntime's exceptions have no common base of their own
_REFUSALS: tuple[type[Exception], ...] = tuple(
    kind for kind in vars(_native).values() if isinstance(kind, type) and issubclass(kind, Exception)
)


class OnnxBackend:
    """Steps an ONNX graph; its weights never change, and what it returns is the caller's."""

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
                raise _unfit(variant.file, f"{what} named {', '.join(absent)}", f"only {', '.join(found)}")
        if extra := sorted(set(wanted) - set(self._inputs)):
            raise _unfit(variant.file, f"no inputs but {', '.join(self._inputs)}", f"also {', '.join(extra)}")
        self._to_graph = [_to_graph(wanted[name], variant.file, name) for name in self._inputs]
        self._to_house = [_to_house(given[name], variant.file, name) for name in self._outputs]

    def step(self, features: Floats, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        """features (batch, inputs) raw, states (batch, *shape) each -> predictions (batch, outputs), next states."""
        turned = [turn(array) for turn, array in zip(self._to_graph, (features, *states), strict=True)]
        try:
            given = self._session.run(self._outputs, dict(zip(self._inputs, turned, strict=True)))
        except _REFUSALS as error:
            raise _unfit(self._file, f"a graph that steps a batch of {len(features)}", _first_line(error)) from None
        prediction, *following = [turn(array) for turn, array in zip(self._to_house, given, strict=True)]
        return prediction, following


def load(variant: Variant, content: bytes, execution: ExecutionOptions = ONE_THREAD) -> OnnxBackend:
    """The backend for a bundle's ONNX variant. Raises BackendError where onnxruntime refuses it, or has not the means.

    Where the CPU is not among the providers, no node of the graph may run there.
    """
    wanted = list(execution.providers)
    _refuse_absent(wanted, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = execution.threads, 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # without it int8 weights are dequantized again at every step, which takes 1.3 to 2.9 times as long
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if _CPU not in wanted:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    providers = [(name, _PROVIDER_OPTIONS.get(name, {})) for name in wanted]
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except _REFUSALS as error:
        version = onnxruntime.__version__
        raise _unfit(variant.file, f"a graph that onnxruntime {version} runs", _first_line(error)) from None
    # a provider whose libraries do not load is dropped with a line on stderr, and the session goes on without it
    _refuse_absent(wanted, session.get_providers())
    return OnnxBackend(variant, session)


def _refuse_absent(wanted: Sequence[str], found: Sequence[str]) -> None:
    absent = [name for name in wanted if name not in found]
    if absent:
        raise BackendError(
            f"expected onnxruntime to have {', '.join(wanted)}, found {', '.join(found)}",
            f"install an onnxruntime with {', '.join(absent)} and the libraries that it needs, or leave providers out",
        )


def _shapes(ports: Sequence[Any]) -> dict[str, list[int | str | None]]:
    return {port.name: port.shape for port in ports}


def _batch_axis(shape: list[int | str | None], file: str, name: str) -> int:
    """Where the only axis without a fixed size stands."""
    free = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
    if len(free) != 1:
        raise _unfit(file, f"one axis of any size in {name}", f"shape {shape}")
    return free[0]


def _to_graph(shape: list[int | str | None], file: str, name: str) -> Turn:
    """From the house's (batch, *shape) to the graph's place for the batch."""
    axis = _batch_axis(shape, file, name)
    if axis == 0:
        return np.ascontiguousarray
    if prod(size for size in shape[:axis] if isinstance(size, int)) == 1:
        sizes = [size if isinstance(size, int) else -1 for size in shape]
        return lambda array: array.reshape(sizes)
    return lambda array: np.ascontiguousarray(np.moveaxis(array, 0, axis))


def _to_house(shape: list[int | str | None], file: str, name: str) -> Turn:
    """From the graph's place for the batch to the house's (batch, *shape)."""
    axis = _batch_axis(shape, file, name)
    if axis == 0:
        return lambda array: array
    if prod(size for size in shape[:axis] if isinstance(size, int)) == 1:
        return lambda array: array.reshape(array.shape[axis:])
    return lambda array: np.ascontiguousarray(np.moveaxis(array, axis, 0))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _unfit(file: str, expected: str, found: str) -> BackendError:
    return BackendError(
        f"{file}: expected {expected}, found: {found}", "export the bundle again, or use another version of onnxruntime"
    )
