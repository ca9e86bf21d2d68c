"""Readings to predictions, with the state of each stream carried between readings. No input or output of its own."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from edge_lstm.backends.protocol import ONE_THREAD, Backend, ExecutionOptions
from edge_lstm.backends.registry import preferred
from edge_lstm.backends.selftest import load_verified
from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.decider import decider
from edge_lstm.foundation.arrays import Floats, Slots
from edge_lstm.streaming.bounds import squares_below
from edge_lstm.streaming.features import Features
from edge_lstm.streaming.reading import Prediction, Reading
from edge_lstm.streaming.sampling import Round, Sampler
from edge_lstm.streaming.step_results import Steps, in_reading_order
from edge_lstm.streaming.stream_table import FetchRow, StreamTable, rows_of

log = logging.getLogger(__name__)


_LARGEST_BATCH = 1024  # rows per backend step; a larger round is stepped in parts
_REPORT_RUNAWAY_EVERY = 100  # steps of a stream
_MAX_REPORTED = 4096  # streams
_RUNAWAY_BOUND = 1e6  # a hidden state is within 1, a cell state grows by at most 1 a step


class Predictor:
    """Steps the stream of each reading exactly once, many streams in one batch.

    A round has at most one reading of a stream; further readings of the stream go into the next rounds. A stream gets
    the same bits alone and in any batch.

    A reading that is older than the last one of its stream is inserted at its time: the stream returns to a snapshot
    before it and steps again from there. Every prediction that changes is returned again with a higher revision. A
    reading that is older than the trail, or was seen before, is dropped and counted.
    """

    def __init__(
        self,
        contract: Contract,
        backend: Backend,
        smallest_batch: int = 1,
        *,
        max_rewind: int = 0,
        window: int = 0,
        fetch: FetchRow = lambda stream: None,
    ) -> None:
        """`smallest_batch`: the backend's rows agree bit for bit from this batch size on (the self-test finds it).

        `max_rewind`: how many samples a late reading may lie back (0: none); `window`: how many of a device's own
        sequence numbers are remembered a stream; `fetch`: a stream's row from a store, or None.
        """
        self.contract = contract
        self.backend = backend
        self.table = StreamTable(contract, max_rewind, window, fetch)
        self.counts: Counter[str] = Counter(samples=0, duplicate=0, late=0, rewound=0, runaway=0)
        self._max_rewind = max_rewind
        self._sampler = Sampler(contract, self.table)
        self._features = Features(contract)
        self._decider = decider(contract)
        self._outputs = [(name, contract.horizons) for name in contract.output_names]
        self._smallest_batch = smallest_batch
        self._round = 0
        self._reported_at: dict[str, int] = {}  # step of a stream when its runaway was last logged

    @staticmethod
    def of(
        bundle: Bundle,
        backend: str | None = None,
        scheme: str | None = None,
        *,
        execution: ExecutionOptions = ONE_THREAD,
        max_rewind: int = 0,
        window: int = 0,
        fetch: FetchRow = lambda stream: None,
    ) -> Predictor:
        """A predictor for the bundle, after its self-test on the backend.

        `execution`: what the backend may use; without it one thread of the CPU.
        Without `backend`: the first installed of litert, onnx, tflite-runtime, numpy; without `scheme`: int8 where the
        bundle has it. Raises EdgeLstmError where the backend is not here or fails the self-test.
        """
        loaded, smallest_batch = load_verified(bundle, *preferred(bundle, backend, scheme), execution)
        return Predictor(bundle.contract, loaded, smallest_batch, max_rewind=max_rewind, window=window, fetch=fetch)

    @property
    def totals(self) -> dict[str, int]:
        """Counts of samples, and of duplicate, late, rewound, runaway, gaps and missing."""
        found = Counter(self.counts)
        found.update(self._sampler.totals)  # adds counts of the same name
        return dict(found)

    def feed(self, readings: Iterable[Reading]) -> list[Prediction]:
        """Step the readings' streams; predictions in the order of the readings that caused them."""
        steps = self.feed_columns(readings)
        return [] if steps is None else steps.predictions()

    def feed_columns(self, readings: Iterable[Reading]) -> Steps | None:
        """`feed` as columns, which takes half the time; None where nothing stepped."""
        rounds = list(self.steps(readings))
        return in_reading_order(rounds) if rounds else None

    def steps(self, readings: Iterable[Reading]) -> Iterator[Steps]:
        """The steps of the readings' streams, round by round."""
        for one in self._sampler.rounds(readings):
            self._round += 1
            self.table.used[one.rows] = self._round
            behind = self._sampler.late_or_repeated(one)
            if not np.count_nonzero(behind):
                yield from self._step_round(one)
                continue
            yield from self._step_round(one.part(~behind))
            for index in np.flatnonzero(behind).tolist():
                chosen = np.zeros(len(behind), np.bool_)
                chosen[index] = True
                yield from self._step_late(one.part(chosen))

    def _step_late(self, one: Round) -> Iterator[Steps]:
        """A round of one sample that is late or repeated: insert it at its time, or drop it."""
        table, slot, time = self.table, int(one.slots[0]), one.times[0]
        trail = table.trail[slot, : table.trail_length[slot]]
        if one.ids[0]:
            known = bool((trail["id"] == one.ids[0]).any() or (table.seen[slot] == one.ids[0]).any())
        else:
            known = bool((trail["time"] == time).any() or time == table.current["time"][slot])
        if known:
            self.counts["duplicate"] += 1
            return
        position = int(np.searchsorted(trail["time"], time, side="right"))
        # the place of a sample before the whole trail is unknown
        before_all = position == 0 and not np.isnan(table.snapshot_old["time"][slot])
        if not len(trail) or before_all or len(trail) - position > self._max_rewind:
            self.counts["late"] += 1
            return
        self.counts["rewound"] += 1
        again = table.rewind(slot, position)
        position -= len(trail) - len(again)
        for sample in again[:position]:
            for _ in self._step_round(_round_of(one, sample, 0)):
                pass  # these predictions do not change
        yield from self._step_round(one)
        for sample in again[position:]:
            yield from self._step_round(_round_of(one, sample, 1))

    def _step_round(self, one: Round) -> Iterator[Steps]:
        """Step each stream of the round once; every sample is newer than the last one of its stream."""
        if len(one.slots) > _LARGEST_BATCH:
            places = np.arange(len(one.slots))
            for start in range(0, len(places), _LARGEST_BATCH):
                yield from self._step_round(one.part((places >= start) & (places < start + _LARGEST_BATCH)))
            return
        if not len(one.slots):
            return
        table, slots, rows = self.table, one.slots, one.rows
        table.remember(slots, one.times, one.ids, one.given, one.revisions)
        samples = self._sampler.complete(one)
        current = table.current
        values = self._features.conditioned(samples.values)
        features = self._features.vectors(current, slots, one.times, samples.since, values, samples.missing)
        raw, following = self._step(rows, features)  # (n, outputs)
        bounded = _surely_bounded(raw, following)
        if not bounded:
            raw = self._restart_runaway(slots, features, raw)
        counts = current["step"][rows] + 1, current["warm_steps"][rows] + 1
        current["step"][rows], current["warm_steps"][rows] = counts
        decisions = self._decider(current, table.calibration, slots, values, samples.missing, raw)
        self.counts["samples"] += len(slots)
        streams = [table.name(slot) for slot in slots.tolist()]
        steps = Steps(self._outputs, one.order, streams, one.times, *counts, one.revisions, decisions)
        yield steps if bounded else steps.at(np.flatnonzero(np.isfinite(raw).all(axis=1)).tolist())

    def step_rows(self, slots: Slots, features: Floats) -> Floats:
        """Gather the states of `slots` (batch,), step `features` (batch, inputs), scatter the states; the outputs."""
        return self._step(rows_of(slots), features)[0]

    def _step(self, rows: Slots | slice, features: Floats) -> tuple[Floats, list[Floats]]:
        """`step_rows`; also returns the states from the backend, with the padding rows."""
        count = len(features)
        columns = self.table.states
        states = [column[rows] for column in columns]  # (batch, *shape) each
        padding = self._smallest_batch - count
        if padding > 0:
            features = np.concatenate([features, np.zeros((padding, features.shape[1]), np.float32)])
            states = [np.concatenate([state, np.zeros((padding, *state.shape[1:]), np.float32)]) for state in states]
        prediction, following = self.backend.step(features, states)
        for column, state in zip(columns, following, strict=True):
            column[rows] = state[:count]
        return prediction[:count], following

    def _restart_runaway(self, slots: Slots, features: Floats, raw: Floats) -> Floats:
        """The outputs (n, outputs). A stream whose numbers left all bounds restarts and steps again."""
        bad = ~np.isfinite(raw).all(axis=1)
        for column in self.table.states:
            state = column[slots].reshape(len(slots), -1)
            bad |= ~(np.abs(state) < _RUNAWAY_BOUND).all(axis=1)  # False for NaN
        if not bad.any():
            return raw
        self.counts["runaway"] += int(bad.sum())
        for slot in slots[bad].tolist():
            self._report_runaway(self.table.name(slot), int(self.table.current["step"][slot]))
        self.table.restart(slots[bad])
        raw = raw.copy()
        raw[bad] = self.step_rows(slots[bad], features[bad])
        return raw

    def _report_runaway(self, stream: str, step: int) -> None:
        if abs(step - self._reported_at.get(stream, -_REPORT_RUNAWAY_EVERY)) >= _REPORT_RUNAWAY_EVERY:
            if len(self._reported_at) >= _MAX_REPORTED:
                self._reported_at.clear()
            self._reported_at[stream] = step
            log.error("stream restarts, its state ran away stream=%s", stream)


def _surely_bounded(raw: Floats, states: Sequence[Floats]) -> bool:
    """A cheap check that no state ran away. False: check each stream."""
    bound = _RUNAWAY_BOUND * _RUNAWAY_BOUND / 2
    return squares_below(raw, np.inf) and all(squares_below(state, bound) for state in states)


def _round_of(one: Round, sample: np.void, more: int) -> Round:
    """A round of one sample of the trail, caused by the reading of round `one`; its revision is raised by `more`."""
    return Round(
        one.order,
        one.slots,
        one.rows,
        np.array([sample["time"]]),
        np.array([sample["id"]]),
        sample["given"][None],
        np.array([sample["revision"] + more], np.uint16),
    )
