"""Adoption: a recurrent ONNX model from elsewhere becomes a bundle."""
