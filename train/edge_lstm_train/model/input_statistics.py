"""Mean and standard deviation of each input, by which a network standardizes."""

from __future__ import annotations

import numpy as np

from edge_lstm.foundation.arrays import Floats
from edge_lstm.streaming.features import cosine_columns
from edge_lstm_train.data.dataset import Dataset

_LEAST_WAVE = 1e-3  # standard deviation of a sine or cosine; a smaller one would turn float32 digits into signals


def input_statistics(dataset: Dataset) -> tuple[Floats, Floats]:
    """Mean and standard deviation (inputs,) for standardization; 0 and 1 for masks, classes and clock inputs."""
    contract = dataset.contract
    inputs = contract.inputs
    mean, scale = np.zeros(len(inputs), np.float32), np.ones(len(inputs), np.float32)
    steps = dataset.steps("train")
    if dataset.left_out is not None:
        steps = steps[~dataset.left_out[steps]]
    features, cosines = dataset.features[steps], cosine_columns(contract)
    for column, feature in enumerate(contract.features):
        if feature.period is not None:
            for at in (column, cosines[column]):
                mean[at] = features[:, at].mean(dtype=np.float64)
                scale[at] = max(features[:, at].std(dtype=np.float64), _LEAST_WAVE)
            continue
        mean[column], scale[column] = feature.mean, feature.scale
        for text in feature.derived:
            at = inputs.index(f"{feature.name} {text}")
            values = features[:, at].astype(np.float64)
            mean[at] = values.mean()
            scale[at] = values.std() if values.std() > 1e-6 * feature.scale else feature.scale
    if "elapsed" in inputs:
        at = inputs.index("elapsed")
        values = features[:, at].astype(np.float64)
        mean[at], scale[at] = values.mean(), max(values.std(), 1e-3)
    return mean, scale
