"""Rows with a wrong clock are left out and named; rows that are late or repeated stay, as on a device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_lstm.recordings.columns import TimeColumns
from edge_lstm.recordings.recording import Columns, read_recording, row_place
from edge_lstm.recordings.wrong_clocks import wrong_clocks

BEGIN = 1_709_251_200.0  # 2024-03-01
RIGHT = BEGIN + 600 * np.arange(300.0)
IN_2036 = 2_085_978_496.0
DAY_S = 86_400.0


def found(times: np.ndarray, streams: np.ndarray | None = None) -> list[int]:
    stream_of = np.zeros(len(times), np.int64) if streams is None else streams
    return np.flatnonzero(wrong_clocks(times, stream_of)).tolist()


def changed(rows: dict[int, float], times: np.ndarray = RIGHT) -> np.ndarray:
    result = times.copy()
    for row, moment in rows.items():
        result[row] = moment
    return result


@pytest.mark.parametrize("row", [0, 1, 150, 298, 299])
def test_a_single_time_of_2036_is_found_anywhere(row: int) -> None:
    assert found(changed({row: IN_2036})) == [row]


@pytest.mark.parametrize("ahead_s", [7200.0, DAY_S, 30 * DAY_S, 400 * DAY_S])
@pytest.mark.parametrize("row", [0, 100, 200])
def test_a_time_ahead_of_later_rows_is_found(row: int, ahead_s: float) -> None:
    assert found(changed({row: RIGHT[row] + ahead_s})) == [row]


def test_a_few_wrong_rows_together_and_apart_are_found() -> None:
    assert found(changed({row: RIGHT[row] + DAY_S for row in (40, 41, 42, 200)})) == [40, 41, 42, 200]
    assert found(changed({10: IN_2036, 20: 0.0, 30: 315_964_800.0, 299: IN_2036 + 5})) == [10, 20, 30, 299]


def test_rows_of_1970_before_the_clock_was_set_are_found() -> None:
    unset = changed({row: 10.0 * row for row in range(100)})
    assert found(unset) == list(range(100))
    boots = changed(dict.fromkeys((0, 1, 100, 101, 200), 10.0))
    assert found(boots) == [0, 1, 100, 101, 200]


def test_each_stream_has_its_own_clock() -> None:
    times = np.repeat(RIGHT, 2)
    streams = np.tile([0, 1], 300)
    times[101] = RIGHT[50] + DAY_S  # of stream 1
    assert found(times, streams) == [101]
    blocks = np.concatenate([RIGHT, RIGHT])
    assert found(blocks, np.repeat([0, 1], 300)) == []


@pytest.mark.parametrize(
    "times",
    [
        np.arange(300.0) * 600,  # counted from a start of its own
        np.concatenate([RIGHT[:150], RIGHT[144:294]]),  # the clock was set back by an hour
        RIGHT[::-1],  # newest first
        np.concatenate([RIGHT, RIGHT]),  # two streams in one
        np.sort(RIGHT)[np.argsort(np.arange(300) // 2 * 2 - np.arange(300) % 2)],  # every other row late by one
        np.concatenate([RIGHT[:150] - 3 * 365 * DAY_S, RIGHT[150:]]),  # two recordings of other years
        np.concatenate([RIGHT[:20] - 3 * 365 * DAY_S, RIGHT[20:]]),
        np.linspace(BEGIN - 30 * 365 * DAY_S, BEGIN, 300),  # many years
        changed({150: RIGHT[149]}),  # a repeated row
        changed({150: RIGHT[100]}),  # a late row
    ],
)
def test_other_orders_of_rows_stay_as_they_are(times: np.ndarray) -> None:
    assert found(times) == []


def test_the_row_is_named_and_counted_and_the_others_keep_their_places(tmp_path: Path) -> None:
    path = tmp_path / "attic.csv"
    lines = [f"{moment},{row}" for row, moment in enumerate(changed({2: IN_2036}))]
    path.write_text("time,x\n" + "\n".join(lines) + "\n")
    recording = read_recording(path, Columns({"x": "x"}, "time"))
    assert (len(recording), recording.left_out) == (299, {"wrong clock": 1})
    assert recording.values[1:3, 0].tolist() == [1, 3]
    assert row_place(recording, 2) == (str(path), 5)
    place = f"{path}, row 4: left out, since its time 2036-02-07T06:28:16Z contradicts the rows around it"
    assert list(recording.notes) == [place]
    kept = read_recording(path, Columns({"x": "x"}, TimeColumns(interval_s=1.0)))
    assert len(kept) == 300
