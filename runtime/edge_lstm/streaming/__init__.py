"""The streaming core: readings to samples, features and predictions, with the state of every stream."""
