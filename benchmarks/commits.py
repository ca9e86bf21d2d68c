"""Bytes that the state database writes for each reading, and the CPU time of commits.

    python benchmarks/commits.py [--readings 20000]

A service commits as many readings at once as have arrived. A commit of one reading writes whole pages. Checkpoints and
the compaction of the history are part of the figures. They are counts of bytes that the process writes, so they are
the same on every machine and every disk; times are not.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from edge_lstm.service.database.store import Store
from edge_lstm.streaming.reading import Reading

_CASES = ((1, 1), (100, 1), (100, 100), (5000, 100))  # streams, readings a commit
_ROW = 1304  # bytes of a stream's row: 2 features, 2 layers of 32, a trail of 16 samples
_PAYLOAD = b"p" * 150
_HISTORY = 10_000  # readings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readings", type=int, default=20_000)
    readings = parser.parse_args().readings
    for streams, at_once in _CASES:
        with tempfile.TemporaryDirectory() as folder:
            written, commit_us, compaction_us = measure(Path(folder), streams, at_once, readings)
        print(
            f"{streams:>5} streams, {at_once:>3} readings a commit: {written / 1000:6.2f} kB, "
            f"{commit_us:5.1f} µs, and {compaction_us:4.1f} µs when idle",
            flush=True,
        )


def measure(folder: Path, streams: int, at_once: int, readings: int) -> tuple[float, float, float]:
    """Per reading: bytes, microseconds of commits, and of the work that a service does when it is idle."""
    store = Store(folder / "state.db", "bundle", "current.time <f8\n", _HISTORY, sync="normal")
    committed = compacted = 0.0
    before = _written()
    for batch, part in enumerate(_batches(streams, at_once, readings), 1):
        rows = [(one.stream, os.urandom(_ROW)) for one in part]  # SQLite does not write a row that is the same
        outbox = [(f"out/{one.stream}", _PAYLOAD) for one in part]
        values = {"newest_arrival": str(1_767_225_600_000_000 + batch)}
        begun = time.process_time()
        store.commit(batch, rows, outbox, batch - 1, [], 0, part, values)
        done = time.process_time()
        store.compact_history()
        committed += done - begun
        compacted += time.process_time() - done
    store.close(batch)
    return (_written() - before) / readings, 1e6 * committed / readings, 1e6 * compacted / readings


def _batches(streams: int, at_once: int, readings: int) -> Iterator[list[Reading]]:
    """Readings of different streams, as a payload in JSON has them."""
    order = random.Random(1)
    for batch in range(readings // at_once):
        chosen = order.sample(range(streams), at_once)
        yield [Reading(f"pump-{one}", 1.7e9 + 60 * batch, {"pressure": 4.217, "flow": 12.84}) for one in chosen]


def _written() -> int:
    """Bytes that this process has given to write calls."""
    (line,) = [one for one in Path("/proc/self/io").read_text().splitlines() if one.startswith("wchar")]
    return int(line.split()[1])


if __name__ == "__main__":
    main()
