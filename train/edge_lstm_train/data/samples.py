"""The samples of a recording as a device takes them: by the runtime's sampler, or all at once with the same result.

All at once where each row is a sample: without a grid and counters. The runtime's sampler takes 30 µs a row where a
recording has one stream; tests compare the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Integers, narrow
from edge_lstm.foundation.numbers import FLOAT32_MAX
from edge_lstm.recordings.recording import Recording
from edge_lstm.streaming.reading import Reading
from edge_lstm.streaming.sampling.counters import counter_columns
from edge_lstm.streaming.sampling.sampler import Round, Sampler, Samples, limit_of
from edge_lstm.streaming.stream_table import StreamTable
from edge_lstm.streaming.stream_watch import StreamWatch

_READINGS_AT_ONCE = 65_536  # as Python objects


@dataclass(frozen=True, eq=False)
class StreamSamples:
    """The samples of all streams, stream after stream, each in the order of time."""

    stream_of: Integers  # (steps,): index into the recording's streams
    times: Doubles  # (steps,)
    values: Floats  # (steps, features): missing ones held, NaN before the first value
    missing: Flags  # (steps, features)
    since: Doubles  # (steps,): seconds since the step before, NaN at a stream's first
    restart: Flags  # (steps,): the state was reset


def samples_of(
    contract: Contract, recording: Recording, tick: Callable[[int], object] = lambda rows: None
) -> tuple[StreamSamples, dict[str, int]]:
    """The samples, and the numbers of other readings by reason. `tick` is called with numbers of rows that are done."""
    if contract.sampling.grid or counter_columns(contract):
        return by_sampler(contract, recording, tick)
    return all_at_once(contract, recording, tick)


def by_sampler(
    contract: Contract, recording: Recording, tick: Callable[[int], object] = lambda rows: None
) -> tuple[StreamSamples, dict[str, int]]:
    """The samples by the runtime's sampler, reading by reading."""
    table = StreamTable(contract)
    sampler = Sampler(contract, table)
    for stream in recording.streams:
        table.slot(stream)  # so that slots are in the order of the streams
    counts: Counter[str] = Counter(duplicate=0, late=0)
    parts = []
    for readings in _batches(recording.readings_side_by_side(), tick):
        kept = [_completed(sampler, table, one, counts) for one in sampler.rounds(readings)]
        if kept:
            parts.append([np.concatenate(column) for column in zip(*kept, strict=True)])
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")  # each stream keeps its order of time
    columns[0] = columns[0].astype(np.int32)
    counts.update(sampler.totals)  # adds up reasons that both count
    return StreamSamples(*(column[order] for column in columns)), dict(counts)


def _batches(readings: Iterator[Reading], tick: Callable[[int], object]) -> Iterator[list[Reading]]:
    while batch := list(islice(readings, _READINGS_AT_ONCE)):
        yield batch
        tick(len(batch))


def _completed(
    sampler: Sampler, table: StreamTable, one: Round, counts: Counter[str]
) -> tuple[Integers, Doubles, Floats, Flags, Doubles, Flags]:
    """The complete samples of a round, without late and repeated ones, which are counted."""
    behind = sampler.late_or_repeated(one)
    if behind.any():
        repeated = one.times[behind] == table.current["time"][one.slots[behind]]
        counts["duplicate"] += int(repeated.sum())
        counts["late"] += int((~repeated).sum())
        one = one.part(~behind)
    samples: Samples = sampler.complete(one)
    return one.slots, one.times, samples.values, samples.missing, samples.since, samples.restart


def all_at_once(
    contract: Contract, recording: Recording, tick: Callable[[int], object] = lambda rows: None
) -> tuple[StreamSamples, dict[str, int]]:
    """The samples of a recording whose every row is a sample, stream by stream as whole columns."""
    given, limits = _given(contract, recording)
    max_gap_s = contract.sampling.max_gap_s or np.inf
    held = np.array([feature.mean for feature in contract.features], np.float32)
    watch, counts = StreamWatch(contract.sampling), Counter(duplicate=0, late=0, costly=0, gaps=0, missing=0)
    parts: list[StreamSamples] = []
    for stream, rows in enumerate(_rows_by_stream(recording)):
        times, values = recording.times[rows], given[rows]
        newest = np.maximum.accumulate(times)
        behind = np.zeros(len(times), bool)
        behind[1:] = times[1:] <= newest[:-1]
        if behind.any():
            repeated = int((times[1:][behind[1:]] == newest[:-1][behind[1:]]).sum())
            counts["duplicate"] += repeated
            counts["late"] += int(behind.sum()) - repeated
            times, values = times[~behind], values[~behind]
        since = np.diff(times, prepend=np.nan)
        restart = since > max_gap_s
        steps = np.flatnonzero(restart)
        for step, time, gap_s in zip(steps.tolist(), times[steps].tolist(), since[steps].tolist(), strict=True):
            watch.restarted(recording.streams[stream], step, time, gap_s)
        missing = ~(np.abs(values) <= limits)
        counts["gaps"] += len(steps)
        counts["missing"] += int(np.count_nonzero(missing))
        stream_of = narrow(np.full(len(times), stream, np.int32), np.int32)
        parts.append(StreamSamples(stream_of, times, _held(values, missing, held), missing, since, restart))
        tick(len(behind))
    return _joined(parts), dict(counts)


def _given(contract: Contract, recording: Recording) -> tuple[Floats, Floats]:
    """The values (rows, features) as the sampler takes them, NaN where missing, and their limits (features,)."""
    given = np.empty((len(recording), len(contract.features)), np.float32)
    for column, feature in enumerate(contract.features):
        values = recording.values[:, recording.features.index(feature.name)]
        with np.errstate(over="ignore"):
            given[:, column] = values
        codes = np.array(feature.sentinels, np.float32)
        least = -FLOAT32_MAX if feature.least is None else feature.least
        most = FLOAT32_MAX if feature.most is None else feature.most
        if feature.sentinels or feature.least is not None or feature.most is not None:
            no_measurement = ~((least <= values) & (values <= most)) | np.isin(given[:, column], codes)
            given[no_measurement, column] = np.nan
    return given, np.array([limit_of(feature) for feature in contract.features], np.float32)


def _rows_by_stream(recording: Recording) -> Iterator[Integers | slice]:
    """The rows of each stream, in their order; slices where the recording has one stream after the other."""
    streams = np.arange(len(recording.streams))
    if (np.diff(recording.stream_of) >= 0).all():
        begins = np.searchsorted(recording.stream_of, streams).tolist()
        yield from map(slice, begins, [*begins[1:], len(recording)])
        return
    by_stream = np.argsort(recording.stream_of, kind="stable")
    begins = np.searchsorted(recording.stream_of[by_stream], streams)
    yield from np.split(by_stream, begins[1:])


def _held(values: Floats, missing: Flags, start: Floats) -> Floats:
    """The values (n, features), missing ones replaced by the last value of their feature, or by its start."""
    for column in np.flatnonzero(missing.any(axis=0)).tolist():
        known = np.where(missing[:, column], -1, np.arange(len(values)))
        last = np.maximum.accumulate(known)
        values[:, column] = np.where(last >= 0, values[last, column], start[column])
    return values


def _joined(parts: list[StreamSamples]) -> StreamSamples:
    """The samples of all streams; of one stream without a copy."""
    if len(parts) == 1:
        return parts[0]
    names = ("stream_of", "times", "values", "missing", "since", "restart")
    return StreamSamples(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
