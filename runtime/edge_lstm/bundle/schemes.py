"""Formats and schemes of a model file, and which schemes a backend does not support."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Format = Literal["onnx", "tflite", "numpy"]
Scheme = Literal["float32", "float16", "int8", "int8-dynamic", "int8-static", "int4"]

_NO_INTEGERS = "it has no integer kernels, and would give other numbers than the other backends"
_ROUNDS_OUTPUTS = "its integer products also round their outputs to int8, which causes a drift of 0.02 to 0.03 and more"
# Every backend can dequantize weights at load. Dynamic and static schemes need integer kernels.
_UNSUPPORTED: Mapping[tuple[str, str], str] = {
    ("int8-dynamic", "numpy"): _NO_INTEGERS,
    ("int8-dynamic", "tflite-runtime"): (
        "its integer kernels take 2 to 9 times as long, and silently ignore scales per row"
    ),
    ("int4", "tflite-runtime"): "it does not support four-bit tensors",
    ("int8-static", "litert"): _ROUNDS_OUTPUTS,
    ("int8-static", "tflite-runtime"): _ROUNDS_OUTPUTS,
}


def why_unsupported(scheme: str, backend: str) -> str | None:
    """Why the backend does not support the scheme; None: it does."""
    return _UNSUPPORTED.get((scheme, backend))
