"""Formats and schemes of a model's file, and which backend is refused which scheme."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Format = Literal["onnx", "tflite", "numpy"]
Scheme = Literal["float32", "float16", "int8", "int8-dynamic", "int8-static", "int4"]

_NO_INTEGERS = "it has no integer kernels, and would compute something else than the others"
_ROUNDS_OUTPUTS = "its integer products round their outputs to int8 as well, which drifts by 0.02 to 0.03 and more"
# Rounding weights and dequantizing them at load asks nothing of a backend; integer kernels do.
_UNSUPPORTED: Mapping[tuple[str, str], str] = {
    ("int8-dynamic", "numpy"): _NO_INTEGERS,
    ("int8-dynamic", "tflite-runtime"): (
        "its integer kernels take 2 to 9 times as long, and ignore scales that are per row without a word"
    ),
    ("int4", "tflite-runtime"): "it knows no four-bit tensors",
    ("int8-static", "litert"): _ROUNDS_OUTPUTS,
    ("int8-static", "tflite-runtime"): _ROUNDS_OUTPUTS,
}


def why_unsupported(scheme: str, backend: str) -> str | None:
    """Why the backend may not run the scheme, or None where it may."""
    return _UNSUPPORTED.get((scheme, backend))
