"""Values of a recording that were known ahead: archived forecasts by their columns, or actual values told loudly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edge_lstm.bundle.contract import Sampling
from edge_lstm.recordings.ahead_columns import (
    AheadColumn,
    archived_column,
    columns_to_read,
    forecasts_among,
    lead_of,
    with_actual_values,
)
from edge_lstm.recordings.columns import ValueColumn
from edge_lstm.recordings.recording import Recording

HOURLY = Sampling(3600.0, 36_000.0)
SIX = AheadColumn("outdoor", 6, ValueColumn("temp"))


def recording_of(values: np.ndarray, times: np.ndarray | None = None) -> Recording:
    times = 3600.0 * np.arange(len(values)) if times is None else times
    return Recording("house.csv", ["outdoor"], ["house"], np.zeros(len(values), int), times, values[:, None])


@pytest.mark.parametrize(
    ("column", "steps"),
    [("temp+6h", 6.0), ("temp +6", 6.0), ("temp+30min", 0.5), ("temp + 1 d", 24.0), ("temp+90s", 0.025)],
)
def test_the_name_of_a_column_says_how_far_ahead_it_is(column: str, steps: float) -> None:
    lead = lead_of(column)
    assert lead is not None
    assert (lead.base, lead.steps(3600.0)) == ("temp", pytest.approx(steps))


@pytest.mark.parametrize("column", ["temp", "+6h", "temp+", "a+b", "temp+6x", "temp-6h"])
def test_other_names_are_no_forecasts(column: str) -> None:
    assert lead_of(column) is None


def test_archived_forecasts_are_found_by_column_or_quantity_and_at_the_right_interval() -> None:
    assert archived_column(["temp", "temp+6h"], SIX, 3600.0) == "temp+6h"
    assert archived_column(["outdoor+6"], SIX, 3600.0) == "outdoor+6"
    assert archived_column(["temp+6h"], SIX, 1800.0) is None  # twelve steps there
    assert archived_column([], dataclasses.replace(SIX, archived="fc"), 3600.0) == "fc"
    assert forecasts_among(["temp", "temp+6h", "wind+6h"], 3600.0) == {"temp": {"temp+6h": 6.0}}


def test_a_feature_without_archived_forecasts_needs_the_actual_values() -> None:
    values = {"indoor": "in", "outdoor+6": "outdoor+6"}
    read = columns_to_read(["in", "temp", "temp+6h"], values, {"outdoor+6": SIX}, 3600.0)
    assert read == {"indoor": "in", "outdoor+6": ValueColumn("temp+6h")}
    read = columns_to_read(["in", "temp"], values, {"outdoor+6": SIX}, 3600.0)
    assert read == {"indoor": "in", "outdoor": ValueColumn("temp")}


def test_actual_values_are_those_at_the_later_time_and_missing_beyond_a_gap_and_the_end() -> None:
    times = 3600.0 * np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 30, 31])
    found = with_actual_values(recording_of(np.arange(11.0), times), ["outdoor+6"], {"outdoor+6": SIX}, HOURLY, False)
    expected = [6.0, 7.0, 8.0, *[np.nan] * 8]
    assert found.values[:, 0].tolist() == pytest.approx(expected, nan_ok=True)
    assert found.features == ["outdoor+6"]
    assert "outdoor+6: the recording has no archived forecasts of outdoor" in found.notes[0]
    assert "every figure is optimistic (no error was added)" in found.notes[0]
    assert found.actual_ahead == {"outdoor": 0.0}


def test_a_tariff_between_two_rows_is_that_of_the_row_before() -> None:
    half = dataclasses.replace(SIX, step=1, between="previous")
    found = with_actual_values(
        recording_of(np.array([1.0, 2.0, 3.0])), ["outdoor+1"], {"outdoor+1": half}, Sampling(1800.0, 36_000.0), True
    )
    assert found.values[:, 0].tolist() == pytest.approx([1.0, 2.0, np.nan], nan_ok=True)  # and without noise


def test_the_added_error_grows_with_the_root_of_the_steps_and_is_alike_in_neighbours() -> None:
    count = 4000
    features = {f"outdoor+{step}": dataclasses.replace(SIX, step=step, noise=2.0) for step in (1, 4, 16)}
    recording = recording_of(np.zeros(count))
    found = with_actual_values(recording, ["outdoor", *features], features, HOURLY, True)
    assert (found.values[:, 0] == 0).all()
    errors = [found.values[: count - step, 1 + at] for at, step in enumerate((1, 4, 16))]
    assert [float(one.std()) for one in errors] == pytest.approx([2.0, 4.0, 8.0], rel=0.15)
    after = errors[2]
    assert np.corrcoef(after[1:], after[:-1])[0, 1] == pytest.approx(15 / 16, abs=0.05)
    whole = found.values[: count - 16]
    steps = whole[:, 2] - whole[:, 1]  # of four steps, without the first
    assert np.corrcoef(steps, whole[:, 1])[0, 1] == pytest.approx(0.0, abs=0.05)
    again = with_actual_values(recording, ["outdoor", *features], features, HOURLY, True)
    assert np.array_equal(found.values, again.values, equal_nan=True)


def test_the_usual_error_is_half_of_the_change_until_then() -> None:
    walk = np.cumsum(np.random.default_rng(1).normal(0, 3, 4000))
    features = {f"outdoor+{step}": dataclasses.replace(SIX, step=step) for step in (1, 6)}
    found = with_actual_values(recording_of(walk), list(features), features, HOURLY, True)
    assert found.actual_ahead["outdoor"] == pytest.approx(1.5, rel=0.05)
    slow = 100 * np.sin(np.arange(4000) / 200)  # it moves on: over six steps by six times as much as over one
    found = with_actual_values(recording_of(slow), list(features), features, HOURLY, True)
    over_six = np.sqrt(np.mean((slow[6:2000] - slow[:1994]) ** 2))
    assert found.actual_ahead["outdoor"] == pytest.approx(0.5 * over_six / np.sqrt(6), rel=0.01)
