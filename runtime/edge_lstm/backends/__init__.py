"""Inference backends (LiteRT, onnxruntime, tflite-runtime, numpy) and the self-test of a bundle on them."""
