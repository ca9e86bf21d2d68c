"""Stress input: the held-out input sequence, and the same with typical sensor faults, one stream per segment."""

from __future__ import annotations

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.angles import sine_and_cosine, wrapped
from edge_lstm.foundation.arrays import Floats
from edge_lstm.streaming.features import cosine_columns, values_in

SEGMENTS = ("recording", "scaled 2x+1", "spikes x10", "constant", "missing")
_SPIKES = 0.01  # share of steps
_OUTAGE = 20  # steps that a feature stays missing


def stress_inputs(contract: Contract, inputs: Floats, steps: int) -> Floats:
    """(steps, segments, inputs) in the order of SEGMENTS, from `inputs` (n, inputs), repeated; reproducible."""
    repeated = np.resize(inputs, (steps, inputs.shape[1]))
    mean = np.array([feature.mean for feature in contract.features], np.float32)
    scale = np.array([feature.scale for feature in contract.features], np.float32)
    standardized = (values_in(contract, repeated) - mean) / scale
    random = np.random.default_rng(0)
    spiked = np.where(random.random(standardized.shape) < _SPIKES, 10 * standardized, standardized)
    values = [standardized, 2 * standardized + 1, spiked, np.broadcast_to(standardized[:1], standardized.shape)]
    raw = [_with_values(contract, repeated, one * scale + mean) for one in values]
    segments: Floats = np.stack([*raw, _with_outages(contract, repeated, random)], axis=1).astype(np.float32)
    return segments


def _with_values(contract: Contract, vectors: Floats, values: Floats) -> Floats:
    """The feature vectors (n, inputs) with other values (n, features); masks, derived and clock inputs stay."""
    changed: Floats = np.concatenate([values, vectors[:, values.shape[1] :]], axis=1)
    for column, cosine in cosine_columns(contract).items():
        period = contract.features[column].period
        assert period is not None  # cosine_columns has the features on a circle
        changed[:, column], changed[:, cosine] = sine_and_cosine(wrapped(values[:, column], period), period)
    return changed


def _with_outages(contract: Contract, inputs: Floats, random: np.random.Generator) -> Floats:
    """The inputs with a tenth of the values missing, in gaps: held as on a device, and marked by a mask if any."""
    changed, steps, measured = inputs.copy(), len(inputs), len(contract.features)
    cosines = cosine_columns(contract)
    masks = [index for index, feature in enumerate(contract.features) if feature.mask]
    for column in range(measured):
        begins = np.flatnonzero(random.random(steps) < 0.1 / _OUTAGE)
        missing = np.zeros(steps, bool)
        for begin in begins.tolist():
            missing[begin : begin + _OUTAGE] = True
        missing[0] = False
        last_known = np.maximum.accumulate(np.where(missing, 0, np.arange(steps)))
        for part in (column, *([cosines[column]] if column in cosines else [])):
            changed[:, part] = inputs[last_known, part]
        if column in masks:
            changed[missing, measured + masks.index(column)] = 1
    return changed
