"""Several rows of one stream with one time: told with the remedy, and aggregated on a grid."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from edge_lstm.bundle.contract import Contract, Feature, Sampling, StateTensor
from edge_lstm.recordings.recording import Columns, Recording, read_recording
from edge_lstm.recordings.same_times import with_same_times
from edge_lstm_train.data.samples import samples_of

ROWS = """time,pump,level
2024-03-01T00:00:00Z,a,1
2024-03-01T00:00:00Z,b,10
2024-03-01T00:00:00Z,a,2
2024-03-01T00:00:00Z,a,2
2024-03-01T00:00:00Z,a,6
2024-03-01T00:00:10Z,a,
2024-03-01T00:00:10Z,a,
2024-03-01T00:00:20Z,b,30
2024-03-01T00:01:00Z,a,7
2024-03-01T00:01:00Z,b,8
"""


def recording(tmp_path: Path) -> Recording:
    path = tmp_path / "pumps.csv"
    path.write_text(ROWS)
    return read_recording(path, Columns({"level": "level"}, "time", "pump"))


def test_the_rows_are_told_with_the_remedy(tmp_path: Path) -> None:
    read = recording(tmp_path)
    found = with_same_times(read, grid=False)
    assert found.times is read.times
    (note,) = found.notes
    assert note.startswith(f"{tmp_path / 'pumps.csv'}, row 4: 2 rows have the time of the row before them in their ")
    assert "only the first row of a time is used" in note
    assert "grid = true" in note
    assert "stream_column" in note


def test_a_grid_takes_each_of_them_once(tmp_path: Path) -> None:
    features = [Feature("level", "m", 0.0, 1.0)]
    contract = Contract("pump", "forecast", features, ["level"], [1], [StateTensor("h", [1, 4])])
    contract = dataclasses.replace(contract, sampling=Sampling(interval_s=60.0, max_gap_s=600.0, grid=True))
    found = with_same_times(recording(tmp_path), grid=True)
    samples, counts = samples_of(contract, found)
    assert samples.values[:, 0].tolist() == [3.0, 20.0]  # (1 + 2 + 6) / 3, without the repeated row; (10 + 30) / 2
    assert counts["duplicate"] == 2  # the repeated row, and the second row without a value
    assert np.diff(samples.times[samples.stream_of == 0]).tolist() == []
    assert "the grid aggregates them" in found.notes[0]


def test_a_recording_without_such_rows_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pump.csv"
    path.write_text("time,level\n2024-03-01T00:00:00Z,1\n2024-03-01T00:00:00Z,1\n2024-03-01T00:01:00Z,2\n")
    read = read_recording(path, Columns({"level": "level"}, "time"))
    assert with_same_times(read, grid=True) is read
