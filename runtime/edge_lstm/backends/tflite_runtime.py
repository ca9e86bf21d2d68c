"""TFLite variants on tflite-runtime, the predecessor of LiteRT: for armv7l and old images, with NumPy 1 only."""

from __future__ import annotations

from tflite_runtime.interpreter import Interpreter

from edge_lstm.backends.protocol import ONE_THREAD, ExecutionOptions
from edge_lstm.backends.tflite import TfliteBackend
from edge_lstm.bundle.archive import Variant


def load(variant: Variant, content: bytes, execution: ExecutionOptions = ONE_THREAD) -> TfliteBackend:
    """The backend for a bundle's TFLite variant. Raises BackendError if tflite-runtime refuses the file."""
    return TfliteBackend("tflite-runtime", Interpreter, variant, content, execution.threads)
