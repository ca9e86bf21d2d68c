"""Readings to samples, a round at a time: joins partial readings, holds missing values, restarts after a gap.

A round holds at most one reading a stream, so that one reading and a thousand go the same way, as arrays.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_lstm.contract import Contract
from edge_lstm.reading import Reading
from edge_lstm.streams import Slots, StreamTable

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Round:
    """Readings of different streams, as arrays over them; a missing value is NaN."""

    order: list[int]  # which of the readings fed they are
    slots: Slots  # (n,)
    times: NDArray[np.float64]  # (n,): seconds since 1970
    ids: NDArray[np.uint64]  # (n,): of the device's own sequence, 0 where the time is the identity
    given: NDArray[np.float32]  # (n, features)
    revisions: NDArray[np.uint16]  # (n,): how often the sample was predicted before

    def part(self, chosen: NDArray[np.bool_]) -> Round:
        """Some of the readings."""
        order = [number for number, take in zip(self.order, chosen.tolist(), strict=True) if take]
        return Round(
            order,
            self.slots[chosen],
            self.times[chosen],
            self.ids[chosen],
            self.given[chosen],
            self.revisions[chosen],
        )


@dataclass(frozen=True, eq=False)
class Samples:
    """What a round of readings steps with."""

    values: NDArray[np.float32]  # (n, features): complete, missing ones held
    missing: NDArray[np.bool_]  # (n, features): where they were
    restart: NDArray[np.bool_]  # (n,): whether the state started anew


class Sampler:
    """Readings into rounds, rounds into complete values."""

    def __init__(self, contract: Contract, table: StreamTable) -> None:
        self._names = [feature.name for feature in contract.features]
        self._max_gap_s = contract.sampling.max_gap_s or math.inf
        self._table = table
        self.gaps = 0  # silences over `max_gap_s`
        self.missing = 0  # values held

    def rounds(self, readings: Iterable[Reading]) -> Iterator[Round]:
        """The readings in rounds: a stream's first reading in the first, its second in the second.

        A partial reading only becomes part of a round when it completes its sample.
        """
        names, table = self._names, self._table
        numbers: dict[int, int] = {}
        rounds: list[tuple[list[int], list[int], list[float], list[int], list[list[float]]]] = []
        for index, reading in enumerate(readings):
            slot = table.slot(reading.stream)
            if reading.partial:
                joined = self._joined(slot, reading)
                if joined is None:
                    continue
                values = joined
            else:
                values = [reading.values.get(name, math.nan) for name in names]
            number = numbers[slot] = numbers.get(slot, -1) + 1
            if number == len(rounds):
                rounds.append(([], [], [], [], []))
            order, slots, times, ids, given = rounds[number]
            order.append(index)
            slots.append(slot)
            times.append(reading.time)
            ids.append(0 if reading.sequence is None else identity(reading.sequence))
            given.append(values)
        for order, slots, times, ids, given in rounds:
            yield Round(
                order,
                np.array(slots, np.int64),
                np.array(times, np.float64),
                np.array(ids, np.uint64),
                np.array(given, np.float32),
                np.zeros(len(slots), np.uint16),
            )

    def _joined(self, slot: int, reading: Reading) -> list[float] | None:
        """The whole sample where the reading completes it, else None.

        Among what waits NaN is a value that has not come, and infinity one that came and is missing.
        """
        waiting = self._table.joining[slot]
        for index, name in enumerate(self._names):
            if name in reading.values:
                value = reading.values[name]
                waiting[index] = value if math.isfinite(value) else math.inf
        if np.isnan(waiting).any():
            return None
        whole: list[float] = np.where(np.isinf(waiting), np.nan, waiting).tolist()
        waiting[:] = np.nan
        return whole

    def behind(self, one: Round) -> NDArray[np.bool_]:
        """Whether each reading is not newer than its stream's last sample, or was seen before. (n,)"""
        table = self._table
        behind: NDArray[np.bool_] = one.times <= table.now["time"][one.slots]  # not where that is NaN: the first sample
        if table.seen.shape[1] and one.ids.any():
            behind |= (table.seen[one.slots] == one.ids[:, None]).any(axis=1) & (one.ids > 0)
        return behind

    def complete(self, one: Round) -> Samples:
        """The round's samples; gaps restart their streams. The table moves on to the round's times and values."""
        now, slots = self._table.now, one.slots
        since = one.times - now["time"][slots]  # NaN before the first sample: no comparison holds
        gap = since > self._max_gap_s
        if gap.any():
            self.gaps += int(gap.sum())
            self._table.restart(slots[gap])
            for slot, silence in zip(slots[gap].tolist(), since[gap].tolist(), strict=True):
                log.info("stream restarts stream=%s gap_s=%.1f", self._table.name(slot), silence)
        missing = ~np.isfinite(one.given)
        values = one.given
        if missing.any():
            self.missing += int(missing.sum())
            values = np.where(missing, now["held"][slots], one.given)
        now["held"][slots] = values
        now["time"][slots] = one.times
        return Samples(values, missing, gap)


def identity(sequence: str) -> int:
    """64 bits for a device's own sequence number or id; never 0, which says that the time is the identity."""
    return int.from_bytes(hashlib.blake2b(sequence.encode(), digest_size=8).digest(), "big") or 1
