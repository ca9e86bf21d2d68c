"""Prints how long a large CSV file takes until training begins, and how much memory, phase by phase.

    python benchmarks/reading.py [--rows 10000000] [--streams 10] [--file BIG.csv]

It writes a file of 50 bytes a row (500 MB at ten million rows) with a column of streams and three values, unless one of
that name exists. Each phase shows its time, the processor's time, and the largest memory of the process until its end.
The evaluation after the training streams each reading through the runtime's predictor. Its processor time is that of
200,000 readings.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

RECIPE = """name = "reading"
[recording]
path = "{path}"
time = "time"
stream_column = "machine"
[features.temperature]
[features.vibration]
[features.current]
[sampling]
interval_s = 5
[forecast]
targets = ["temperature"]
horizons = [1, 12]
[fit]
updates = 200
"""
BLOCK = 20_000  # rows
EVALUATED = 200_000  # readings


def write_recording(path: Path, rows: int, streams: int) -> None:
    """Three noisy daily waves a stream, one reading every five seconds, one stream after the other."""
    random = np.random.default_rng(1)
    with path.open("w") as file:
        file.write("time,machine,temperature,vibration,current\n")
        for stream in range(streams):
            for begin in range(0, rows // streams, BLOCK):
                at = np.arange(begin, min(begin + BLOCK, rows // streams))
                moments = np.datetime64("2024-01-01T00:00:00") + 5 * at.astype("timedelta64[s]")
                texts = np.datetime_as_string(moments, timezone="UTC").tolist()
                turn = 2 * np.pi * at / 17_280
                noise = random.normal(0, 0.1, (3, len(at)))
                values = np.stack([20 + 5 * np.sin(turn), 2 + np.cos(3 * turn), 4 + np.sin(turn + 1)]) + noise
                lines = zip(texts, *values.tolist(), strict=True)
                file.writelines(f"{text},m{stream:02d},{a:.5f},{b:.5f},{c:.5f}\n" for text, a, b, c in lines)


class Phases:
    """Prints a line for each phase."""

    def __init__(self) -> None:
        self.begun, self.used = time.perf_counter(), time.process_time()
        print(f"{'phase':28}{'time':>9}{'processor':>11}{'memory so far':>16}")

    def __call__(self, name: str) -> None:
        now, used = time.perf_counter(), time.process_time()
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{name:28}{now - self.begun:7.1f} s{used - self.used:9.1f} s{megabytes:13,.0f} MB", flush=True)
        self.begun, self.used = now, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--file", type=Path)
    options = parser.parse_args()
    path = options.file or Path(tempfile.gettempdir()) / f"edge-lstm-{options.rows}-{options.streams}.csv"
    if not path.exists():
        write_recording(path, options.rows, options.streams)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "pyarrow", "torch"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")
    print(f"{path.stat().st_size / 1e6:.0f} MB, {options.rows:,} rows, {options.streams} streams")
    phases = Phases()
    from edge_lstm.recordings.recording import read_recording
    from edge_lstm_train.data.dataset import dataset_of
    from edge_lstm_train.evaluation.baselines import fit_baselines
    from edge_lstm_train.evaluation.predictions import predict
    from edge_lstm_train.model.fit import fit
    from edge_lstm_train.recipe.recipe import read_recipe

    phases("loading packages")
    with tempfile.TemporaryDirectory() as folder:
        recipe_path = Path(folder) / "reading.toml"
        recipe_path.write_text(RECIPE.format(path=path.resolve()))
        recipe = read_recipe(recipe_path)
    recording = read_recording(recipe.recording.path, recipe.columns)
    phases("reading")
    dataset = dataset_of(recipe, recording)
    phases("samples and inputs")
    baselines = fit_baselines(dataset)
    phases("baselines")
    fitted = fit(recipe, dataset, baselines.residual)
    phases("200 updates, 9 validations")
    begun = time.process_time()
    predict(dataset.contract, fitted.model.network(), recording.rows(slice(0, EVALUATED)))
    rate = min(EVALUATED, len(recording)) / (time.process_time() - begun)
    print(f"evaluation: {rate:,.0f} readings/s of processor time, {len(recording) / rate:,.0f} s for all of them")


if __name__ == "__main__":
    main()
