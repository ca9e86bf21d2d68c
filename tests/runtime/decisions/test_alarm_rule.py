"""Alarms that hold over gaps, averages with a ceiling, calibrations without outliers, and the bundle's residuals."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.bundle.alarm import Residuals
from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.contract import Alarm, Contract, Feature
from edge_lstm.decisions.alarms.anomaly import fit_distance, usual_rows
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction, Reading
from tests.networks import contract_of, random_network
from tests.runtime.decisions.zero_forecast import Zero

RESIDUALS = Residuals(3, 900, [1.0, 0.5, 0.5, 1.0], [0.1, 0.0, 0.0, 0.2], [0.1, 0.2], [0.0, 0.1], 3.0, 0.05)


def detector(**alarm: Any) -> Contract:
    settings = Alarm(
        **{"span_steps": 5, "settle_steps": 5, "calibrate_steps": 100, "quantile": 1.0, "factor": 1.5, **alarm}
    )
    facts = {"features": [Feature("x"), Feature("y")], "targets": ["x", "y"], "horizons": [1], "clock": []}
    return contract_of(random_network(inputs=2), task="anomaly", alarm=settings, **facts)


def readings(values: np.ndarray, stream: str = "s") -> list[Reading]:
    return [Reading(stream, 60.0 * step, {"x": row[0], "y": row[1]}) for step, row in enumerate(values)]


def scored(contract: Contract, values: np.ndarray) -> list[Prediction]:
    return list(Predictor(contract, Zero(random_network(inputs=2))).feed(readings(values)))


def noise(steps: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1.0, (steps, 2))


def spans(found: list[Prediction]) -> list[tuple[int, int]]:
    """(first, last) step of each alarm."""
    edges = np.flatnonzero(np.diff([0, *(bool(one.alarm) for one in found), 0]))
    return [(int(begin), int(end) - 1) for begin, end in zip(edges[::2], edges[1::2], strict=True)]


def test_gaps_of_hold_steps_are_bridged_and_longer_ones_are_not() -> None:
    values = noise(500)
    for begin in (200, 240, 330):
        values[begin : begin + 10] += 20.0
    loose, held = (spans(scored(detector(hold_steps=steps, factor=3.0), values)) for steps in (0, 40))
    assert len(loose) == 3
    assert held == [(loose[0][0], loose[1][1] + 40), (loose[2][0], loose[2][1] + 40)]


def test_an_average_with_a_ceiling_comes_back_soon_after_a_large_event() -> None:
    values = noise(600)
    values[300:303] += 5000.0
    free, limited = (scored(detector(span_steps=40, ceiling=ceiling), values) for ceiling in (None, 1.5))
    assert repr(free[:301]) == repr(limited[:301])  # the score itself is not cut
    assert spans(free)[-1][1] > 400
    assert spans(limited)[-1][1] < 330
    assert spans(limited)[0][0] == spans(free)[0][0] == 300


def test_a_calibration_leaves_its_own_outliers_out() -> None:
    clean = noise(400)
    dirty = clean.copy()
    dirty[10:90] += 40.0
    thresholds = {
        (name, trim): fit_distance(rows, Alarm(trim=trim))[2] * abs(1 / fit_distance(rows, Alarm(trim=trim))[1][0, 0])
        for name, rows in (("clean", clean), ("dirty", dirty))
        for trim in (None, 6.0)
    }
    assert thresholds["clean", 6.0] == thresholds["clean", None]
    assert thresholds["dirty", 6.0] == pytest.approx(thresholds["clean", None], rel=0.15)
    assert thresholds["dirty", None] > 5 * thresholds["clean", None]
    kept = usual_rows(dirty, 6.0, 0.1)
    assert not kept[10:90].any()
    assert kept[90:].all()


def test_heavy_tails_are_no_outliers_beyond_three_of_ten() -> None:
    rows = np.random.default_rng(2).standard_cauchy((300, 2))
    assert usual_rows(rows, 2.0, 0.1).mean() >= 0.7


def test_a_held_alarm_has_the_same_bits_after_a_store_and_in_any_batch() -> None:
    contract = detector(hold_steps=20, ceiling=1.5, trim=6.0)
    values = noise(300)
    values[180:185] += 30.0
    whole = scored(contract, values)
    for cut in (60, 183, 195):
        first = Predictor(contract, Zero(random_network(inputs=2)), max_rewind=4)
        head = [one for reading in readings(values[:cut]) for one in first.feed([reading])]
        second = Predictor(contract, Zero(random_network(inputs=2)), max_rewind=4, fetch=first.table.row)
        assert repr([*head, *second.feed(readings(values)[cut:])]) == repr(whole)


def test_a_bundle_keeps_the_residuals_and_needs_the_newer_format_for_them(
    tmp_path: Path, make_bundle: Callable[..., Bundle]
) -> None:
    network = random_network(inputs=2)
    plain = make_bundle(tmp_path / "plain.elstm", network, detector())
    facts = json.loads(plain.manifest_bytes)
    assert facts["format_version"] == 1
    assert not {"hold_steps", "ceiling", "trim", "residuals"} & set(facts["contract"]["alarm"])
    contract = detector(hold_steps=20, ceiling=1.5, trim=6.0, residuals=RESIDUALS)
    newer = make_bundle(tmp_path / "newer.elstm", network, contract)
    assert json.loads(newer.manifest_bytes)["format_version"] == 2
    assert Bundle.open(tmp_path / "newer.elstm").contract.alarm == contract.alarm
    assert RESIDUALS.covariance("raw").tolist() == [[1.0, 0.5], [0.5, 1.0]]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"raw": [1.0, 2.0, 2.0, 1.0]}, "an eigenvalue of -1"),
        ({"averaged": [1.0, 0.0, 0.5, 1.0]}, "not symmetric"),
        ({"raw": [1.0] * 9}, "expected 4 numbers"),
        ({"spread": []}, "expected 1 to 64 numbers"),
    ],
)
def test_residuals_that_are_no_covariance_are_refused(change: dict[str, Any], fault: str) -> None:
    assert fault in " ".join(text for _, text in dataclasses.replace(RESIDUALS, **change).faults())
    assert not list(RESIDUALS.faults())


def test_a_score_is_unknown_before_the_calibration_also_with_a_hold() -> None:
    found = scored(detector(hold_steps=20), noise(200))
    assert all(math.isnan(one.score or 0.0) and not one.alarm for one in found[:100])
