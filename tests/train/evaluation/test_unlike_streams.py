"""A training warns of streams whose errors are too unlike for intervals in common."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge_lstm.streaming.reading import Prediction
from edge_lstm_train.data.dataset import Dataset, dataset_of
from edge_lstm_train.evaluation.intervals import calibrated_intervals
from edge_lstm_train.evaluation.unlike_streams import unlike_streams

Make = Callable[..., Any]


def noisy(recipe_of: Make, recording_of: Make, spreads: Mapping[str, float]) -> tuple[Dataset, list[Prediction]]:
    """Streams of noise around 0, each with its spread, and the forecast 0."""
    random = np.random.default_rng(2)
    values = {name: random.normal(0, spread, 400) for name, spread in spreads.items()}
    rows = [(name, 60.0 * at, [values[name][at]]) for at in range(400) for name in spreads]
    dataset = dataset_of(recipe_of(), recording_of(rows))
    intervals = calibrated_intervals(dataset, np.zeros((len(dataset), 1)), 0.9)
    dataset = dataclasses.replace(dataset, contract=dataclasses.replace(dataset.contract, intervals=intervals))
    places = zip(dataset.stream_of.tolist(), dataset.times.tolist(), strict=True)
    streams = dataset.recording.streams
    return dataset, [Prediction(streams[at], time, 1, 1, {"x": {1: 0.0}}) for at, time in places]


def test_a_stream_whose_errors_are_a_tenth_is_named(recipe_of: Make, recording_of: Make) -> None:
    found = unlike_streams(*noisy(recipe_of, recording_of, {"a": 1.0, "b": 1.0, "weir": 0.1}))
    (note,) = found
    assert re.match(
        "intervals of x 1 step ahead: the errors of weir are 0.1[3-6] times those of all streams; 1 of 3", note
    )


def test_streams_of_twice_the_error_fit_one_interval(recipe_of: Make, recording_of: Make) -> None:
    assert unlike_streams(*noisy(recipe_of, recording_of, {"a": 1.0, "b": 2.0})) == []


def test_a_single_stream_is_like_itself(recipe_of: Make, recording_of: Make) -> None:
    assert unlike_streams(*noisy(recipe_of, recording_of, {"a": 1.0})) == []
