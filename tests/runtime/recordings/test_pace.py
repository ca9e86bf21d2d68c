"""A recording at another pace than the model's is said, and a WAV at another sample rate is refused."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_lstm.bundle.contract import Sampling
from edge_lstm.cli.main import main
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.pace import median_interval_s, pace_warning
from edge_lstm.recordings.recording import Recording
from edge_lstm.recordings.wav import read_wav
from tests.paths import PUMP


def recording(interval_s: float, streams: int = 1) -> Recording:
    """50 rows a stream, with a gap, jitter, and one repeated row."""
    times = interval_s * np.arange(50) + np.where(np.arange(50) > 20, 9000.0, 0)
    times[7] += 0.2 * interval_s
    times[9] = times[8]
    names = [f"s{number}" for number in range(streams)]
    stream_of, all_times = np.repeat(np.arange(streams), 50), np.tile(times, streams)
    return Recording("log.csv", ["a"], names, stream_of, all_times, np.ones((50 * streams, 1)))


@pytest.mark.parametrize("streams", [1, 3])
def test_the_interval_of_a_recording_is_the_median_over_its_streams(streams: int) -> None:
    assert median_interval_s(recording(60, streams)) == pytest.approx(60)
    assert median_interval_s(recording(60).rows(slice(0, 1))) is None


@pytest.mark.parametrize(("interval_s", "said"), [(60, False), (60.5, False), (61, True), (59, True), (600, True)])
def test_another_interval_than_the_models_is_said_with_both(interval_s: float, said: bool) -> None:
    warning = pace_warning(recording(interval_s), Sampling(60))
    assert (warning is not None) == said
    if warning is not None:
        assert f"expected a reading every 60 s (interval_s), found one every {interval_s:g} s" in warning


@pytest.mark.parametrize(("interval_s", "said"), [(1, False), (60, False), (61, True)])
def test_a_grid_takes_readings_that_come_more_often(interval_s: float, said: bool) -> None:
    warning = pace_warning(recording(interval_s), Sampling(60, 600, grid=True))
    assert (warning is not None) == said


def test_nothing_is_said_where_the_model_has_no_interval() -> None:
    assert pace_warning(recording(60), Sampling()) is None


def write_wav(path: Path, rate: int) -> None:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(np.arange(100, dtype="<i2").tobytes())


@pytest.mark.parametrize(("rate", "right"), [(8000, True), (8050, True), (8120, False), (16000, False), (11025, False)])
def test_a_wav_of_another_sample_rate_is_refused(rate: int, right: bool, tmp_path: Path) -> None:
    write_wav(tmp_path / "hall.wav", rate)
    features = ["a", "b", "c", "d"]
    assert len(read_wav(tmp_path / "hall.wav", features)) == 25
    if right:
        read = read_wav(tmp_path / "hall.wav", features, interval_s=0.0005)
        assert read.times[1] == pytest.approx(4 / rate)
        return
    found = rf"expected 8000 samples a second \(frames of 4 every 0.0005 s\), found {rate:,}"
    with pytest.raises(EdgeLstmError, match=found):
        read_wav(tmp_path / "hall.wav", features, interval_s=0.0005)


def test_simulate_says_that_a_wav_is_no_table(tmp_path: Path) -> None:
    write_wav(tmp_path / "hall.wav", 8000)
    result = CliRunner().invoke(main, ["simulate", str(tmp_path / "hall.wav"), "--to", "mqtt://127.0.0.1:1"])
    assert result.exit_code == 1
    assert "found a WAV or AVI file" in result.stderr


def test_replay_warns_of_another_pace(tmp_path: Path) -> None:
    rows = "".join(f"{1_700_000_000 + 7 * at},4.0,12.0\n" for at in range(20))
    (tmp_path / "pumps.csv").write_text("time,pressure,flow\n" + rows)
    result = CliRunner().invoke(main, ["replay", str(PUMP), str(tmp_path / "pumps.csv")])
    assert result.exit_code == 0, result.output
    assert "expected a reading every 60 s (interval_s), found one every 7 s" in result.stderr
