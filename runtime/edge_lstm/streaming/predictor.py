"""Readings to predictions, with the state of each stream carried between readings. No input or output of its own."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_lstm.backends.protocol import ONE_THREAD, Backend, ExecutionOptions
from edge_lstm.backends.registry import preferred
from edge_lstm.backends.selftest import load_verified
from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.alarms.operator import Operator
from edge_lstm.decisions.angles import PublishedOutputs
from edge_lstm.decisions.decider import decider
from edge_lstm.decisions.degraded import Degraded
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.decisions.sensors.sensor_watch import SensorWatch
from edge_lstm.decisions.step import Step
from edge_lstm.foundation.arguments import described, flag_argument, number_argument, quoted, whole_number
from edge_lstm.foundation.arrays import Floats, Slots
from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import BackendError, EdgeLstmError, ReadingError
from edge_lstm.streaming.bounds import squares_below
from edge_lstm.streaming.features import Features
from edge_lstm.streaming.late_readings import LateReadings
from edge_lstm.streaming.reading import Prediction, Reading
from edge_lstm.streaming.sampling.sampler import Round, Sampler
from edge_lstm.streaming.step_results import Steps, in_reading_order
from edge_lstm.streaming.stream_table import FetchRow, StreamTable, rows_of
from edge_lstm.streaming.stream_watch import StreamWatch

if TYPE_CHECKING:  # a service needs neither, and starts without them
    from edge_lstm.streaming.reading_checks import ReadingChecks
    from edge_lstm.streaming.stream_state import StreamState

log = logging.getLogger(__name__)


_LARGEST_BATCH = 1024  # rows per backend step; a larger round is stepped in parts
_REPORT_RUNAWAY_EVERY = 100  # steps of a stream
_MAX_REPORTED = 4096  # streams
_RUNAWAY_BOUND = 1e6  # a hidden state is within 1, a cell state grows by at most 1 a step
_MAX_NAMED = 20  # streams, in a message
_MOST_KEPT = 1_000_000  # samples or sequences of a stream
_NO_RULES = DecisionRules()


class Predictor:
    """Predicts from readings: each reading makes exactly one step of its stream, and many streams make one batch.

    A round has at most one reading of each stream; more readings of a stream go into the next rounds. The predictions
    of a stream are identical, bit for bit, alone and in any batch.

    A reading that is older than the last one of its stream is late. It is inserted at its time: the stream returns to
    an earlier state and steps again from there. Every prediction that changes is returned again with a higher revision.
    Late readings of one call share the rewind: what a later one of them corrects again is returned once.
    A reading that is more than `max_rewind` samples late, or was received before, is dropped and counted.

    `predict` and `feed` check their readings. `feed_columns` and `steps` are for readings from a decoder or a
    recording: they ignore names that the model does not have.
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
        bundle_id: str = "",
        join_within_s: float | None = None,
        max_steps: int = 0,
        decision_rules: DecisionRules = _NO_RULES,
    ) -> None:
        """`smallest_batch`: the backend's rows agree bit for bit from this batch size on (the self-test finds it).

        `max_rewind`: how many samples a late reading may lie back (0: none); `window`: how many of a device's own
        sequence numbers are remembered a stream; `fetch`: a stream's row from a store, or None; `bundle_id`: what the
        states of streams are named by; `join_within_s`: how many seconds apart the parts of a sample may be, None: half
        of the contract's interval, and not more than 2 s for times that the device gave; `max_steps`: a reading that
        would cause more steps, by the intervals of a grid or a rewind, is dropped as costly; 0: none is;
        `decision_rules`: how decisions go on being calibrated.
        """
        if not isinstance(contract, Contract):
            raise EdgeLstmError(
                f"expected a bundle's contract, found {described(contract)}",
                'open a bundle with Predictor.from_bundle("pump.elstm")',
            )
        max_rewind = whole_number(max_rewind, "max_rewind", 0, _MOST_KEPT, hint="choose how many samples to keep")
        window = whole_number(window, "window", 0, _MOST_KEPT, hint="choose how many sequences to keep")
        max_steps = whole_number(max_steps, "max_steps", 0, _MOST_KEPT, hint="choose 0 for any number of steps")
        if not callable(fetch):
            raise EdgeLstmError(
                f"expected fetch as a function from a stream's name to its row or None, found {described(fetch)}",
                "leave it out where no store keeps rows",
            )
        self.contract = contract
        self.backend = backend
        if join_within_s is not None:
            join_within_s = number_argument(join_within_s, "join_within_s")
        self.table = StreamTable(contract, max_rewind, window, fetch, decision_rules)
        self.counts: Counter[str] = Counter(samples=0, used=0, runaway=0)
        self.watch = StreamWatch(contract.sampling)
        self._max_rewind, self._window, self._fetch, self._bundle_id = max_rewind, window, fetch, bundle_id
        self._checks: ReadingChecks | None = None  # made at the first `feed`; a service uses `feed_columns`
        self._join_within_s, self._max_steps = join_within_s, max_steps
        self._sampler = Sampler(contract, self.table, join_within_s, self.watch, max_steps)
        self._late = LateReadings(
            self.table, self._sampler, self.watch, max_rewind, max_steps, self._step_round, contract.ahead_columns
        )
        self._features = Features(contract)
        self._published = PublishedOutputs(contract)
        self._decision_rules = decision_rules
        self._decider = decider(contract, decision_rules)
        self._degraded = Degraded(contract)
        self._sensors = SensorWatch(contract, decision_rules)
        self._operator = Operator(decision_rules)
        self._outputs = [(name, contract.horizons) for name in contract.output_names]
        self._smallest_batch = smallest_batch
        self._round = 0
        self._reported_at: dict[str, int] = {}  # step of a stream when its runaway was last logged
        self._first_row = b""  # of a stream that never stepped; made when it is needed

    @staticmethod
    def from_bundle(
        bundle: str | Path | Bundle,
        backend: str | None = None,
        scheme: str | None = None,
        *,
        execution: ExecutionOptions = ONE_THREAD,
        max_rewind: int = 0,
        window: int = 0,
        fetch: FetchRow = lambda stream: None,
        join_within_s: float | None = None,
        max_steps: int = 0,
        decision_rules: DecisionRules = _NO_RULES,
    ) -> Predictor:
        """A predictor for the bundle, after its self-test on the backend.

        `bundle`: the path of an .elstm file, or an open Bundle. `backend`: litert, onnx, tflite-runtime or numpy;
        None: the first of these that is installed and runs the scheme. `scheme`: a scheme of the bundle; None: int8 if
        the bundle has it, otherwise its first scheme. `execution`: the threads and providers that the backend may use;
        by default, one thread of the CPU. `max_rewind`: how many samples late a reading may be; 0: every late reading
        is dropped. `window`: how many values of `Reading.sequence` are kept for each stream, to find repeated readings.
        `fetch`: returns the stored row (`StreamState.row`) of a stream that the predictor does not have, or None.
        `join_within_s`: how many seconds apart partial readings of one sample may be; None: half of the bundle's
        interval, and no more than 2 s for times that the device gave. `max_steps`: a reading that would cause more
        steps is dropped; 0: none is. `decision_rules`: how decisions go on being calibrated on the device.

        Raises BundleError if the file is missing, damaged or without that variant. Raises BackendError if the backend
        is not installed or fails the self-test, and EdgeLstmError if another argument is wrong.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        if not isinstance(execution, ExecutionOptions):
            raise BackendError(
                f"expected execution as ExecutionOptions, found {described(execution)}",
                "write ExecutionOptions(threads=2), or leave it out",
            )
        loaded, smallest_batch = load_verified(opened, *preferred(opened, backend, scheme), execution)
        return Predictor(
            opened.contract,
            loaded,
            smallest_batch,
            max_rewind=max_rewind,
            window=window,
            fetch=fetch,
            bundle_id=opened.id,
            join_within_s=join_within_s,
            max_steps=max_steps,
            decision_rules=decision_rules,
        )

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
        join_within_s: float | None = None,
        max_steps: int = 0,
        decision_rules: DecisionRules = _NO_RULES,
    ) -> Predictor:
        """The older name of `from_bundle`, only for an open Bundle."""
        return Predictor.from_bundle(
            bundle,
            backend,
            scheme,
            execution=execution,
            max_rewind=max_rewind,
            window=window,
            fetch=fetch,
            join_within_s=join_within_s,
            max_steps=max_steps,
            decision_rules=decision_rules,
        )

    def without_streams(self) -> Predictor:
        """A predictor of the same model and rules that has no stream and fetches none."""
        return Predictor(
            self.contract,
            self.backend,
            self._smallest_batch,
            max_rewind=self._max_rewind,
            window=self._window,
            bundle_id=self._bundle_id,
            join_within_s=self._join_within_s,
            max_steps=self._max_steps,
            decision_rules=self._decision_rules,
        )

    def __reduce__(self) -> str:
        """Refuse to be copied or pickled: a copy would share the streams' states, or lose the backend's model."""
        raise EdgeLstmError(
            "expected one predictor per process, found an attempt to copy or pickle a Predictor",
            "copy or pickle what Predictor.state returned, and give it to load_state of a predictor of the same bundle",
        )

    @property
    def totals(self) -> dict[str, int]:
        """Counts of samples, duplicate, late, rewound, runaway, gaps and missing, as in docs/predictions.md."""
        found = Counter({**self.counts, "rewound": self._late.rewound})
        found.update(self._sampler.totals)  # adds counts of the same name
        return dict(found)

    def degraded(self, most: int) -> dict[str, dict[str, str]]:
        """The dead sensors of streams in memory, each with its fault; of at most so many streams."""
        table = self.table
        if not self._sensors:
            return {}
        faulty = np.flatnonzero(table.current["sensor_fault"].any(axis=1))
        used = {table.slot(stream): stream for stream in table.names}
        chosen = [slot for slot in faulty.tolist() if slot in used][:most]
        return {used[slot]: self._sensors.dead(table.current[slot]) for slot in chosen}

    def predict(self, readings: Reading | Iterable[Reading], *, ignore_unknown: bool = False) -> list[Prediction]:
        """Predict from one reading or from many; `feed` does the same, but takes no single reading."""
        return self.feed([readings] if isinstance(readings, Reading) else readings, ignore_unknown=ignore_unknown)

    def feed(self, readings: Iterable[Reading], *, ignore_unknown: bool = False) -> list[Prediction]:
        """Predict from readings, and return the predictions in the order of the readings that caused them.

        Usually, a reading gives one prediction. It gives none if it is dropped as late or repeated, or if its sample is
        incomplete. It gives several if it corrects earlier predictions or ends intervals of a grid.

        Each reading needs at least one value of the model's features; NaN or None is a missing value. A name that the
        model does not have is refused. With `ignore_unknown`, this name is left out if the reading also has a known
        name. Raises ReadingError, which says which reading does not fit and why; then no stream has changed.
        """
        if ignore_unknown is not False:
            ignore_unknown = flag_argument(ignore_unknown, "ignore_unknown", ReadingError)
        if self._checks is None:
            from edge_lstm.streaming.reading_checks import ReadingChecks

            self._checks = ReadingChecks(self.contract)
        steps = self.feed_columns(self._checks(readings, ignore_unknown))
        return [] if steps is None else steps.predictions()

    def reset(self, stream: str) -> None:
        """Delete the state of the stream: its next reading is its first, and `step` counts from 1 again.

        Raises ReadingError if the predictor does not know the stream.
        """
        self._require_known(stream)
        self._start(stream)

    def state(self, stream: str) -> StreamState:
        """A copy of the complete state of the stream, for `load_state`.

        Raises ReadingError if the predictor does not know the stream.
        """
        from edge_lstm.streaming.stream_state import StreamState

        self._require_known(stream)
        table = self.table
        slot = table.slot(stream)  # where it has to be fetched, the table grows
        current = table.current[slot]
        tensors = zip(self.contract.states, table.state_fields, strict=True)
        states = {tensor.name: np.array(current[field], np.float32) for tensor, field in tensors}
        time = float(current["time"])
        counts = int(current["step"]), int(current["warm_steps"])
        row = table.row(stream), table.layout
        return StreamState(states, None if np.isnan(time) else time, *counts, self._bundle_id, *row)

    def load_state(self, stream: str, state: StreamState) -> None:
        """Continue a stream from a state that `state` returned, for any stream of any predictor of the same bundle.

        The predictions are then those that the stream of that state would have had. With the same backend and scheme,
        they are identical, bit for bit, for every task. If the two predictors have different `max_rewind` or `window`,
        only late and repeated readings differ: the earlier samples and sequences are not loaded.

        Raises ReadingError, which names the state, shape or number that does not fit; the stream is then unchanged.
        """
        from edge_lstm.streaming.stream_state import require_fit

        if not isinstance(stream, str):
            raise ReadingError(
                f"expected the stream's name as a str, found {described(stream)}", 'write load_state("pump-7", state)'
            )
        require_fit(state, self.contract, self._bundle_id)
        table = self.table
        before = table.row(stream) if stream in table.names else None
        try:
            self._start(stream)
            table.put_row(stream, state.row, state.layout)
        except ValueError as error:
            if before is None:
                table.evict(stream)
            else:
                table.put_row(stream, before, table.layout)
            raise ReadingError(
                f"state: expected what Predictor.state gives, found another row ({error})",
                "open the bundle that the state was taken from",
            ) from None
        slot = table.slot(stream)
        for tensor, field in zip(self.contract.states, table.state_fields, strict=True):
            table.current[field][slot] = state.states[tensor.name]
        table.current["time"][slot] = np.nan if state.time is None else state.time
        table.current["step"][slot], table.current["warm_steps"][slot] = state.step, state.warm_steps

    def _require_known(self, stream: str) -> None:
        if isinstance(stream, str) and (stream in self.table.names or self._fetch(stream) is not None):
            return
        found = quoted(stream) if isinstance(stream, str) else described(stream)
        names = list(self.table.names)
        remedy = suggestion(str(stream), names[:_MAX_NAMED]) if names else "feed it a reading first"
        raise ReadingError(f"expected a stream that was fed, found {found}", remedy)

    def _start(self, stream: str) -> None:
        """Give the stream the row of one that never stepped."""
        if not self._first_row:
            table = StreamTable(self.contract, self._max_rewind, self._window, rules=self._decision_rules)
            table.slot("")
            self._first_row = table.row("")
        self.table.put_row(stream, self._first_row, self.table.layout)
        self._reported_at.pop(stream, None)

    def feed_columns(self, readings: Iterable[Reading]) -> Steps | None:
        """Step readings that need no check; columns take half the time of predictions. None where nothing stepped."""
        rounds = list(self.steps(readings))
        return in_reading_order(rounds) if rounds else None

    def feed_slice(
        self, readings: Sequence[Reading], most_steps: int, between: Callable[[], None]
    ) -> tuple[Steps | None, int]:
        """`feed_columns` of the first readings that cause at most `most_steps`, at least one; and how many these were.

        `between` is called between two rounds. If it raises, the readings are not stepped as a whole: the caller
        evicts their streams.
        """
        count = self._sampler.affordable(readings, most_steps)
        rounds = []
        for steps in self.steps(readings[:count] if count < len(readings) else readings):
            rounds.append(steps)
            between()
        return in_reading_order(rounds) if rounds else None, count

    def steps(self, readings: Iterable[Reading]) -> Iterator[Steps]:
        """The steps of the readings' streams, round by round."""
        readings = readings if isinstance(readings, Sequence) else list(readings)
        dropped = self.watch.counts.total()
        late = self._late
        late.forget()  # what an iterator that was not used up has left
        for one in self._sampler.rounds(readings):
            self._round += 1
            self.table.used[one.rows] = self._round
            behind = self._sampler.late_or_repeated(one)
            if not np.count_nonzero(behind):
                yield from late.step_new(one)
                continue
            yield from late.step_new(one.part(~behind))
            for index in np.flatnonzero(behind).tolist():
                chosen = np.zeros(len(behind), np.bool_)
                chosen[index] = True
                yield from late.take(one.part(chosen))
            if late and self._sampler.has_restarts:  # before a stream begins again
                yield from late.settle()
        if late:
            yield from late.settle()
        used = len(readings) - (self.watch.counts.total() - dropped)
        if used:
            self.counts["used"] += used
            self.watch.dropped_in_a_row = 0

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
        held = table.current["held"][slots] if self._sensors else None
        samples = self._sampler.complete(one)
        current, sensed = table.current, None
        if held is not None:
            facts = samples.restart, held, samples.values, samples.missing
            sensed = self._sensors(current, slots, one.times, *facts)
            samples = samples._replace(values=sensed.values, missing=sensed.missing)
        values = self._features.conditioned(samples.values)
        features = self._features.vectors(current, slots, one.times, samples.since, values, samples.missing)
        raw, following = self._step(rows, features)  # (n, network outputs)
        bounded = _surely_bounded(raw, following)
        if not bounded:
            raw = self._restart_runaway(slots, features, raw)
        counts = current["step"][rows] + 1, current["warm_steps"][rows] + 1
        current["step"][rows], current["warm_steps"][rows] = counts
        outputs = self._published(raw) if self._published else raw
        learns = ~self._operator.maintained(current, slots)
        if sensed is not None:
            learns &= ~sensed.doubted
        step = Step(current, table.calibration, slots, values, samples.missing, outputs, learns, sensed)
        decisions = self._decider(step)
        if sensed is not None:
            decisions = self._sensors.decided(decisions, sensed)
        if self._degraded:
            decisions = decisions._replace(degraded=self._degraded(samples.missing, decisions.degraded))
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
