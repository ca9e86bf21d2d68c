"""Streams whose errors are far larger or smaller than those of all streams, so that no common interval fits them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_lstm.streaming.reading import Prediction
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.evaluation.formatting import output_label
from edge_lstm_train.evaluation.intervals import banded
from edge_lstm_train.evaluation.predictions import aligned
from edge_lstm_train.evaluation.regression import errors_of

_UNLIKE = 3.0  # times the error of all streams, or that part of it
_LEAST_STEPS = 30  # of a stream, to know its error


def unlike_streams(dataset: Dataset, predictions: Sequence[Prediction]) -> list[str]:
    """A sentence on each output with intervals whose streams differ too much; none where one interval fits all.

    The mean absolute error of each stream on the validation part, where the intervals are calibrated, is compared with
    that of all its steps.
    """
    contract = dataset.contract
    if contract.intervals is None or len(dataset.recording.streams) < 2:
        return []
    predicted, truth = aligned(dataset, predictions), dataset.truth
    steps, notes = dataset.steps("validation"), []
    for target, horizon in banded(contract):
        output = contract.outputs.index((target, horizon))
        errors = np.abs(errors_of(predicted[:, output], truth[:, output], contract.circles.get(target)))
        known = steps[np.isfinite(errors[steps])]
        usual = max(float(errors[known].mean()), 1e-12) if known.size else np.inf
        by_stream = {
            name: float(errors[own].mean()) / usual
            for name, own in dataset.by_stream(known).items()
            if len(own) >= _LEAST_STEPS
        }
        unlike = sorted(name for name, share in by_stream.items() if not 1 / _UNLIKE <= share <= _UNLIKE)
        if unlike:
            worst = min(by_stream, key=lambda name: min(by_stream[name], 1 / max(by_stream[name], 1e-12)))
            notes.append(
                f"intervals of {output_label(target, horizon)}: the errors of {worst} are {by_stream[worst]:.2g} times "
                f"those of all streams; {len(unlike)} of {len(by_stream)} streams are above {_UNLIKE:g} times or below "
                "a third. Until a device has adapted their bands, in some hundred steps, these are too wide or too "
                "narrow; a bundle for each kind of stream starts with the right ones"
            )
    return notes
