"""Golden vectors of an adopted model: its outputs and states in onnxruntime without graph optimization."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from edge_lstm.backends.onnx import OnnxBackend
from edge_lstm.backends.selftest import initial_states, replay_tape
from edge_lstm.bundle.archive import Variant
from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.golden import Expected, GoldenVectors
from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.errors import EdgeLstmError

_STEPS, _MARKS = 300, (1, 10, 100, 300)
_STATELESS_STEPS = 50


def golden_vectors(path: Path, content: bytes, contract: Contract, variant: Variant) -> GoldenVectors:
    """The golden vectors of the graph in `content`, over tones and noise.

    Raises EdgeLstmError if they are not finite, if a state is constant, or if the outputs ignore the state.
    """
    width = len(contract.features)
    inputs = tone_and_noise(_STEPS * width).reshape(_STEPS, width)
    marks = np.array(_MARKS)
    backend = _UnoptimizedBackend(content, variant)
    prediction, states = replay_tape(backend, contract, inputs, marks)
    if not all(np.isfinite(array).all() for array in (prediction, *states)):
        raise EdgeLstmError(
            f"{path}: expected finite outputs and states over {_STEPS} steps of tones and noise, found NaN or infinity",
            "check --state and --constant: a model that diverges cannot be streamed",
        )
    for state, marked in zip(contract.states, states, strict=True):
        if not np.ptp(marked, axis=0).any():
            raise EdgeLstmError(
                f"{path}: expected the state {state.name} to change, found it the same after {_STEPS} steps",
                "check --state: golden vectors need a state that changes",
            )
    rows = inputs[:_STATELESS_STEPS]
    stateless = np.concatenate([backend.step(row[None], initial_states(contract, 1))[0] for row in rows])
    if np.array_equal(stateless, prediction[:_STATELESS_STEPS]):
        raise EdgeLstmError(
            f"{path}: expected outputs that depend on the state, found the same ones from zeros at every step",
            "this model ignores its state: it needs no stream",
        )
    return GoldenVectors(inputs, marks, {"float32": Expected(prediction, states)})


def tone_and_noise(samples: int) -> Floats:
    """A test signal for audio models and all others: tones of varying loudness over noise, within -1 to 1."""
    time = np.arange(samples) / 16_000
    loudness = 0.5 * (1 + np.sin(2 * np.pi * 0.7 * time))
    tones = sum(np.sin(2 * np.pi * 140 * number * time) / number for number in range(1, 8))
    noise = np.random.default_rng(0).normal(0, 1, samples)
    signal: Floats = np.clip(0.25 * loudness * tones + 0.02 * noise, -1, 1).astype(np.float32)
    return signal


class _UnoptimizedBackend:
    """The graph in onnxruntime without optimization."""

    name, scheme = "onnx as written", "float32"

    def __init__(self, content: bytes, variant: Variant) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._backend = OnnxBackend(variant, session)

    def step(self, features: Floats, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        return self._backend.step(features, states)
