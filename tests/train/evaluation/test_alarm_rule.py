"""The alarm rule that data give, its tail, the episodes of a report, and stretches that spoil a recording."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import numpy as np
import pytest

from edge_lstm.bundle.contract import Alarm
from edge_lstm.decisions.alarms.anomaly import AnomalyDetector
from edge_lstm.decisions.decider import calibration_shape, decide_all, record_fields
from edge_lstm.decisions.step import Step
from edge_lstm_train.data.dataset import Dataset, dataset_of, without_steps
from edge_lstm_train.data.stretches import are_exceptions, uneven_stretches
from edge_lstm_train.evaluation import plots
from edge_lstm_train.evaluation.alarms.alarm_rule import averaged, find_rule, residuals_of
from edge_lstm_train.evaluation.alarms.alarm_sections import calibration_warnings, realized_rate
from edge_lstm_train.evaluation.alarms.episodes import Episodes, episode_table, episodes_of, rate_interval
from edge_lstm_train.evaluation.alarms.tail import fit_tail
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.evaluation.formatting import rate
from edge_lstm_train.evaluation.report import Paragraph
from edge_lstm_train.evaluation.stretch_choice import chosen_stretches
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.task_sections import AnomalySection, usual_span
from tests.train.conftest import recipe_of, recording_of


def anomaly_recipe(features: tuple[str, ...] = ("x",), **keys: Any) -> Recipe:
    section = AnomalySection(**{"calibrate_steps": 100, "span_steps": 10, **keys})
    recipe = recipe_of(features=dict.fromkeys(features, False))
    sampling = dataclasses.replace(recipe.sampling, interval_s=60.0)
    return dataclasses.replace(recipe, task="anomaly", forecast=None, anomaly=section, sampling=sampling)


def noisy(streams: int = 4, steps: int = 1000, features: tuple[str, ...] = ("x",), seed: int = 1) -> Any:
    values = np.random.default_rng(seed).normal(0, 1, (streams, steps, len(features)))
    rows = [(f"s{s}", 60.0 * t, values[s, t].tolist()) for s in range(streams) for t in range(steps)]
    return recording_of(rows, features)


def test_the_tail_of_exponential_peaks_gives_the_level_of_a_rarer_event() -> None:
    scores = np.random.default_rng(3).exponential(1.0, (20, 5000))
    tail = fit_tail(list(scores), gap=0)
    assert tail is not None
    assert abs(tail.shape) < 0.05
    for steps in (1e6, 1e8):  # one in so many steps exceeds its logarithm
        assert tail.level(steps) == pytest.approx(math.log(steps), rel=0.1)
    expected, low, high = tail.events_in(1e6, math.log(1e6))
    assert low < 1.0 < high
    assert low < expected < high


def test_a_level_with_ten_events_in_the_data_is_read_off_the_data() -> None:
    scores = np.random.default_rng(3).exponential(1.0, 100_000)
    tail = fit_tail([scores], gap=0)
    assert tail is not None
    assert (scores > tail.level(5000.0)).sum() == 20


def test_scores_that_lie_close_together_are_one_event() -> None:
    scores = np.zeros(1000)
    scores[::100] = 3.0
    scores[5::100] = 4.0
    scores += np.random.default_rng(0).uniform(0, 0.1, 1000)
    near, apart = (fit_tail([scores], gap) for gap in (10, 2))
    assert near is not None
    assert apart is not None
    assert sum(near.peaks > 2) == 10
    assert sum(apart.peaks > 2) == 20


@pytest.mark.parametrize(("count", "low", "high"), [(0, 0.0, 2.996), (1, 0.0513, 4.744), (10, 5.425, 16.96)])
def test_the_interval_of_a_rate_is_that_of_the_tables(count: int, low: float, high: float) -> None:
    assert rate_interval(count, 1.0) == pytest.approx((low, high), abs=0.005)


def test_the_averages_of_the_search_are_those_of_a_device() -> None:
    dataset, outputs = forecasts(anomaly_recipe(("x", "y")), noisy(2, 300, ("x", "y")))
    alarm = dataclasses.replace(dataset.contract.alarm or Alarm(), calibrate_steps=10_000)
    contract = dataclasses.replace(dataset.contract, alarm=alarm)
    residuals = residuals_of(dataset, outputs)
    found, _ = averaged(dataset, residuals, alarm)
    detector = AnomalyDetector(contract)
    current = np.zeros(1, [("warm_steps", "i8"), *record_fields(contract)])
    calibration = np.zeros((1, *calibration_shape(contract)), np.float32)
    known = np.isfinite(residuals).all(axis=1)
    for step in range(1, 150):  # of the first stream, in the training part
        current["warm_steps"] = step
        values, nothing = dataset.values[step - 1 : step].astype(np.float32), np.zeros((1, 2), bool)
        raw = outputs[step - 1 : step].astype(np.float32)
        detector(Step(current, calibration, np.array([0]), values, nothing, raw, np.ones(1, bool)))
        if known[step - 1]:
            assert current["smoothed"][0] == pytest.approx(found[step - 1], abs=1e-5)


def forecasts(recipe: Recipe, recording: Any) -> tuple[Dataset, np.ndarray]:
    """The dataset, and forecasts of 0."""
    dataset = dataset_of(recipe, recording)
    return dataset, np.zeros((len(dataset), len(dataset.contract.outputs)))


def test_a_rarer_false_alarm_takes_a_larger_factor() -> None:
    factors = []
    for period in ("hour", "day", "month", "year"):
        recipe = anomaly_recipe(false_alarms_per=period)
        rule = find_rule(recipe, *forecasts(recipe, noisy()))
        factors.append(rule.alarm.factor)
        assert rule.extrapolated == (rule.data_periods < 10)
        assert ("extrapolated" in rule.sentence()) == rule.extrapolated
    assert factors == sorted(factors)
    assert factors[-1] > 1.2 * factors[0]


def test_the_realized_rate_on_new_noise_is_within_the_interval() -> None:
    recipe = anomaly_recipe(false_alarms_per="day", span_steps=5, calibrate_steps=200)
    rule = find_rule(recipe, *forecasts(recipe, noisy(6, 3000)))
    dataset, outputs = forecasts(recipe, noisy(6, 6000, seed=9))
    contract = dataclasses.replace(dataset.contract, alarm=rule.alarm)
    values = dataset.values.astype(np.float32)
    _, scores, alarms = decide_all(contract, dataset.stream_of, dataset.restart, values, outputs.astype(np.float32))
    days = np.isfinite(scores).sum() * 60 / 86_400
    begun = (alarms & ~np.roll(alarms, 1)).sum()
    low, high = rate_interval(int(begun), float(days))
    assert low < 3.0
    assert high > 1 / 3  # one a day was asked for


def test_a_fixed_factor_is_kept_and_the_test_part_changes_nothing() -> None:
    recipe = anomaly_recipe(factor=2.5)
    dataset, outputs = forecasts(recipe, noisy())
    assert find_rule(recipe, dataset, outputs).alarm.factor == 2.5
    recipe = anomaly_recipe()
    changed = outputs.copy()
    changed[dataset.steps("test")] += 100.0
    first, second = (find_rule(recipe, dataset, each).alarm for each in (outputs, changed))
    assert first == second


def test_the_residuals_of_a_rule_are_pooled_over_streams_with_their_spread() -> None:
    recording = noisy(6, 800, ("x", "y"))
    values = recording.values.copy()
    values[:, 1] = 0.6 * values[:, 0] + 0.8 * values[:, 1]
    values[recording.stream_of == 0] *= 3.0
    recipe = anomaly_recipe(("x", "y"))
    dataset, outputs = forecasts(recipe, dataclasses.replace(recording, values=values))
    residuals = find_rule(recipe, dataset, outputs).alarm.residuals
    assert residuals is not None
    assert residuals.streams == 6
    raw = residuals.covariance("raw")
    assert raw[0, 1] / math.sqrt(raw[0, 0] * raw[1, 1]) == pytest.approx(0.6, abs=0.05)
    averaged_part = residuals.covariance("averaged")
    assert averaged_part[0, 0] == pytest.approx(raw[0, 0] / 10, rel=0.4)  # a span of 10 averages about 10 steps
    assert residuals.spread[0] == pytest.approx(np.std([math.log(3), 0, 0, 0, 0, 0], ddof=1), rel=0.4)
    assert not list(residuals.faults())


def test_labels_in_the_validation_part_choose_the_span() -> None:
    recording = noisy(3, 2000)
    bad = np.zeros(len(recording.times))
    values = recording.values.copy()
    for stream in range(3):
        own = np.flatnonzero(recording.stream_of == stream)
        event = own[1400:1412]  # short: a long average would miss it
        values[event] += 4.0
        bad[event] = 1.0
    recipe = anomaly_recipe(truth="bad", span_steps=None, calibrate_steps=300)
    recording = dataclasses.replace(recording, values=values, labels={"bad": bad})
    rule = find_rule(recipe, *forecasts(recipe, recording))
    usual = usual_span(60.0)
    assert set(rule.spans) == {usual, usual // 2, 2 * usual}
    assert rule.spans[rule.alarm.span_steps] == max(rule.spans.values())


def test_the_usual_span_fits_the_time_between_steps() -> None:
    assert [usual_span(each) for each in (1.0, 5.0, 60.0, 300.0, 3600.0, None)] == [45, 10, 240, 48, 10, 40]


def test_episodes_are_hits_where_they_overlap_an_event() -> None:
    recipe = anomaly_recipe()
    dataset, _ = forecasts(recipe, noisy(2, 1000))
    test = dataset.by_stream(dataset.steps("test"))
    first, second = test["s0"], test["s1"]
    alarms, truth, scores = np.zeros(len(dataset), bool), np.zeros(len(dataset)), np.zeros(len(dataset))
    truth[first[50:80]] = truth[second[10:20]] = 1.0
    alarms[first[48:85]] = alarms[first[120:130]] = True
    alarms[first[-1]] = alarms[second[0]] = True  # neighbours in the dataset, but not in one stream
    scores[first[60]] = 3.0
    found = episodes_of(dataset, alarms, scores, truth)
    assert [(one.stream, one.kind) for one in found.episodes] == [
        ("s0", "hit"),
        ("s0", "false"),
        ("s0", "false"),
        ("s1", "false"),
    ]
    assert (found.found, len(found.events), found.false) == (1, 2, 3)
    assert (found.events[0].delay, found.events[0].overrun) == (-2, 5)
    assert found.events[1].delay is None
    assert found.episodes[0].peak == 3.0
    figures = found.figures()
    assert (figures["events"], figures["events_found"], figures["false_episodes"]) == (2, 1, 3)
    assert len(figures["episodes"]) == 4
    assert episode_table(found.episodes, None)[1][0][:3] == ["s0", "hit", "3.00"]
    unknown = episodes_of(dataset, alarms, scores, None)
    assert {one.kind for one in unknown.episodes} == {"unknown"}
    assert unknown.figures()["events"] is None


def test_a_calibration_with_labelled_anomalies_is_warned_of() -> None:
    recording = noisy(3, 500)
    bad = np.zeros(len(recording.times))
    bad[np.flatnonzero(recording.stream_of == 1)[40:52]] = 1.0
    recipe = anomaly_recipe(truth="bad")
    dataset = dataset_of(recipe, dataclasses.replace(recording, labels={"bad": bad}))
    (warning,) = calibration_warnings(recipe, dataset, [])
    assert isinstance(warning, Paragraph)
    assert warning.kind == "warning"
    assert warning.text.startswith("Stream s1: 12 of the 100 steps of its calibration are labelled")


def test_a_rate_is_reported_with_its_interval_beside_the_expected_one() -> None:
    recipe = anomaly_recipe(false_alarms_per="month")
    rule = find_rule(recipe, *forecasts(recipe, noisy()))
    assert rule.extrapolated
    text = realized_rate(Episodes([], [], 43_200, True), rule)
    assert text.startswith("On the test part: 0 false alarms in 43,200 normal steps (1 months): 0 per month")
    assert "90 % interval 0 to 3." in text
    assert "extrapolated" in text


def ramp(recording: Any, stream: int, rows: int) -> Any:
    values = recording.values.copy()
    own = np.flatnonzero(recording.stream_of == stream)
    values[own[:rows], 0] = np.linspace(-40, 80, rows)
    return dataclasses.replace(recording, values=values)


def test_a_start_up_is_told_by_stream_and_rows_and_left_out() -> None:
    recipe = anomaly_recipe()
    clean = dataset_of(recipe, noisy(5, 500))
    assert uneven_stretches(clean)[0] == []
    dataset = dataset_of(recipe, ramp(noisy(5, 500), 2, 60))
    (stretch,), inside = uneven_stretches(dataset)
    assert stretch.stream == "s2"
    assert stretch.rows[0] in range(1001, 1003)
    assert stretch.rows[1] == 1060
    assert stretch.spread > 10 * stretch.others[1]
    assert "other streams by" in str(stretch)
    assert are_exceptions(dataset, inside)
    chosen, _, told = chosen_stretches(recipe, dataset, fit_baselines(dataset))
    assert "left out of training" in told[-1]
    assert dataset.contract.features[0].scale > 5 * clean.contract.features[0].scale
    assert chosen.contract.features[0].scale == pytest.approx(clean.contract.features[0].scale, rel=0.02)
    assert not np.isfinite(chosen.targets[inside]).any()


def test_a_left_out_stretch_changes_nothing_of_the_others() -> None:
    recipe, mask = anomaly_recipe(), np.zeros(2500, bool)
    mask[1000:1060] = True
    one, other = (
        without_steps(recipe, dataset_of(recipe, recording), mask)
        for recording in (noisy(5, 500), ramp(noisy(5, 500), 2, 60))
    )
    assert one.contract == other.contract
    assert np.array_equal(one.targets, other.targets, equal_nan=True)


def test_a_plot_of_alarms_has_the_stream_no_warning_and_readable_text() -> None:
    count = 5000
    times = 1.6e9 + 60.0 * np.arange(count)
    flags = np.zeros(count, bool)
    flags[300:400] = True
    measured = {"a very long name of a quantity that no plot has room for (°C)": np.sin(times / 1e4), "$x_1": times}
    lines = plots.AlarmLines("泵-3", times, np.linspace(0, 9, count), flags, flags, measured)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawing = plots.alarm_plot(lines, 6.0)
    for svg, width in zip(drawing, (724, 346), strict=True):
        text = svg.decode()
        assert "泵-3" in text
        assert "var(--ink)" in text
        assert "#1d2530" not in text
        units = float(text.partition('viewBox="0 0 ')[2].split()[0])
        sizes = [float(each.split("px")[0]) for each in text.split("font-size: ")[1:]]
        assert min(sizes) * width / units >= 11.0
        assert len(svg) < 300_000


def test_rates_too_small_to_matter_are_no_powers_of_ten() -> None:
    assert [rate(value) for value in (0.0, 9.2e-6, 0.0153, 2.41, 71.2)] == ["0", "less than 0.01", "0.015", "2.4", "71"]
