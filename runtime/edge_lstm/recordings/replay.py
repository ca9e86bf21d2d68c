"""Replays readings through the predictor of the service, at full speed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.times.text import format_time
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction, Reading
from edge_lstm.streaming.step_results import Steps

_READINGS_A_BATCH = 256  # a stream gets the same bits in any batch; larger batches are faster


def replay(predictor: Predictor, readings: Iterable[Reading]) -> Iterator[Prediction]:
    """Feed all readings in order, and yield the predictions."""
    for _, steps in replayed_steps(predictor, readings):
        yield from [] if steps is None else steps.predictions()


def replayed_steps(predictor: Predictor, readings: Iterable[Reading]) -> Iterator[tuple[int, Steps | None]]:
    """Feed all readings in order; (number of readings, their steps or None where nothing stepped) of each batch."""
    remaining = iter(readings)
    while batch := list(islice(remaining, _READINGS_A_BATCH)):
        yield len(batch), predictor.feed_columns(batch)  # a row of a recording may hold no value


def hand_over(former: Predictor, following: Predictor) -> None:
    """Give all streams to a predictor with other rules for late and repeated readings, as a reloaded service does."""
    for stream in former.table.names:
        following.table.put_row(stream, former.table.row(stream), former.table.layout)


def until(readings: Iterable[Reading], time: float) -> Iterator[Reading]:
    """The readings up to `time` (seconds since 1970), in order."""
    return (reading for reading in readings if reading.time <= time)


def states(predictor: Predictor) -> dict[str, Any]:
    """The present state of every stream as JSON values: time, counts, held values, and state tensors by name.

    The time is None before the first step, as on a grid, where the first interval may still be open.
    """
    table, contract = predictor.table, predictor.contract
    shown = {}
    for stream in table.names:
        present = table.current[table.slot(stream)]
        shown[stream] = {
            "time": None if np.isnan(present["time"]) else format_time(float(present["time"])),
            "step": int(present["step"]),
            "warm_steps": int(present["warm_steps"]),
            "held": dict(zip([one.name for one in contract.features], present["held"].tolist(), strict=True)),
            "states": {
                tensor.name: present[field].tolist()
                for tensor, field in zip(contract.states, table.state_fields, strict=True)
            },
        }
    return shown


def predictions_csv(predictions: Sequence[Prediction], contract: Contract) -> str:
    """CSV text with a row per prediction: stream, time, step, warm_steps, and a column `target+horizon` per output.

    A classifier adds the column label; an anomaly detector adds score and alarm; intervals add the columns
    `target+horizon_low` and `target+horizon_high`.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    outputs = contract.outputs
    decided = {"classify": ["label"], "anomaly": ["score", "alarm"]}.get(contract.task, [])
    columns = [f"{target}+{horizon}" for target, horizon in outputs]
    banded = [] if contract.intervals is None else [one for one in outputs if one[0] in contract.targets]
    ends = [f"{target}+{horizon}_{end}" for target, horizon in banded for end in ("low", "high")]
    writer.writerow(["stream", "time", "step", "warm_steps", *decided, *columns, *ends])
    for prediction in predictions:
        values = [prediction.values[target][horizon] for target, horizon in outputs]
        counts = [prediction.step, prediction.warm_steps]
        facts = [getattr(prediction, name) for name in decided]
        bounds = [] if prediction.bands is None else [prediction.bands[target][horizon] for target, horizon in banded]
        numbers = [*values, *chain.from_iterable(bounds)]
        writer.writerow([prediction.stream, format_time(prediction.time), *counts, *facts, *numbers])
    return file.getvalue()
