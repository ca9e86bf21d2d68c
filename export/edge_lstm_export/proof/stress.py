"""Stress input: the held-out recording, and the same with typical sensor faults, one stream per segment.

The faults are in the readings, and the inputs are derived from these as a device does it. So differences, means, masks,
one-hot inputs, circles and counters show them too. A model whose run kept no readings (release 0.1.0) gets the faults
in its inputs, under other names of the segments; its derived inputs then stay what they were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from edge_lstm.bundle.contract import Contract, Feature
from edge_lstm.decisions.angles import sine_and_cosine, wrapped
from edge_lstm.foundation.arrays import Flags, Floats
from edge_lstm.foundation.numbers import FLOAT32_MAX
from edge_lstm.streaming.features import cosine_columns, values_in
from edge_lstm_train.data.feature_vectors import Samples, feature_vectors

RECORDING = "recording"
SEGMENTS = (RECORDING, "readings 2x+1", "readings with spikes x10", "constant readings", "missing readings")
SEGMENTS_OF_INPUTS = (RECORDING, "scaled 2x+1", "spikes x10", "constant", "missing")
_SPIKES = 0.01  # share of steps
_OUTAGE = 20  # steps that a feature stays missing
_MISSING = 0.1  # share of the steps

_Fault = Callable[[Feature, Floats], Floats]


def stress(contract: Contract, inputs: Floats, samples: Samples | None, steps: int) -> dict[str, Floats]:
    """By segment (steps, inputs), from the input sequence `inputs` (n, inputs), repeated; reproducible.

    `samples` (n): what the input sequence was derived from; None: it is not known.
    """
    if samples is None:
        segments = _stress_inputs(contract, inputs, steps)
        return {name: segments[:, number] for number, name in enumerate(SEGMENTS_OF_INPUTS)}
    return {RECORDING: np.resize(inputs, (steps, inputs.shape[1])), **_stress_readings(contract, samples, steps)}


def _stress_readings(contract: Contract, samples: Samples, steps: int) -> dict[str, Floats]:
    """By segment but the first (steps, inputs). Each repetition begins as after a restart."""
    repeated = samples.at(np.resize(np.arange(len(samples)), steps))
    random = np.random.default_rng(0)
    none = np.zeros(repeated.values.shape, np.bool_)
    spikes = random.random(none.shape) < _SPIKES
    outages = np.stack([_outages(steps, random) for _ in contract.features], axis=1)
    # of each segment: the values, and which of them are missing beside those of the recording
    made = [
        (_changed(contract, repeated, _scaled), none),
        (np.where(spikes, _changed(contract, repeated, _spiked), repeated.values), none),
        (_constant(contract, repeated), none),
        (repeated.values, outages),
    ]
    faulty = [_as_received(contract, repeated, *one) for one in made]
    whole = Samples(
        *(np.concatenate([getattr(one, column.name) for one in faulty]) for column in dataclasses.fields(Samples))
    )  # all at once, for their runs are computed together
    vectors = feature_vectors(contract, whole)[1].reshape(len(faulty), steps, -1)
    return dict(zip(SEGMENTS[1:], vectors, strict=True))


def _changed(contract: Contract, samples: Samples, fault: _Fault) -> Floats:
    """The values (n, features), each changed by `fault`; a counter's increases, which are never below 0."""
    changed = samples.values.copy()
    for column, feature in enumerate(contract.features):
        changed[:, column] = fault(feature, samples.values[:, column])
        if feature.counter:
            changed[:, column] = np.maximum(changed[:, column], 0)
    return changed


def _scaled(feature: Feature, values: Floats) -> Floats:
    """2x+1, with x in standard deviations from the mean; the next one of the categories."""
    if feature.categories:
        return np.where(values < 0, values, (values + 1) % len(feature.categories))
    return np.float32(2) * values + np.float32(feature.scale - feature.mean)


def _spiked(feature: Feature, values: Floats) -> Floats:
    """10x; the next one of the categories."""
    if feature.categories:
        return _scaled(feature, values)
    return np.float32(10) * values - np.float32(9) * np.float32(feature.mean)


def _constant(contract: Contract, samples: Samples) -> Floats:
    """The first values in every step. A counter does not increase; its first one is unknown, and a mean instead."""
    constant = np.repeat(samples.values[:1], len(samples), axis=0)
    for column, feature in enumerate(contract.features):
        if feature.counter:
            unknown = samples.restart & samples.missing[:, column]
            constant[:, column] = np.where(unknown, samples.values[:, column], 0)
    return constant


def _outages(steps: int, random: np.random.Generator) -> Flags:
    """(steps,): whether a reading is missing: a tenth of the steps, in gaps."""
    missing = np.zeros(steps, np.bool_)
    for begin in np.flatnonzero(random.random(steps) < _MISSING / _OUTAGE).tolist():
        missing[begin : begin + _OUTAGE] = True
    missing[:1] = False
    return missing


def _as_received(contract: Contract, samples: Samples, values: Floats, lost: Flags) -> Samples:
    """The samples with these values (n, features), without those that are `lost` or no measurement: held, as a device
    does."""
    values = values.astype(np.float32)
    missing = samples.missing | lost
    for column, feature in enumerate(contract.features):
        if feature.counter:
            values[:, column] = _counted_later(values[:, column], samples, column, lost[:, column])
        missing[:, column] |= ~_is_measurement(feature, values[:, column])
    known = ~missing | samples.restart[:, None]  # a run begins with what was held then
    last = np.maximum.accumulate(np.where(known, np.arange(len(values))[:, None], 0), axis=0)
    held = np.take_along_axis(values, last, axis=0)
    means = np.array([-1.0 if feature.categories else feature.mean for feature in contract.features], np.float32)
    usable = np.stack([_is_measurement(one, held[:, at]) for at, one in enumerate(contract.features)], axis=1)
    return dataclasses.replace(samples, values=np.where(usable, held, means), missing=missing)


def _counted_later(increases: Floats, samples: Samples, column: int, lost: Flags) -> Floats:
    """The increases of a counter (n,): the first reading after lost ones has what it counted meanwhile."""
    known = np.flatnonzero(~(samples.missing[:, column] | lost))
    total = np.cumsum(np.where(samples.missing[:, column], 0.0, increases))
    run = np.maximum.accumulate(np.where(samples.restart, np.arange(len(increases)), 0))
    before = np.maximum(np.append([-1], known)[:-1], run[known] - 1)  # the last known one, in the same run
    counted = increases.copy()
    counted[known] = total[known] - np.where(before < 0, 0.0, total[before])
    return counted


def _is_measurement(feature: Feature, values: Floats) -> Flags:
    """(n,): whether each is a measurement by the rules of the feature. A counter's rules are for its readings."""
    found = np.abs(values) <= FLOAT32_MAX
    if feature.counter:
        return found
    least, most = feature.least, feature.most
    found &= (values >= (-np.inf if least is None else least)) & (values <= (np.inf if most is None else most))
    return found & ~np.isin(values, np.array(feature.sentinels, np.float32))


def _stress_inputs(contract: Contract, inputs: Floats, steps: int) -> Floats:
    """(steps, segments, inputs) in the order of SEGMENTS_OF_INPUTS: the values of the features alone are faulty."""
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
        missing = _outages(steps, random)
        last_known = np.maximum.accumulate(np.where(missing, 0, np.arange(steps)))
        for part in (column, *([cosines[column]] if column in cosines else [])):
            changed[:, part] = inputs[last_known, part]
        if column in masks:
            changed[missing, measured + masks.index(column)] = 1
    return changed
