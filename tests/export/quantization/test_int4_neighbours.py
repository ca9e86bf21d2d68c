"""int4 on LiteRT: a stream has the same bits alone and among 256 others."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest

from edge_lstm.backends.registry import load
from edge_lstm.backends.selftest import initial_states, isolate_rows
from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.golden import read_golden_vectors
from edge_lstm_export.assemble import pack_bundle, quantized_networks
from edge_lstm_train.model.checkpoint import Checkpoint

STREAMS, STEPS = 257, 20


@pytest.mark.skipif(importlib.util.find_spec("ai_edge_litert") is None, reason="ai-edge-litert is not installed")
@pytest.mark.parametrize("hidden", [8, 32, 48])
def test_each_of_257_streams_agrees_with_its_lone_self(make_checkpoint: Callable[..., Checkpoint], hidden: int) -> None:
    checkpoint = make_checkpoint("lstm", 1, hidden=hidden)
    networks = quantized_networks(checkpoint, ("float32", "int4"), False)
    bundle = Bundle.from_bytes(pack_bundle(checkpoint, networks, ("tflite",)), "tank")
    tape = read_golden_vectors(bundle).features
    backend, smallest = isolate_rows(load(bundle, "litert", "int4"), bundle.contract, tape)
    assert smallest is not None
    starts = 3 * np.arange(STREAMS)
    streams = tape[(np.arange(STEPS)[:, None] + starts) % len(tape)]  # (steps, streams, inputs)
    together, differing = initial_states(bundle.contract, STREAMS), 0
    alone = [initial_states(bundle.contract, smallest) for _ in range(STREAMS)]
    for step in streams:
        predictions, together = backend.step(step, together)
        for place in range(STREAMS):
            features = np.zeros((smallest, tape.shape[1]), np.float32)
            features[0] = step[place]
            prediction, alone[place] = backend.step(features, alone[place])
            same = np.array_equal(prediction[0], predictions[place]) and all(
                np.array_equal(one[0], all_[place]) for one, all_ in zip(alone[place], together, strict=True)
            )
            differing += not same
    assert differing == 0
