"""The pace of a recording: how often its readings come, against the interval between the steps of a model."""

from __future__ import annotations

import numpy as np

from edge_lstm.bundle.contract import Sampling
from edge_lstm.recordings.recording import Recording

MOST_OFF = 0.01  # relative; a crystal is off by less than a thousandth of this


def median_interval_s(recording: Recording) -> float | None:
    """The median time between two readings of a stream, in seconds; None without two of different times."""
    gaps = [np.diff(np.unique(recording.times[recording.stream_of == one])) for one in range(len(recording.streams))]
    steps = np.concatenate(gaps) if gaps else np.zeros(0)
    return float(np.median(steps)) if steps.size else None


def pace_warning(recording: Recording, sampling: Sampling) -> str | None:
    """What is to be said where the readings come at another interval than the model's steps; None: nothing.

    On a grid, readings may come more often: those of an interval make one step.
    """
    found_s, expected_s = median_interval_s(recording), sampling.interval_s
    if found_s is None or expected_s is None:
        return None
    if found_s <= (1 + MOST_OFF) * expected_s and (sampling.grid or found_s >= (1 - MOST_OFF) * expected_s):
        return None
    why = "most steps have no reading" if sampling.grid else "every reading is a step"
    return (
        f"{recording.source}: expected a reading every {expected_s:g} s (interval_s), found one every {found_s:g} s; "
        f"{why}, so the model sees another pace than it was made for"
    )
