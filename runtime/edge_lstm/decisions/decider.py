"""The decisions of a step: the label of a classifier, the score and alarm of a detector, the intervals of a forecast.

The memory of a decision is in the stream's record, so it is rewound, evicted and restored with the record.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions import classification as classify
from edge_lstm.decisions.alarms import anomaly, operator
from edge_lstm.decisions.decisions import Decisions
from edge_lstm.decisions.forecasts import adaptation, learner
from edge_lstm.decisions.forecasts.adaptation import AdaptiveBands
from edge_lstm.decisions.forecasts.bands import Bands, in_order
from edge_lstm.decisions.health import START_VALUES as HEALTH_STARTS
from edge_lstm.decisions.health import ModelHealth, index_bounds
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.decisions.sensors import sensor_watch as sensors
from edge_lstm.decisions.step import Step
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Slots

_NO_RULES = DecisionRules()
_FIELDS_OF_0_1_0 = frozenset(
    [
        *("label", "rival", "rival_steps", "votes"),
        *("expected", "smoothed", "calibrated", "center", "whitening", "threshold", "alarm"),
    ]
)


class Decider(Protocol):
    """Turns the outputs of a network into the decisions of one task."""

    def __call__(self, step: Step) -> Decisions:
        """The decisions of the streams `step.slots` (n,)."""
        ...


def decider(contract: Contract, rules: DecisionRules = _NO_RULES) -> Decider:
    """The decider for the contract's task; with it the judge of the model, where the contract has its limits."""
    decide = _task_decider(contract, rules)
    return decide if contract.health is None else _Judged(contract, decide)


def _task_decider(contract: Contract, rules: DecisionRules) -> Decider:
    if contract.decision is not None:
        return _Classifier(contract)
    if contract.alarm is not None:
        return _Detector(contract, rules)
    return _Numbers(contract, rules)


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
    contract = dataclasses.replace(contract, health=None)  # the verdict on the model is no decision
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

    def __init__(self, contract: Contract, rules: DecisionRules) -> None:
        self._contract = contract
        self._learner = learner.Learner(contract, rules) if learner.learns(contract, rules) else None
        self._adaptive = AdaptiveBands(contract) if contract.intervals_adapt else None
        self._static = None if contract.intervals is None or self._adaptive is not None else Bands(contract)

    def __call__(self, step: Step) -> Decisions:
        outputs = step.outputs if self._learner is None else self._learner(step)
        ordered, count = in_order(self._contract, outputs), len(step.slots)
        bands = None
        if self._adaptive is not None:
            bands = self._adaptive(step, ordered)
        elif self._static is not None:
            bands = self._static(ordered, step.current["time"][step.slots], step.dead)
        return Decisions(ordered, [None] * count, None, None, np.zeros(count, np.bool_), bands)


class _Classifier:
    def __init__(self, contract: Contract) -> None:
        self._classes: list[str | None] = [*contract.targets]
        self._classify = classify.Classifier(contract)

    def __call__(self, step: Step) -> Decisions:
        probabilities, labels, turned = self._classify.step(step.current, step.slots, step.outputs)
        return Decisions(probabilities, [self._classes[label] for label in labels.tolist()], None, None, turned)


class _Detector:
    def __init__(self, contract: Contract, rules: DecisionRules) -> None:
        self._detect = anomaly.AnomalyDetector(contract, rules)

    def __call__(self, step: Step) -> Decisions:
        found, labels = self._detect(step), [None] * len(step.slots)
        confidence = self._detect.confidence(step, found.scores)
        return Decisions(
            step.outputs,
            [*labels],
            found.scores,
            found.alarms,
            found.turned,
            drivers=found.drivers,
            events=found.events,
            confidence=confidence,
        )


class _Judged:
    """The decisions of another decider, with a verdict on the model of each stream."""

    def __init__(self, contract: Contract, decide: Decider) -> None:
        self._decide, self._judge = decide, ModelHealth(contract)
        self._shape = len(contract.targets), -1, len(contract.horizons)

    def __call__(self, step: Step) -> Decisions:
        decided = self._decide(step)
        count = len(step.slots)
        published = decided.values.reshape(count, *self._shape)[:, :, 0].reshape(count, -1)  # without quantiles
        verdicts = self._judge(step, published.astype(np.float64), decided.bands, decided.alarms)
        return decided._replace(health=verdicts)


def record_fields(contract: Contract, rules: DecisionRules = _NO_RULES) -> list[tuple[str, str, tuple[int, ...]]]:
    """The fields (name, type, shape) of a stream's record for its decisions."""
    common = [*operator.record_fields(contract, rules), *sensors.record_fields(contract, rules)]
    common += [] if contract.health is None else ModelHealth(contract).fields()
    if contract.decision is not None:
        return [*classify.record_fields(contract), *common]
    if contract.alarm is not None:
        return [*anomaly.record_fields(contract), *common]
    learned = learner.record_fields(contract) if learner.learns(contract, rules) else []
    return [*learned, *adaptation.record_fields(contract), *common]


def start_values(contract: Contract, rules: DecisionRules = _NO_RULES) -> dict[str, float]:
    """Start values of these fields other than 0."""
    common = {**operator.start_values(rules)}
    common |= {} if contract.health is None else HEALTH_STARTS
    if contract.decision is not None:
        return {**classify.START_VALUES, **common}
    if contract.alarm is not None:
        return {**anomaly.START_VALUES, **common}
    learned = learner.START_VALUES if learner.learns(contract, rules) else {}
    return {**learned, **adaptation.start_values(contract), **common}


def count_bounds(contract: Contract, rules: DecisionRules = _NO_RULES) -> dict[str, tuple[int, int]]:
    """The least and the most of these fields that are counts or indexes: a row with others is damaged."""
    common = {**sensors.count_bounds(contract, rules), **({} if contract.health is None else index_bounds(contract))}
    if contract.decision is not None:
        return {**classify.index_bounds(contract), **common}
    if contract.alarm is None:
        return common
    held = {"quiet": (0, contract.alarm.hold_steps + 1)} if contract.alarm.hold_steps else {}
    return {"calibrated": (0, contract.alarm.calibrate_steps), **held, **common}


def newer_fields(contract: Contract, rules: DecisionRules = _NO_RULES) -> frozenset[str]:
    """Those of these fields that rows of release 0.1.0 lack."""
    return frozenset(name for name, *_ in record_fields(contract, rules)) - _FIELDS_OF_0_1_0


def calibration_shape(contract: Contract) -> tuple[int, int]:
    """(steps, targets) of the residuals that a stream stores during calibration."""
    return (0, 0) if contract.alarm is None else (contract.alarm.calibrate_steps, len(contract.targets))
