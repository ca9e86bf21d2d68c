"""The column of streams: most rows decide, so that a repeated row or a clock change does not hide it."""

from __future__ import annotations

import numpy as np
import pytest

from edge_lstm_train.recipe.stream_search import streams_by

MINUTES = 60.0 * np.arange(300)
NONE = np.zeros(0, np.int64)
SIDE_BY_SIDE = np.repeat(MINUTES, 2)
PUMP = np.tile([0.0, 1.0], 300)
STATUS = (np.arange(600) // 50 % 2).astype(float)


def changed(times: np.ndarray, rows: dict[int, float]) -> np.ndarray:
    result = times.copy()
    for row, moment in rows.items():
        result[row] = moment
    return result


@pytest.mark.parametrize(
    "times",
    [
        SIDE_BY_SIDE,
        changed(SIDE_BY_SIDE, {100: SIDE_BY_SIDE[98]}),  # a repeated row
        changed(SIDE_BY_SIDE, {100: SIDE_BY_SIDE[60], 411: SIDE_BY_SIDE[11]}),  # late rows
        np.concatenate([SIDE_BY_SIDE[:300], SIDE_BY_SIDE[300:] - 3600]),  # the clock was set back
    ],
)
def test_the_streams_are_found_though_some_rows_are_late_or_repeated(times: np.ndarray) -> None:
    assert streams_by(times, {"status": STATUS, "pump": PUMP}, NONE) == "pump"


def test_streams_one_after_the_other_are_found() -> None:
    times = changed(np.concatenate([MINUTES, MINUTES]), {100: MINUTES[99]})
    assert streams_by(times, {"status": STATUS, "pump": np.repeat([0.0, 1.0], 300)}, NONE) == "pump"


@pytest.mark.parametrize(
    "times",
    [
        60.0 * np.arange(600),
        changed(60.0 * np.arange(600), {100: 60.0 * 99}),
        np.concatenate([60.0 * np.arange(310), 60.0 * np.arange(250, 540)]),  # the clock was set back
        60.0 * np.arange(600)[::-1],
    ],
)
def test_one_stream_needs_no_column(times: np.ndarray) -> None:
    assert streams_by(times, {"status": STATUS, "pump": PUMP}, NONE) is None


def test_names_of_values_are_no_streams_but_devices_beside_them_are() -> None:
    times = np.repeat(MINUTES[:150], 4)
    names, device = np.tile([0, 1, 0, 1], 150), np.tile([0.0, 0.0, 1.0, 1.0], 150)
    assert streams_by(times, {"device": device}, names) == "device"
    assert streams_by(np.repeat(MINUTES, 2), {"status": STATUS}, np.tile([0, 1], 300)) is None
