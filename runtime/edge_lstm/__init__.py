"""edge-lstm on the device: open a bundle, feed readings, get predictions."""

from edge_lstm.bundle.archive import Bundle
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction, Reading

__version__ = "0.1.0"
__all__ = ["Bundle", "EdgeLstmError", "Prediction", "Predictor", "Reading", "__version__"]
