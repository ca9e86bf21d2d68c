"""A new device: judged by the residuals of others from its first steps, and by its own alone after its calibration."""

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
from edge_lstm.bundle.data_sheet import sheet_rows
from edge_lstm.decisions.alarms.prior import Prior, prior_of
from edge_lstm.decisions.decider import calibration_shape, decider, record_fields, start_values
from edge_lstm.decisions.step import Step
from edge_lstm.messages.encoder import Encoder, decode_prediction, encode_prediction
from edge_lstm.messages.mapping import OutputMapping
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction, Reading
from tests.networks import contract_of, random_network
from tests.runtime.decisions.zero_forecast import Zero

SPAN, CALIBRATE = 10, 200
RESIDUALS = Residuals(
    8, 8000, [1.0, 0.8, 0.8, 1.0], [0.1, 0.08, 0.08, 0.1], [0.1, 0.1], [0.02, 0.02], 2.7, 0.1
)  # of the noise below, averaged over the span


def detector(residuals: Residuals | None = RESIDUALS, **alarm: Any) -> Contract:
    settings = {"span_steps": SPAN, "settle_steps": SPAN, "calibrate_steps": CALIBRATE, "factor": 2.0, "trim": 6.0}
    rule = Alarm(**{**settings, "hold_steps": 5, "ceiling": 1.5, "residuals": residuals, **alarm})
    facts = {"features": [Feature("x"), Feature("y")], "targets": ["x", "y"], "horizons": [1], "clock": []}
    return contract_of(random_network(inputs=2), task="anomaly", alarm=rule, **facts)


def noise(steps: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).multivariate_normal([0, 0], [[1.0, 0.8], [0.8, 1.0]], steps)


def readings(values: np.ndarray, stream: str = "s") -> list[Reading]:
    return [Reading(stream, 60.0 * step, {"x": row[0], "y": row[1]}) for step, row in enumerate(values)]


def scored(contract: Contract, values: np.ndarray) -> list[Prediction]:
    return list(Predictor(contract, Zero(random_network(inputs=2))).feed(readings(values)))


def spike_in_calibration() -> np.ndarray:
    values = noise(500)
    values[90:95] += 30.0
    values[175:180] += (8.0, -8.0)  # with a hold, an alarm that lasts over the end of the calibration
    values[400:420] += (3.0, -3.0)
    return values


def test_a_new_stream_is_judged_once_it_has_settled_with_a_confidence_that_grows() -> None:
    found = scored(detector(), noise(300))
    begins = SPAN  # settled
    assert all(math.isnan(one.score or 0.0) and one.confidence is None for one in found[:begins])
    early, later = found[begins : begins + CALIBRATE - 1], found[begins + CALIBRATE - 1 :]
    confidences = [one.confidence for one in early]
    assert None not in confidences
    assert confidences == sorted(confidences)  # type: ignore[type-var]
    worth = detector().alarm.prior_steps  # type: ignore[union-attr]
    assert confidences[0] == round(1 / (1 + worth), 3)
    assert confidences[-1] == pytest.approx(CALIBRATE / (CALIBRATE + worth), abs=0.05)
    assert all(math.isfinite(one.score or math.nan) for one in [*early, *later])
    assert all(one.confidence is None for one in later)


def test_a_fault_in_the_first_steps_raises_an_alarm_and_normal_steps_do_not() -> None:
    normal = [scored(detector(), noise(CALIBRATE, seed)) for seed in range(6)]
    assert np.mean([bool(one.alarm) for run in normal for one in run]) < 0.01
    values = noise(100)
    values[30:] += (2.5, -2.5)  # against the correlation that the other devices have
    found = [bool(one.alarm) for one in scored(detector(), values)]
    assert not any(found[:30])
    assert sum(found[30:60]) > 15
    assert not any(one.alarm for one in scored(detector(None), values))


def test_after_its_calibration_a_stream_is_judged_as_without_a_prior_bit_for_bit() -> None:
    values, end = spike_in_calibration(), SPAN + CALIBRATE - 1
    known, unknown = (scored(detector(residuals, hold_steps=60), values) for residuals in (RESIDUALS, None))
    assert any(one.alarm for one in known[:end])
    assert known[end - 1].alarm
    for one, other in zip(known[end:], unknown[end:], strict=True):
        assert (one.score, one.alarm, one.values, one.confidence) == (other.score, other.alarm, other.values, None)
    assert any(one.alarm for one in known[400:])


def test_with_too_few_other_devices_nothing_changes() -> None:
    few = dataclasses.replace(RESIDUALS, streams=2)
    assert repr(scored(detector(few), spike_in_calibration())) == repr(scored(detector(None), spike_in_calibration()))
    assert record_fields(detector(few)) == record_fields(detector(None))
    assert prior_of(Alarm(residuals=few)) is None


def test_a_stream_in_calibration_has_the_same_bits_in_any_batch_and_after_a_store() -> None:
    contract, values = detector(), spike_in_calibration()
    whole = scored(contract, values)
    together = Predictor(contract, Zero(random_network(inputs=2)))
    others = [noise(len(values), seed) for seed in range(2, 6)]
    beside = []
    for step, reading in enumerate(readings(values)):
        more = [Reading(f"o{at}", 60.0 * step, {"x": own[step][0], "y": own[step][1]}) for at, own in enumerate(others)]
        late = more if step > 50 else []  # they are at other steps of their calibrations
        beside += [one for one in together.feed([*late, reading]) if one.stream == "s"]
    assert repr(beside) == repr(whole)
    for cut in (11, 93, 207, 212):
        first = Predictor(contract, Zero(random_network(inputs=2)), max_rewind=4)
        head = [one for reading in readings(values[:cut]) for one in first.feed([reading])]
        second = Predictor(contract, Zero(random_network(inputs=2)), max_rewind=4, fetch=first.table.row)
        assert repr([*head, *second.feed(readings(values)[cut:])]) == repr(whole)


def test_steps_that_may_not_teach_leave_the_calibration_where_it_is() -> None:
    contract = detector()
    decide, slot = decider(contract), np.array([0])
    current = np.zeros(1, [("time", "f8"), ("warm_steps", "i8"), *record_fields(contract)])
    for name, start in start_values(contract).items():
        current[name] = start
    calibration = np.zeros((1, *calibration_shape(contract)), np.float32)
    kept = None
    for step, row in enumerate(noise(120).astype(np.float32)):
        current["warm_steps"] += 1
        learns = np.array([step < 60])
        decided = decide(Step(current, calibration, slot, row[None], np.zeros((1, 2), bool), 0 * row[None], learns))
        assert decided.scores is not None
        if step == 60:
            kept = current[["calibrated", "center", "whitening", "threshold"]].copy(), calibration.copy()
    assert kept is not None
    assert kept[0] == current[["calibrated", "center", "whitening", "threshold"]]
    assert (kept[1] == calibration).all()
    assert np.isfinite(decided.scores).all()


def test_the_posterior_goes_from_the_devices_to_the_streams_own_moments() -> None:
    alarm = detector().alarm
    assert alarm is not None
    prior, worth = Prior(alarm, RESIDUALS), alarm.prior_steps
    mean, own = np.array([0.3, -0.1]), np.array([[0.4, 0.0], [0.0, 0.4]])
    shift = 0.02**2 - 0.1 * SPAN / 1000
    for steps in (1, 50, 10**9):
        center, covariance = prior.posterior(mean, own, steps)
        share = max(0.0, shift) / (max(0.0, shift) + 0.1 / (1 + (steps - 1) / SPAN))
        np.testing.assert_allclose(center, share * mean)
        weight = steps / (steps + worth)
        away = (1 - share) * mean
        expected = weight * (own + np.outer(away, away)) + (1 - weight) * RESIDUALS.covariance("averaged")
        np.testing.assert_allclose(covariance, expected + np.eye(2) * max(0.0, shift) * (1 - share))
        assert prior.usual(5.0, steps) == pytest.approx(math.exp(weight * math.log(5.0) + (1 - weight) * math.log(2.7)))


def test_the_more_alike_devices_are_the_more_their_residuals_weigh() -> None:
    worths = [
        Alarm(
            span_steps=SPAN, calibrate_steps=1000, residuals=dataclasses.replace(RESIDUALS, spread=[size] * 2)
        ).prior_steps
        for size in (0.01, 0.1, 0.2, 0.5, 3.0)
    ]
    noise_of_few_steps = SPAN / (4 * 1000)
    assert worths[0] == 1000.0
    assert worths[1:4] == pytest.approx([SPAN / (4 * (size**2 - noise_of_few_steps)) for size in (0.1, 0.2, 0.5)])
    assert worths[4] == SPAN


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_devices_whose_sensors_always_go_together_judge_too(size: float) -> None:
    singular = dataclasses.replace(RESIDUALS, averaged=[size] * 4, shift=[size] * 2)
    found = scored(detector(singular, shrinkage=0.0), noise(60))
    assert not list(singular.faults())
    assert all(math.isfinite(one.score or math.nan) for one in found[SPAN:])


def test_inspect_says_how_long_a_new_stream_needs(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> None:
    network = random_network(inputs=2)
    known, unknown = (
        dict(sheet_rows(make_bundle(tmp_path / f"{name}.elstm", network, detector(residuals))))["starts"]
        for name, residuals in (("known", RESIDUALS), ("unknown", None))
    )
    assert known == (
        "with a score 10 steps after its first, by 8 other devices, which count as 200 of its steps; "
        "210 steps (210 min) after its first by its own alone, which must be normal"
    )
    assert unknown == "with a score 210 steps (210 min) after its first, which must be normal"


def test_the_payload_says_how_sure_a_score_is_until_it_is_sure() -> None:
    found = scored(detector(), noise(300))
    early, later = (json.loads(encode_prediction(found[at], "b")) for at in (50, 250))
    assert early["confidence"] == found[50].confidence
    assert "confidence" not in later
    assert decode_prediction(encode_prediction(found[50], "b")).confidence == found[50].confidence
    for form in ("nested", "flat"):
        encoder = Encoder(OutputMapping(format=form), "b")
        steps = Predictor(detector(), Zero(random_network(inputs=2))).feed_columns(readings(noise(300)))
        assert steps is not None
        assert [payload for _, payload in encoder.messages(steps)] == [encoder.payload(one) for one in found]
