"""The speed of the core alone: samples in, predictions out, with carried states, without messages or database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from edge_lstm.bundle.archive import Bundle
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading

_SAMPLES = 40_000  # per measurement
_REPEATS = 5


def print_core(path: Path) -> None:
    """Samples per second for rounds of 1, 256 and 1024 streams, the best of five.

    Once for the network's step alone, and once for `Predictor.feed` with all that a service keeps per stream (sampling,
    features, clock, checks, trail).
    """
    bundle = Bundle.open(path)
    print(f"\nThe core, one thread, {bundle.manifest.architecture.hidden} units; samples/s")
    print(f"{'':<10}{'streams':>8}{'gather, step, scatter':>24}{'feed, trail of 8':>20}")
    for backend in ("litert", "onnx", "numpy"):
        for streams in (1, 256, 1024):
            predictor = Predictor.of(bundle, backend, max_rewind=8)
            names = [f"pump-{number}" for number in range(streams)]
            slots = np.array([predictor.table.slot(name) for name in names])
            inputs = np.random.default_rng(0).normal(0, 1, (streams, len(bundle.contract.inputs))).astype(np.float32)
            bare = _rate(partial(predictor.step_rows, slots, inputs), streams)
            fed = _rate(partial(_feed, predictor, names, count(0.0, 60.0)), streams)
            print(f"{backend:<10}{streams:>8}{bare:>24,.0f}{fed:>20,.0f}", flush=True)


def _feed(predictor: Predictor, names: list[str], clock: Iterator[float]) -> None:
    time_s = next(clock)
    predictor.feed([Reading(name, time_s, {"pressure": 4.1, "flow": 12.5}) for name in names])


def _rate(do: Callable[[], object], each: int) -> float:
    rounds = max(10, _SAMPLES // each)
    best = float("inf")
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        for _ in range(rounds):
            do()
        best = min(best, time.perf_counter() - begun)
    return rounds * each / best
