"""Measures one backend with one scheme in a child process: load time, golden vectors, step times, memory, energy.

It times the predictor's own step: gather the states of the streams, step the backend, scatter the states. `bench`
runs this module as a child process (see `edge_lstm.foundation.child_process`).
"""

from __future__ import annotations

import gc
import importlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.backends.protocol import ExecutionOptions
from edge_lstm.backends.registry import format_of, imported, load
from edge_lstm.backends.selftest import run_self_test
from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.golden import read_golden_vectors
from edge_lstm.foundation.arrays import Floats, Integers
from edge_lstm.foundation.child_process import answer, question, refuse
from edge_lstm.foundation.confinement import confine
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.hardware.machine import run_on
from edge_lstm.hardware.power import Rail, power_w, rails
from edge_lstm.streaming.predictor import Predictor

BATCHES = (1, 8, 64, 256)
_WARM_UP_STEPS = 30
_MOST_STEPS = 20_000
_CPU_S = 3600  # the wall clock ends a measurement earlier
_POWER_EVERY_S = 0.05
_POWER_FOR_S = 1.5  # an INA3221 averages over some 10 ms


@dataclass(frozen=True)
class StepTiming:
    """Time of a step with `batch` streams."""

    batch: int
    p50_us: float
    p99_us: float
    steps_per_s: float  # steps of one stream: batch / median time


@dataclass(frozen=True)
class Energy:
    """Energy of a step of one stream, measured by the board's power rails."""

    rails: list[str]
    idle_w: float
    busy_w: float
    step_uj: float  # above idle


@dataclass(frozen=True)
class Measurement:
    """One backend × scheme."""

    backend: str
    scheme: str
    passed: bool  # its golden vectors
    finding: str
    drift: float
    load_ms: float  # import of the backend's package, and loading of the model
    rss_mb: float  # peak memory of the process, with the modules of the service
    paces: list[StepTiming]
    energy: Energy | None
    one_by_one: bool = False  # a batch was stepped row by row, because its rows depend on each other

    def pace(self, batch: int) -> StepTiming:
        return next(pace for pace in self.paces if pace.batch == batch)


def measure(
    bundle: Bundle, name: str, scheme: str, execution: ExecutionOptions, seconds: float, root: Path
) -> Measurement:
    """Measure each batch size for `seconds`. `root` holds sys/, where the power rails are.

    Raises EdgeLstmError where the backend cannot load the variant.
    """
    begun = time.perf_counter()
    backend = load(bundle, name, scheme, execution)
    load_ms = 1000 * (time.perf_counter() - begun)
    golden = read_golden_vectors(bundle)
    backend, verdict = run_self_test(backend, bundle.contract, golden, bundle.variant(format_of(name), scheme))
    predictor = Predictor(bundle.contract, backend, verdict.smallest_batch or 1)
    importlib.import_module("edge_lstm.service.service")  # so that the memory is that of a service
    slots = np.array([predictor.table.slot(f"stream-{number}") for number in range(max(BATCHES))])
    paces = [_timing(predictor, slots[:batch], golden.features, seconds) for batch in BATCHES]
    energy = _energy(predictor, slots[:1], golden.features, rails(root)) if verdict.passed else None
    found = verdict.passed, verdict.finding, verdict.drift
    return Measurement(name, scheme, *found, load_ms, _peak_rss_mb(), paces, energy, verdict.one_by_one)


def _timing(predictor: Predictor, slots: Integers, tape: Floats, seconds: float) -> StepTiming:
    """Time steps of the streams `slots` over `tape` (steps, inputs); each stream is at another step of it."""
    batch = len(slots)
    rows = [np.ascontiguousarray(np.take(tape, np.arange(batch) + step, 0, mode="wrap")) for step in range(len(tape))]
    for step in range(_WARM_UP_STEPS):
        predictor.step_rows(slots, rows[step % len(rows)])
    took_ns: list[int] = []
    gc.collect()
    deadline = time.perf_counter_ns() + int(seconds * 1e9)
    after = 0
    while after < deadline and len(took_ns) < _MOST_STEPS:
        before = time.perf_counter_ns()
        predictor.step_rows(slots, rows[len(took_ns) % len(rows)])
        after = time.perf_counter_ns()
        took_ns.append(after - before)
    p50, p99 = np.percentile(np.array(took_ns), [50, 99]).tolist()
    return StepTiming(batch, p50 / 1000, p99 / 1000, batch * 1e9 / p50)


def _energy(predictor: Predictor, slots: Integers, tape: Floats, measured: list[Rail]) -> Energy | None:
    """The energy of a step: power while one stream steps without a pause, minus power at rest."""
    if not measured:
        return None
    idle, _ = _power_while(lambda _: time.sleep(_POWER_EVERY_S / 10), measured)
    busy, steps_per_s = _power_while(lambda step: predictor.step_rows(slots, tape[step % len(tape)][None]), measured)
    if idle is None or busy is None:
        return None
    return Energy([rail.name for rail in measured], idle, busy, 1e6 * max(busy - idle, 0.0) / steps_per_s)


def _power_while(work: Any, measured: list[Rail]) -> tuple[float | None, float]:
    """(mean power in watts, calls per second) while `work(n)` is called in a loop; None where a rail has no value."""
    watts: list[float | None] = []
    begun = time.perf_counter()
    calls, next_at = 0, begun + _POWER_EVERY_S  # the first value is read after some work
    while (now := time.perf_counter()) < begun + _POWER_FOR_S:
        work(calls)
        calls += 1
        if now >= next_at:
            watts.append(power_w(measured))
            next_at = now + _POWER_EVERY_S
    known = [one for one in watts if one is not None]
    mean = sum(known) / len(known) if known and len(known) == len(watts) else None
    return mean, calls / (time.perf_counter() - begun)


def _peak_rss_mb() -> float:
    """Peak memory of this process. getrusage would include the peak of the parent, of which a child is a copy."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise EdgeLstmError("expected VmHWM in /proc/self/status, found none", "measure on Linux")


def main() -> None:
    """Answer one request of bench."""
    asked = question()
    try:
        if asked["cores"] is not None:
            run_on(asked["cores"])
        bundle = Bundle.open(asked["bundle"])
        execution = ExecutionOptions(asked["threads"])
        imported(asked["backend"])
        importlib.import_module("edge_lstm.service.service")
        confine(cpu_s=_CPU_S, data_bytes=None, drop_root=False)  # root may be the only one who reads the power rails
        measurement = measure(
            bundle, asked["backend"], asked["scheme"], execution, asked["seconds"], Path(asked["root"])
        )
    except EdgeLstmError as error:
        refuse(error)
    else:
        answer(asdict(measurement))


if __name__ == "__main__":
    main()
