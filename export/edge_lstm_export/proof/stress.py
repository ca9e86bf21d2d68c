"""Stress input: the held-out tape, and what sensors make of it on a bad day; every segment is one stream's features."""

from __future__ import annotations

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Floats

SEGMENTS = ("recording", "scaled 2x+1", "spikes x10", "constant", "missing")
_SPIKES = 0.01  # share of steps
_OUTAGE = 20  # steps that a feature stays missing


def stress_tapes(contract: Contract, tape: Floats, steps: int) -> Floats:
    """(steps, segments, inputs) in the order of SEGMENTS, from tape (n, inputs), repeated; equal ones every time."""
    repeated = np.resize(tape, (steps, tape.shape[1]))
    measured = len(contract.features)
    mean = np.array([feature.mean for feature in contract.features], np.float32)
    scale = np.array([feature.scale for feature in contract.features], np.float32)
    standardized = (repeated[:, :measured] - mean) / scale
    random = np.random.default_rng(0)
    spiked = np.where(random.random(standardized.shape) < _SPIKES, 10 * standardized, standardized)
    values = [standardized, 2 * standardized + 1, spiked, np.broadcast_to(standardized[:1], standardized.shape)]
    tapes = [np.concatenate([one * scale + mean, repeated[:, measured:]], axis=1) for one in values]
    segments: Floats = np.stack([*tapes, _with_outages(contract, repeated, random)], axis=1).astype(np.float32)
    return segments


def _with_outages(contract: Contract, tape: Floats, random: np.random.Generator) -> Floats:
    """A tenth of the values missing, in stretches: held as on a device, and told by a mask where there is one."""
    broken, steps, measured = tape.copy(), len(tape), len(contract.features)
    masks = [index for index, feature in enumerate(contract.features) if feature.mask]
    for column in range(measured):
        begins = np.flatnonzero(random.random(steps) < 0.1 / _OUTAGE)
        missing = np.zeros(steps, bool)
        for begin in begins.tolist():
            missing[begin : begin + _OUTAGE] = True
        missing[0] = False
        last_known = np.maximum.accumulate(np.where(missing, 0, np.arange(steps)))
        broken[:, column] = tape[last_known, column]
        if column in masks:
            broken[missing, measured + masks.index(column)] = 1
    return broken
