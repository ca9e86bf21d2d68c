"""edge-lstm on the device: open a bundle, feed readings, get predictions."""

from edge_lstm.bundle.archive import Bundle
from edge_lstm.foundation.errors import BackendError, BundleError, ConfigError, EdgeLstmError, ReadingError
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction, Reading
from edge_lstm.streaming.stream_state import StreamState

__version__ = "0.1.0"
__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "ConfigError",
    "EdgeLstmError",
    "Prediction",
    "Predictor",
    "Reading",
    "ReadingError",
    "StreamState",
    "__version__",
]
