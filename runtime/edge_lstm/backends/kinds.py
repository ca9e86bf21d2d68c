"""The backends by name: which format each runs, what it needs, what installs that. It imports none of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_lstm.bundle.schemes import Format


@dataclass(frozen=True)
class BackendKind:
    """One inference backend."""

    format: Format
    module: str  # ours, with a function load(variant, content, means)
    package: str  # what it needs to import
    extra: str  # of edge-lstm, which installs that; empty where the base does


# In the order of preference: the fastest step of one stream first (docs/performance.md).
BACKENDS: Mapping[str, BackendKind] = {
    "litert": BackendKind("tflite", "edge_lstm.backends.litert", "ai_edge_litert", "tflite"),
    "onnx": BackendKind("onnx", "edge_lstm.backends.onnx", "onnxruntime", "onnx"),
    "tflite-runtime": BackendKind("tflite", "edge_lstm.backends.tflite_runtime", "tflite_runtime", "tflite-runtime"),
    "numpy": BackendKind("numpy", "edge_lstm.backends.reference", "numpy", ""),
}
NAMES = tuple(BACKENDS)
