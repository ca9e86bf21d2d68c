"""Replays readings through the predictor of the service, at full speed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.alarms.events import MOST_DRIVERS
from edge_lstm.foundation.csv_text import csv_text
from edge_lstm.foundation.times.text import format_time
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction, Reading
from edge_lstm.streaming.step_results import Steps

_READINGS_A_BATCH = 256  # a stream gets the same bits in any batch; larger batches are faster


def replay(predictor: Predictor, readings: Iterable[Reading], batches: Sequence[int] = ()) -> Iterator[Prediction]:
    """Feed all readings in order, and yield the predictions. `batches`: as of `replayed_steps`."""
    for _, steps in replayed_steps(predictor, readings, batches):
        yield from [] if steps is None else steps.predictions()


def replayed_steps(
    predictor: Predictor, readings: Iterable[Reading], batches: Sequence[int] = ()
) -> Iterator[tuple[int, Steps | None]]:
    """Feed all readings in order; (number of readings, their steps or None where nothing stepped) of each batch.

    `batches`: of each reading the number of the batch in which a service stepped it. Late readings of a stream share a
    rewind there and here, so that the same corrections come out. Empty: any batches.
    """
    for batch in _as_stepped(readings, batches) if batches else _in_order(readings):
        yield len(batch), predictor.feed_columns(batch)  # a row of a recording may hold no value


def _in_order(readings: Iterable[Reading]) -> Iterator[list[Reading]]:
    remaining = iter(readings)
    while batch := list(islice(remaining, _READINGS_A_BATCH)):
        yield batch


def _as_stepped(readings: Iterable[Reading], batches: Sequence[int]) -> Iterator[list[Reading]]:
    """The batches; those that have no stream in common are stepped together, which gives the same."""
    together: list[Reading] = []
    streams: set[str] = set()
    for _, numbered in groupby(zip(batches, readings, strict=True), itemgetter(0)):
        batch = [reading for _, reading in numbered]
        others = {reading.stream for reading in batch}
        if together and (len(together) >= _READINGS_A_BATCH or not streams.isdisjoint(others)):
            yield together
            together, streams = [], set()
        together += batch
        streams |= others
    yield together


def hand_over(former: Predictor, following: Predictor) -> None:
    """Give all streams to a predictor with other rules for late and repeated readings, as a reloaded service does."""
    for stream in former.table.names:
        following.table.put_row(stream, former.table.row(stream), former.table.layout)


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

    A classifier adds the column label; an anomaly detector adds score and alarm, and at the end the columns of its
    drivers and event, as a flat payload has them; intervals add `target+horizon_low` and `target+horizon_high`; values
    that are known ahead add the column degraded, with names that are separated by spaces.
    """
    return csv_text(_rows(predictions, contract))


def _rows(predictions: Sequence[Prediction], contract: Contract) -> Iterator[list[object]]:
    outputs = contract.outputs
    decided = {"classify": ["label"], "anomaly": ["score", "alarm"]}.get(contract.task, [])
    columns = [f"{target}+{horizon}" for target, horizon in outputs]
    banded = [] if contract.intervals is None else [one for one in outputs if one[0] in contract.targets]
    ends = [f"{target}+{horizon}_{end}" for target, horizon in banded for end in ("low", "high")]
    most = 0 if contract.alarm is None else min(MOST_DRIVERS, len(contract.targets))
    more = [f"driver_{number}{part}" for number in range(1, most + 1) for part in ("", "_share", "_is", "_expected")]
    more += [] if contract.alarm is None else ["event_id", "event_since", "event_peak", "event_until"]
    ahead = ["degraded"] if contract.known_ahead else []
    yield ["stream", "time", "step", "warm_steps", *decided, *columns, *ends, *more, *ahead]
    for prediction in predictions:
        values = [prediction.values[target][horizon] for target, horizon in outputs]
        counts = [prediction.step, prediction.warm_steps]
        facts = [getattr(prediction, name) for name in decided]
        bounds = [] if prediction.bands is None else [prediction.bands[target][horizon] for target, horizon in banded]
        numbers: list[object] = [*values, *chain.from_iterable(bounds)]
        if more:
            numbers += _more_cells(prediction, most)
        numbers += [" ".join(prediction.degraded)] if ahead else []
        yield [prediction.stream, format_time(prediction.time), *counts, *facts, *numbers]


def _more_cells(prediction: Prediction, most: int) -> list[object]:
    """The cells of the first drivers and of the event; None where there is none."""
    drivers = list(chain.from_iterable((prediction.drivers or [])[:most]))
    cells: list[object] = [*drivers, *[None] * (4 * most - len(drivers))]
    event = prediction.event
    if event is None:
        return [*cells, None, None, None, None]
    until = None if event.until is None else format_time(event.until)
    return [*cells, event.id, format_time(event.since), event.peak, until]
