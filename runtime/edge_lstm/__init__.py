"""edge-lstm on the device: open a bundle, feed readings, get predictions.

The names below are imported when they are first used, so that the command line starts without numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_lstm.backends.protocol import ExecutionOptions
    from edge_lstm.bundle.archive import Bundle
    from edge_lstm.foundation.errors import BackendError, BundleError, ConfigError, EdgeLstmError, ReadingError
    from edge_lstm.messages.deduplicator import Deduplicator
    from edge_lstm.streaming.predictor import Predictor
    from edge_lstm.streaming.reading import Driver, Event, Prediction, Reading
    from edge_lstm.streaming.stream_state import StreamState

__version__ = "0.2.0"
__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "ConfigError",
    "Deduplicator",
    "Driver",
    "EdgeLstmError",
    "Event",
    "ExecutionOptions",
    "Prediction",
    "Predictor",
    "Reading",
    "ReadingError",
    "StreamState",
    "__version__",
]

_MODULES = {
    "BackendError": "edge_lstm.foundation.errors",
    "Bundle": "edge_lstm.bundle.archive",
    "BundleError": "edge_lstm.foundation.errors",
    "ConfigError": "edge_lstm.foundation.errors",
    "Deduplicator": "edge_lstm.messages.deduplicator",
    "Driver": "edge_lstm.streaming.reading",
    "EdgeLstmError": "edge_lstm.foundation.errors",
    "Event": "edge_lstm.streaming.reading",
    "ExecutionOptions": "edge_lstm.backends.protocol",
    "Prediction": "edge_lstm.streaming.reading",
    "Predictor": "edge_lstm.streaming.predictor",
    "Reading": "edge_lstm.streaming.reading",
    "ReadingError": "edge_lstm.foundation.errors",
    "StreamState": "edge_lstm.streaming.stream_state",
}


if not TYPE_CHECKING:  # a type checker knows the imports above, and refuses every other name

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value: object = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value  # the next use finds it without this function
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
