"""ONNX and TFLite files, written directly from the weights."""
