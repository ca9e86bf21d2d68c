"""The limits of a model's health: seldom exceeded by data of the same kind, soon by other data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.decider import record_fields, start_values
from edge_lstm.decisions.health import ModelHealth, cause_names
from edge_lstm.decisions.step import Step
from edge_lstm_train.data.dataset import Dataset, dataset_of
from edge_lstm_train.evaluation.model_health import FALSE_ALARMS_PER_MONTH, fitted_health

Make = Callable[..., Any]
RHO = 0.9  # of x, whose best forecast is RHO * x
STREAMS = 200


def wandering(steps: int, streams: int, seed: int) -> np.ndarray:
    """(steps, streams): x(t) = RHO x(t - 1) + noise."""
    noise = np.random.default_rng(seed).normal(0, 1, (steps, streams))
    values = np.zeros((steps, streams))
    for at in range(1, steps):
        values[at] = RHO * values[at - 1] + noise[at]
    return values


def trained(recipe_of: Make, recording_of: Make) -> tuple[Dataset, Contract]:
    values = wandering(4000, 1, 0)[:, 0]
    dataset = dataset_of(recipe_of(), recording_of([("s", 3600.0 * at, [value]) for at, value in enumerate(values)]))
    health = fitted_health(dataset, dataset.contract, RHO * dataset.values.astype(np.float64))
    return dataset, dataclasses.replace(dataset.contract, health=health)


def watched(contract: Contract, values: np.ndarray, gain: float = RHO) -> list[str]:
    """The causes of the streams of `values` (steps, streams) that were not good at some step."""
    fields = [("time", "f8"), ("step", "i8"), ("warm_steps", "i8"), *record_fields(contract)]
    current = np.zeros(values.shape[1], fields)
    for name, start in start_values(contract).items():
        current[name] = start
    judge, slots, names = ModelHealth(contract), np.arange(values.shape[1]), cause_names(contract)
    found: dict[int, str] = {}
    nothing, learns = np.zeros((len(slots), 1), bool), np.ones(len(slots), bool)
    for row in values.astype(np.float32)[:, :, None]:
        for name in ("step", "warm_steps"):
            current[name] += 1
        step = Step(current, np.zeros((len(slots), 0, 0), np.float32), slots, row, nothing, row, learns)
        verdicts = judge(step, gain * row.astype(np.float64), None, None)
        for place in np.flatnonzero(verdicts.levels > 0).tolist():
            found.setdefault(place, names[verdicts.causes[place]])
    return list(found.values())


def test_few_streams_of_the_same_kind_are_watched_in_a_month(recipe_of: Make, recording_of: Make) -> None:
    dataset, contract = trained(recipe_of, recording_of)
    health = contract.health
    assert health is not None
    assert health.errors is not None
    assert health.errors.span_steps == 168  # hours
    assert health.errors.scales == [np.sqrt(np.mean(_errors(dataset) ** 2))]
    assert health.months == len(dataset.steps("validation")) / 720
    alarmed = watched(contract, wandering(720, STREAMS, 1))
    assert len(alarmed) < 1.5 * FALSE_ALARMS_PER_MONTH * STREAMS  # 800 hours of validation are a small sample


def _errors(dataset: Dataset) -> np.ndarray:
    steps = dataset.steps("validation")
    error: np.ndarray = dataset.truth[steps, 0] - RHO * dataset.values[steps, 0].astype(np.float64)
    return error[np.isfinite(error)]


def test_larger_errors_are_found_within_a_month(recipe_of: Make, recording_of: Make) -> None:
    _, contract = trained(recipe_of, recording_of)
    noisier = wandering(720, STREAMS, 2) * 1.6
    assert len(watched(contract, noisier)) > 0.95 * STREAMS


def test_a_wrong_model_is_worse_than_persistence(recipe_of: Make, recording_of: Make) -> None:
    _, contract = trained(recipe_of, recording_of)
    causes = watched(contract, wandering(300, STREAMS, 3), gain=-RHO)
    assert len(causes) == STREAMS
    assert set(causes) <= {"error", "persistence"}


def test_the_reference_is_as_good_as_the_process_allows(recipe_of: Make, recording_of: Make) -> None:
    _, contract = trained(recipe_of, recording_of)
    assert contract.health is not None
    assert contract.health.errors is not None
    reference = contract.health.errors.reference
    assert reference is not None
    scale = contract.features[0].scale
    np.testing.assert_allclose(reference.weights[0] / scale, RHO - 1, atol=0.02)  # of the newest value
    assert abs(reference.weights[-1]) < 0.2


def test_without_steps_to_judge_by_there_are_no_limits(recipe_of: Make, recording_of: Make) -> None:
    short = [("s", 3600.0 * at, [value]) for at, value in enumerate(wandering(300, 1, 0)[:, 0])]
    dataset = dataset_of(recipe_of(), recording_of(short))
    assert fitted_health(dataset, dataset.contract, dataset.values.astype(np.float64)) is None


def test_fast_and_short_streams_have_limits_too(recipe_of: Make, recording_of: Make) -> None:
    values = wandering(700, 8, 5).T  # a reading a second: a month is 2.6 million
    rows = [(f"s{stream}", float(at), [value]) for stream, own in enumerate(values) for at, value in enumerate(own)]
    dataset = dataset_of(recipe_of(), recording_of(rows))
    health = fitted_health(dataset, dataset.contract, RHO * dataset.values.astype(np.float64))
    assert health is not None
    assert health.errors is not None
    assert 1.0 < health.errors.worse < 3.0
    assert len(watched(dataclasses.replace(dataset.contract, health=health), wandering(600, 50, 6))) < 5
