"""TFLite variants on LiteRT (package ai-edge-litert), the successor of tflite-runtime."""

from __future__ import annotations

from ai_edge_litert.interpreter import Interpreter

from edge_lstm.backends.protocol import ONE_THREAD, ExecutionOptions
from edge_lstm.backends.tflite import TfliteBackend
from edge_lstm.bundle.archive import Variant


def load(variant: Variant, content: bytes, execution: ExecutionOptions = ONE_THREAD) -> TfliteBackend:
    """The backend for a bundle's TFLite variant. Raises BackendError if LiteRT refuses the file."""
    return TfliteBackend("litert", Interpreter, variant, content, execution.threads)
