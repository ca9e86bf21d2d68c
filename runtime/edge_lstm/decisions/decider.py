"""The decisions of a step: the label of a classifier, the score and alarm of a detector, the intervals of a forecast.

The memory of a decision is in the stream's record, so it is rewound, evicted and restored with the record.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions import anomaly, events, sensors
from edge_lstm.decisions import classification as classify
from edge_lstm.decisions.bands import Bands, in_order
from edge_lstm.decisions.decisions import Decisions
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.decisions.step import Step
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Slots

_NO_RULES = DecisionRules()


class Decider(Protocol):
    """Turns the outputs of a network into the decisions of one task."""

    def __call__(self, step: Step) -> Decisions:
        """The decisions of the streams `step.slots` (n,)."""
        ...


def decider(contract: Contract, rules: DecisionRules = _NO_RULES) -> Decider:
    """The decider for the contract's task."""
    if contract.decision is not None:
        return _Classifier(contract)
    if contract.alarm is not None:
        return _Detector(contract)
    return _Numbers(contract)


def decide_all(
    contract: Contract,
    stream_of: Slots,
    restart: Flags,
    values: Floats,
    outputs: Floats,
) -> tuple[list[str | None], Doubles, Flags]:
    """The decisions of a device for steps that are ordered by stream, without missing values.

    stream_of (steps,): ascending; restart (steps,): whether the state restarts; values (steps, features); outputs
    (steps, outputs): as for a decider. Returns labels, scores and alarms, (steps,) each: None, NaN and False if the
    task has none.
    """
    decide = decider(contract)
    begins = np.flatnonzero(np.diff(stream_of, prepend=-1))
    lengths = np.diff(begins, append=len(stream_of))
    current = np.zeros(len(begins), [("time", "f8"), ("warm_steps", "i8"), *record_fields(contract)])
    for name, start in start_values(contract).items():
        current[name] = start
    calibration = np.zeros((len(begins), *calibration_shape(contract)), np.float32)
    labels: list[str | None] = [None] * len(stream_of)
    scores = np.full(len(stream_of), np.nan)
    alarms = np.zeros(len(stream_of), bool)
    nothing = np.zeros(values.shape, bool)
    for step in range(int(lengths.max())):
        slots = np.flatnonzero(lengths > step)
        at = begins[slots] + step
        current["warm_steps"][slots] = np.where(restart[at], 1, current["warm_steps"][slots] + 1)
        learns = np.ones(len(at), np.bool_)
        decided = decide(Step(current, calibration, slots, values[at], nothing[at], outputs[at], learns))
        if decided.scores is not None:
            scores[at] = decided.scores
        if decided.alarms is not None:
            alarms[at] = decided.alarms
        for place, label in zip(at.tolist(), decided.labels, strict=True):
            labels[place] = label
    return labels, scores, alarms


class _Numbers:
    """The numbers of a forecast or an estimate."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._bands = None if contract.intervals is None else Bands(contract)

    def __call__(self, step: Step) -> Decisions:
        ordered, count = in_order(self._contract, step.outputs), len(step.slots)
        bands = None if self._bands is None else self._bands(ordered, step.current["time"][step.slots])
        return Decisions(ordered, [None] * count, None, None, np.zeros(count, np.bool_), bands)


class _Classifier:
    def __init__(self, contract: Contract) -> None:
        self._classes: list[str | None] = [*contract.targets]
        self._classify = classify.Classifier(contract)

    def __call__(self, step: Step) -> Decisions:
        probabilities, labels, turned = self._classify.step(step.current, step.slots, step.outputs)
        return Decisions(probabilities, [self._classes[label] for label in labels.tolist()], None, None, turned)


class _Detector:
    def __init__(self, contract: Contract) -> None:
        self._detect = anomaly.AnomalyDetector(contract)

    def __call__(self, step: Step) -> Decisions:
        scores, alarms, turned, drivers, events = self._detect(step)
        labels: list[str | None] = [None] * len(step.slots)
        return Decisions(step.outputs, labels, scores, alarms, turned, drivers=drivers, events=events)


def record_fields(contract: Contract, rules: DecisionRules = _NO_RULES) -> list[tuple[str, str, tuple[int, ...]]]:
    """The fields (name, type, shape) of a stream's record for its decisions."""
    watched = sensors.record_fields(contract, rules)
    if contract.decision is not None:
        return [*classify.record_fields(contract), *watched]
    return [*(anomaly.record_fields(contract) if contract.alarm is not None else []), *watched]


def start_values(contract: Contract, rules: DecisionRules = _NO_RULES) -> dict[str, float]:
    """Start values of these fields other than 0."""
    if contract.decision is not None:
        return classify.START_VALUES
    return anomaly.START_VALUES if contract.alarm is not None else {}


def count_bounds(contract: Contract, rules: DecisionRules = _NO_RULES) -> dict[str, tuple[int, int]]:
    """The least and the most of these fields that are counts or indexes: a row with others is damaged."""
    watched = sensors.count_bounds(contract, rules)
    if contract.decision is not None:
        return {**classify.index_bounds(contract), **watched}
    if contract.alarm is None:
        return watched
    held = {"quiet": (0, contract.alarm.hold_steps + 1)} if contract.alarm.hold_steps else {}
    return {"calibrated": (0, contract.alarm.calibrate_steps), **held, **watched}


def newer_fields(contract: Contract) -> frozenset[str]:
    """Those of these fields that rows of release 0.1.0 lack."""
    return frozenset([*sensors.FIELDS, *(() if contract.alarm is None else events.FIELDS)])


def calibration_shape(contract: Contract) -> tuple[int, int]:
    """(steps, targets) of the residuals that a stream stores during calibration."""
    return (0, 0) if contract.alarm is None else (contract.alarm.calibrate_steps, len(contract.targets))
