"""The backends by name: format, package and extra of each. It imports none of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_lstm.bundle.schemes import Format


@dataclass(frozen=True)
class BackendKind:
    """One inference backend."""

    format: Format
    module: str  # of edge_lstm, with a function load(variant, content, execution)
    package: str  # the package that it imports
    extra: str  # of edge-lstm, which installs the package; empty: no extra is needed


# In order of preference: the fastest step of one stream first (docs/performance.md).
BACKENDS: Mapping[str, BackendKind] = {
    "litert": BackendKind("tflite", "edge_lstm.backends.litert", "ai_edge_litert", "tflite"),
    "onnx": BackendKind("onnx", "edge_lstm.backends.onnx", "onnxruntime", "onnx"),
    "tflite-runtime": BackendKind("tflite", "edge_lstm.backends.tflite_runtime", "tflite_runtime", "tflite-runtime"),
    "numpy": BackendKind("numpy", "edge_lstm.backends.reference", "numpy", ""),
}
NAMES = tuple(BACKENDS)
