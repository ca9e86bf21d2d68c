"""Reads a WAV file as a recording: every reading is a frame of samples, one per feature; for audio models."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.pace import MOST_OFF
from edge_lstm.recordings.recording import Recording

_FULL_SCALE = 32_768.0


def read_wav(
    path: Path, features: Sequence[str], stream: str | None = None, interval_s: float | None = None
) -> Recording:
    """The 16-bit mono PCM in `path`, in frames of len(features) samples from -1 to 1; times start at 0.

    `interval_s`: from frame to frame, as the model was made for; None: unknown. An incomplete last frame is left out.
    Raises EdgeLstmError where the file has another format or sample rate, or is too short.
    """
    try:
        with wave.open(str(path), "rb") as sound:
            channels, width, rate = sound.getnchannels(), sound.getsampwidth(), sound.getframerate()
            content = sound.readframes(sound.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise EdgeLstmError(f"expected a WAV file at {path}, found: {error}", "name a PCM WAV file") from None
    if (channels, width) != (1, 2):
        raise EdgeLstmError(
            f"{path}: expected 16-bit mono PCM, found {8 * width}-bit with {channels} channels", "convert it first"
        )
    _refuse_other_rate(path, rate, len(features), interval_s)
    samples = np.frombuffer(content[: len(content) // 2 * 2], "<i2") / _FULL_SCALE
    frames = len(samples) // len(features)
    if not frames:
        raise EdgeLstmError(
            f"{path}: expected at least {len(features)} samples, found {len(samples)}", "name a longer file"
        )
    values = samples[: frames * len(features)].reshape(frames, len(features))
    times = np.arange(frames) * len(features) / rate
    return Recording(
        str(path), list(features), [stream or path.stem], np.zeros(frames, np.int64), times, values.astype(np.float64)
    )


def _refuse_other_rate(path: Path, rate: int, width: int, interval_s: float | None) -> None:
    """Refuse a sample rate at which a frame takes another time than a step of the model."""
    if rate <= 0:
        raise EdgeLstmError(f"{path}: expected a sample rate above 0, found {rate}", "name a PCM WAV file")
    if interval_s is None or abs(width / rate / interval_s - 1) <= MOST_OFF:
        return
    expected = width / interval_s
    raise EdgeLstmError(
        f"{path}: expected {expected:g} samples a second (frames of {width} every {interval_s:g} s), found {rate:,}",
        f"convert it first, for example: sox {path.name} -r {expected:.0f} converted.wav",
    )
