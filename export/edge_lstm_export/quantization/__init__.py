"""Quantized weights: schemes, rounding with error feedback, distillation."""
