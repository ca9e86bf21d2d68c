"""The self-test: steps a bundle's golden vectors on a backend, and refuses the backend if the results differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edge_lstm.backends.calibrated import CalibratedBackend
from edge_lstm.backends.protocol import ONE_THREAD, Backend, ExecutionOptions
from edge_lstm.backends.registry import format_of, load
from edge_lstm.backends.row_by_row import RowByRow
from edge_lstm.bundle.archive import Bundle, Variant
from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.golden import GoldenVectors, read_golden_vectors
from edge_lstm.foundation.arrays import Doubles, Floats, Integers
from edge_lstm.foundation.errors import BackendError

_MAX_SMALLEST_BATCH = 8
_STREAMS = 33  # that differ, in the search for the smallest batch
_ISOLATION_STEPS = 12  # of each of them
# Sizes around powers of two, where kernels change: the backends of TFLite have an interpreter for each power. First a
# size that shows most couplings, so that a wrong guess costs little.
_BATCHES = (33, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 63, 64, 65, 127, 128, 129, 255, 256, 257)
_MOST_PARTS = 4  # batches of one size: in smaller ones, only some of the streams
_MOST_NUMBERS = 2**22  # of a batch: larger ones take too much memory with a model of very many states
# Relative difference of float32 kernels, as a share of an output's magnitude. It does not count as drift.
_FLOAT32_RESOLUTION = 1e-5


@dataclass(frozen=True)
class Verdict:
    """The result of the self-test of one variant on one backend."""

    backend: str
    scheme: str
    steps: int
    error: float  # the largest relative difference from the scheme's own golden vectors, states included
    parity: float  # its limit
    drift: float  # RMS difference from the float32 golden vectors over their standard deviation, worst output
    drift_limit: float  # its limit for that output: the bundle's, or what float32 resolves if that is more
    first_step: int | None  # the first step (from 1) whose prediction differs by more than `parity`
    smallest_batch: int | None  # rows agree bit for bit from this batch size on; None: not even one at a time
    one_by_one: bool  # whether rows are stepped one at a time, since they agree in no batch

    @property
    def passed(self) -> bool:
        return self.error <= self.parity and self.drift <= self.drift_limit and self.smallest_batch is not None

    @property
    def finding(self) -> str:
        """The result in one line."""
        if self.passed:
            rows = ", rows one at a time" if self.one_by_one else ""
            return (
                f"parity {self.error:.1e} <= {self.parity:.0e}, drift {self.drift:.4f} <= {self.drift_limit:.3g}{rows}"
            )
        if self.smallest_batch is None:
            return "a stream's bits depend on what was stepped before it, even with rows one at a time"
        if not self.error <= self.parity:
            step = f", first at step {self.first_step}" if self.first_step else ""
            found = f"relative difference {self.error:.1e} from the golden vectors{step}"
            return f"{found}, over the limit of {self.parity:.0e}"
        return f"drift {self.drift:.3g} from float32, over the limit of {self.drift_limit:.3g}"


class SelfTestError(BackendError):
    """The backend does not reproduce the bundle's golden vectors. Starting it again does not help.

    The command line ends with exit code 65. systemd shows it as DATAERR, and the unit does not restart after it.
    """

    exit_code = 65

    def __init__(self, message: str, hint: str, verdict: Verdict) -> None:
        super().__init__(message, hint)
        self.verdict = verdict

    def __reduce__(self) -> tuple[type[SelfTestError], tuple[str, str, Verdict]]:
        """For a pool of processes, which pickles the error of a worker."""
        return SelfTestError, (self.message, self.hint, self.verdict)


def initial_states(contract: Contract, batch: int) -> list[Floats]:
    """The start states of `batch` streams, (batch, *shape) each."""
    return [np.repeat(state.initial[None], batch, axis=0) for state in contract.states]


def replay_tape(
    backend: Backend, contract: Contract, tape: Floats, marks: Integers, batch: int = 1
) -> tuple[Floats, list[Floats]]:
    """Step one stream over `tape` (steps, inputs), as the first row of a batch whose other inputs are zero.

    Returns predictions (steps, outputs) and, per state tensor, the states after the steps `marks` (marks, *shape).
    """
    wanted = set(marks.tolist())
    states = initial_states(contract, batch)
    predictions, kept = [], []
    features = np.zeros((batch, tape.shape[1]), np.float32)
    for step, row in enumerate(tape, 1):
        features[0] = row
        prediction, states = backend.step(features, states)
        predictions.append(prediction[0].copy())
        if step in wanted:
            kept.append([state[0].copy() for state in states])
    return np.stack(predictions), [np.stack(column) for column in zip(*kept, strict=True)]


def relative_error(found: Floats, expected: Floats) -> float:
    """The largest difference over the largest expected magnitude, of the worst column; NaN if `found` has a NaN.

    Both (steps, ...). It is relative to the magnitude and not to the spread, since float32 resolves the magnitude.
    """
    width = int(np.prod(expected.shape[1:]))
    found, expected = found.reshape(-1, width), expected.reshape(-1, width)
    return float((np.abs(found - expected).max(axis=0) / _magnitude(expected)).max())


def _magnitude(expected: Floats) -> Floats:
    """The largest magnitude of each column, at least 1e-12. (steps, columns) -> (columns,)"""
    largest: Floats = np.maximum(np.abs(expected).max(axis=0), np.float32(1e-12))
    return largest


def drift(found: Floats, expected: Floats) -> float:
    """RMSE over the standard deviation of `expected`, of the worst output. Both (steps, outputs)."""
    return float(_drifts(found, expected).max())


def _drifts(found: Floats, expected: Floats) -> Doubles:
    """RMSE over the standard deviation of `expected`, of each output. (outputs,)"""
    error = np.sqrt(((found.astype(np.float64) - expected) ** 2).mean(axis=0))
    ratios: Doubles = error / _spread(expected)
    return ratios


def _spread(expected: Floats) -> Doubles:
    """The standard deviation of each column, at least 1e-12. (steps, columns) -> (columns,)"""
    spread: Doubles = np.maximum(expected.astype(np.float64).std(axis=0), 1e-12)
    return spread


def _worst_drift(found: Floats, expected: Floats, limit: float) -> tuple[float, float]:
    """(drift, its limit) of the output that is nearest to its limit. Both (steps, outputs).

    An output can vary by a small part of its magnitude, like an air pressure in pascals. One float32 digit of it is
    then a large part of a standard deviation, and the limit is what float32 resolves.
    """
    drifts = _drifts(found, expected)
    limits = np.maximum(limit, _FLOAT32_RESOLUTION * _magnitude(expected).astype(np.float64) / _spread(expected))
    worst = int(np.argmax(drifts / np.maximum(limits, 1e-300)))
    return float(drifts[worst]), float(limits[worst])


def smallest_isolated_batch(backend: Backend, contract: Contract, tape: Floats) -> int | None:
    """The smallest batch size from which a row has the same bits in every larger batch and at every position.

    Most kernels compute one row in another way than several (FULLY_CONNECTED as a vector product, for example). None:
    no size up to 8 has this property, and the bits of a stream depend on the other rows (see `isolate_rows`).
    """
    streams = _different_streams(tape)
    for smallest in range(1, _MAX_SMALLEST_BATCH + 1):
        if _isolated_from(backend, contract, streams, smallest, _BATCHES):
            return smallest
    return None


def isolate_rows(backend: Backend, contract: Contract, tape: Floats) -> tuple[Backend, int | None]:
    """A backend whose streams do not influence each other, and its smallest isolated batch.

    It is `backend` itself, or `RowByRow(backend)` if it has no such batch. The batch is None if a stream's bits change
    even then: the backend keeps something from one step to the next.
    """
    if (smallest := smallest_isolated_batch(backend, contract, tape)) is not None:
        return backend, smallest
    backend = RowByRow(backend)
    alone = _isolated_from(backend, contract, _different_streams(tape), 1, (2, _STREAMS))
    return backend, 1 if alone else None


def _different_streams(tape: Floats) -> Floats:
    """Parts of the tape (steps, inputs) as streams that differ, some of them with spikes: (steps, streams, inputs).

    Copies of one stream would not do: two kernels round some rows alike and others not.
    """
    starts = np.arange(_STREAMS) * max(len(tape) // _STREAMS, 1)
    streams: Floats = tape[(np.arange(_ISOLATION_STEPS)[:, None] + starts) % len(tape)].astype(np.float32)
    streams[:, 3::8] *= np.float32(10)
    return streams


def _isolated_from(
    backend: Backend, contract: Contract, streams: Floats, smallest: int, batches: Sequence[int]
) -> bool:
    """Whether each of `streams` (steps, streams, inputs) has the bits of its lone self in batches of these sizes."""
    lone = np.concatenate(
        [_trace(backend, contract, streams[:, [one]], smallest) for one in range(streams.shape[1])], axis=1
    )
    for batch in batches:
        if batch < smallest or (batch > _STREAMS and batch * lone.shape[2] > _MOST_NUMBERS):
            continue
        for first in range(0, _STREAMS, batch)[:_MOST_PARTS]:  # one batch has not all streams if it is small
            rows = (first + np.arange(batch)) % _STREAMS
            traced = _trace(backend, contract, streams[:, rows], batch)
            if (traced.view(np.uint32) != lone[:, rows].view(np.uint32)).any():
                return False
    return True


def _trace(backend: Backend, contract: Contract, streams: Floats, batch: int) -> Floats:
    """The outputs and states of `streams` (steps, rows, inputs) at every step, in a batch filled up with zeros.

    Returns (steps, rows, numbers).
    """
    steps, rows, inputs = streams.shape
    states = initial_states(contract, batch)
    features = np.zeros((batch, inputs), np.float32)
    traced = []
    for step in range(steps):
        features[:rows] = streams[step]
        prediction, states = backend.step(features, states)
        traced.append(np.hstack([array[:rows].reshape(rows, -1) for array in (prediction, *states)]))
    return np.stack(traced)


class Isolation(NamedTuple):
    """What the search of `isolate_rows` found: a batch size, and whether rows are stepped one at a time."""

    smallest_batch: int
    one_by_one: bool


def run_self_test(
    backend: Backend, contract: Contract, golden: GoldenVectors, variant: Variant, known: Isolation | None = None
) -> tuple[Backend, Verdict]:
    """Step the golden vectors of the variant's scheme on the backend, and compare with the variant's tolerances.

    Returns the backend to use, which steps rows one at a time if necessary (see `isolate_rows`), and its verdict.
    `known`: what an earlier search found with this bundle, backend and processor.
    """
    # without the warnings about calibration: the spikes of this test are no sensor values
    watched = backend.watched if isinstance(backend, CalibratedBackend) else backend
    smallest: int | None
    if known is None:
        tried, smallest = isolate_rows(watched, contract, golden.features)
    else:
        tried, smallest = RowByRow(watched) if known.one_by_one else watched, known.smallest_batch
    expected = golden.expected[variant.scheme]
    prediction, states = replay_tape(tried, contract, golden.features, golden.marks, smallest or 1)
    pairs = [(prediction, expected.prediction), *zip(states, expected.states, strict=True)]
    errors = [relative_error(found, wanted) for found, wanted in pairs]
    error = float(np.max(errors))  # a NaN stays NaN, which is within no limit
    step_errors = np.abs(prediction - expected.prediction) / _magnitude(expected.prediction)
    drift_found, drift_limit = _worst_drift(prediction, golden.expected["float32"].prediction, variant.drift)
    over = np.flatnonzero(~(step_errors <= variant.parity).all(axis=1))
    verdict = Verdict(
        backend.name,
        variant.scheme,
        len(prediction),
        error,
        variant.parity,
        drift_found,
        drift_limit,
        int(over[0]) + 1 if over.size else None,
        smallest,
        isinstance(tried, RowByRow),
    )
    return backend if tried is watched else RowByRow(backend), verdict


def verify(bundle: Bundle, runs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """A verdict for each (backend, scheme). Raises BackendError if one of them cannot be loaded."""
    golden = read_golden_vectors(bundle)
    return [
        run_self_test(load(bundle, name, scheme), bundle.contract, golden, bundle.variant(format_of(name), scheme))[1]
        for name, scheme in runs
    ]


def load_verified(
    bundle: Bundle, name: str, scheme: str, execution: ExecutionOptions = ONE_THREAD, known: Isolation | None = None
) -> tuple[Backend, int]:
    """The backend after its self-test, and its smallest isolated batch; see `isolate_rows` and `run_self_test`.

    Raises SelfTestError if the backend fails the self-test.
    """
    loaded = load(bundle, name, scheme, execution)
    variant = bundle.variant(format_of(name), scheme)
    backend, verdict = run_self_test(loaded, bundle.contract, read_golden_vectors(bundle), variant, known)
    return backend, required_isolation(bundle, verdict).smallest_batch


def required_isolation(bundle: Bundle, verdict: Verdict) -> Isolation:
    """What the verdict found about batches. Raises SelfTestError if it is a failure."""
    if not verdict.passed or verdict.smallest_batch is None:
        raise SelfTestError(
            f"{bundle.source}: expected {verdict.backend} {verdict.scheme} to give the golden vectors, "
            f"found {verdict.finding}",
            "use another backend, or another version of this one; edge-lstm verify tries all that are installed",
            verdict,
        )
    return Isolation(verdict.smallest_batch, verdict.one_by_one)
