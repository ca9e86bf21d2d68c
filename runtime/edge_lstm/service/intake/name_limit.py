"""The limit of stream names. An untrusted source can invent any number, and each takes space on the disk and in memory.

A name that is in the database is never refused. For a new one beyond the limit, names with fewer than ten readings are
forgotten: those with the fewest readings first, and of these the ones that were silent longest. Where all names have
ten readings, a new one is refused. So a flood of invented names pushes out its own names, and no device that is known.

The mark of a name is its number of readings below ten, and its place in the order of last readings. The database has
the marks, so that a later process forgets the same names. What happens depends on the order of readings alone, not on
how they are cut into batches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice

from edge_lstm.foundation.rate_limited_log import RateLimitedLog
from edge_lstm.service.database.readings_json import Record
from edge_lstm.service.database.store import Store
from edge_lstm.service.processing.committer import Committer
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Forgotten, Reading, Refusal

log = logging.getLogger(__name__)

ENOUGH_READINGS = 10  # of a name that stays
_COUNT_BITS = 4  # of a mark; the rest is the place in the order
_COUNT = (1 << _COUNT_BITS) - 1
_SHARE = 10  # a tenth of the names with few readings is forgotten at once, so that it is rare
_LEAST_FREE = 8 << 20  # bytes of the disk that names leave to the readings of known devices
_FEW_NAMES = 1 << 20  # bytes of rows that are allowed on any disk
_MOST_IN_MEMORY = 8 << 20  # bytes of rows of names with few readings
_LOGGED_EVERY_S = 3600.0
_REMEDY = (
    "name the devices in [input] streams, let the broker's access rules allow only theirs, or raise max_stream_names"
)


class NameLimit:
    """Lets the readings of known names pass, and those of new names as long as there is space."""

    def __init__(
        self,
        most: int,
        store: Store,
        predictor: Predictor,
        committer: Committer,
        free_bytes: Callable[[], int],
        report: Callable[[Mapping[str, object]], None],
    ) -> None:
        """`most`: names in the database. `free_bytes`: on its disk; `report` gets the facts, at most once an hour."""
        self.refused = self.forgotten = 0  # readings, and names
        self._most, self._store, self._committer = most, store, committer
        self._table, self._drops = predictor.table, predictor.watch.drops
        self._free_bytes, self._report = free_bytes, report
        self._most_on_full_disk: int | None = None  # while the disk has little space
        self._few = max(ENOUGH_READINGS, _FEW_NAMES // self._table.row_bytes)
        self._few_in_memory = max(ENOUGH_READINGS, _MOST_IN_MEMORY // self._table.row_bytes)
        self._marks = committer.young
        self._marks.update(sorted(store.young().items(), key=lambda item: item[1]))
        # the same names by their number of readings, those that were silent longest first
        self._by_count: list[dict[str, None]] = [{} for _ in range(_COUNT + 1)]
        for name, mark in self._marks.items():
            self._by_count[mark & _COUNT][name] = None
        self._order = max(self._marks.values(), default=0) >> _COUNT_BITS
        self._records: list[Record] = []
        # of the last `admit`: what may step, the place of each in what was given, and how much of that was looked at
        self._admitted: Sequence[Reading] = ()
        self._places: Sequence[int] = ()
        self._end = 0
        self._turned_away: list[tuple[int, Reading]] = []
        self._new_ones: set[str] = set()
        self._told = RateLimitedLog(log, _LOGGED_EVERY_S)

    @property
    def count(self) -> int:
        """The names that the database has after the next commit."""
        return self._store.count() + len(self._committer.added) - len(self._committer.forgotten)

    @property
    def may_forget(self) -> bool:
        """Whether names may be forgotten soon: a reading that comes again is recognized by its message alone then."""
        return bool(self._marks) and 2 * self.count >= self._limit

    @property
    def _limit(self) -> int:
        return self._most if self._most_on_full_disk is None else min(self._most, self._most_on_full_disk)

    def admit(self, readings: Sequence[Reading]) -> Sequence[Reading]:
        """Those of the first readings that may step now. The caller steps them, or the first ones, and calls `stepped`.

        The rest comes in another call: before it names have to be forgotten.
        """
        self._drops.clear()
        self._admitted, self._places, self._end = readings, range(len(readings)), len(readings)
        self._turned_away.clear()
        self._new_ones.clear()
        streams, in_memory = {reading.stream for reading in readings}, self._table.names
        if streams <= in_memory:  # the usual case
            return readings
        new = self._new({stream for stream in streams if stream not in in_memory})
        if not new:
            return readings
        self._look_at_disk()
        admitted: list[Reading] = []
        places: list[int] = []
        room = self._limit - self.count
        for place, reading in enumerate(readings):
            stream = reading.stream
            if stream in new:
                if room <= 0 and self._marks:
                    if admitted:
                        self._end = place
                        break  # first their readings are counted, which decides
                    new.update(self._make_room())
                    room = self._limit - self.count
                if room <= 0:
                    self._turned_away.append((place, reading))
                    continue
                room -= 1
                new.remove(stream)
                self._new_ones.add(stream)
                self._committer.added.add(stream)
                self._mark(stream, 0)
            admitted.append(reading)
            places.append(place)
        self._admitted, self._places = admitted, places
        return admitted

    def stepped(self, count: int) -> int:
        """The first `count` readings of the last `admit` were stepped; returns how many of all are done with.

        They are counted, and so are those that are refused before the next one. Other new names are unknown again.
        """
        readings = self._admitted[:count]
        end = self._end
        if count < len(self._admitted):
            end = self._places[count]
            for name in self._new_ones.difference(reading.stream for reading in readings):
                self.withdraw(name)
        self._records = [*self._records, *readings] if self._records else list(readings)
        if refused := [reading for place, reading in self._turned_away if place < end]:
            self._records.append(self._refuse(refused))
        if self._marks:
            self._count(readings)
        return end

    def _count(self, readings: Sequence[Reading]) -> None:
        marks, drops = self._marks, self._drops
        for stream in [reading.stream for reading in readings if reading.stream in marks]:
            if drops[stream] > 0:  # a repetition must not count again
                drops[stream] -= 1
            elif stream in marks:
                count = self._unmark(stream) + 1
                if count < ENOUGH_READINGS:
                    self._mark(stream, count)

    def withdraw(self, name: str) -> None:
        """What the name stepped since the last commit is left out. It leaves memory; a new one is unknown again."""
        if name in self._table.names:
            self._table.evict(name)
        if name in self._committer.added:
            self._committer.added.remove(name)
            if name in self._marks:
                self._unmark(name)

    def take_records(self) -> list[Record]:
        """What happened since the last call, for the history: the readings, the streams forgotten between them, and
        refusals."""
        records, self._records = self._records, []
        self._spare_memory()
        return records

    def _new(self, unknown: set[str]) -> set[str]:
        """Those of the names that the database does not have."""
        added, forgotten = self._committer.added, self._committer.forgotten
        known = self._store.known(unknown)
        return {name for name in unknown if name not in added and (name not in known or name in forgotten)}

    def _mark(self, name: str, count: int) -> None:
        """The name has so many readings, and the last one just now."""
        self._order += 1
        self._marks[name] = self._order << _COUNT_BITS | count
        self._by_count[count][name] = None

    def _unmark(self, name: str) -> int:
        """The number of readings that the name had."""
        count = self._marks.pop(name) & _COUNT
        del self._by_count[count][name]
        return count

    def _make_room(self) -> list[str]:
        """Forget a share of the names with few readings; which ones."""
        gone = list(islice(chain.from_iterable(self._by_count), -(-len(self._marks) // _SHARE)))
        self._forget(gone)
        self._tell(
            f"more than {self._limit} stream names{self._why}: names with fewer than {ENOUGH_READINGS} readings "
            f"are forgotten, {self.forgotten} so far, the last one {gone[-1]}"
        )
        return gone

    def _forget(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self._marks:
                self._unmark(name)
            self._committer.forget(name)
            if name in self._table.names:
                self._table.evict(name)
        self._records += map(Forgotten, names)
        self.forgotten += len(names)

    def forget_idle(self, before: float, most: int) -> int:
        """Forget at most `most` streams that had no reading since that moment (seconds since 1970); how many.

        They leave the database with the next batch.
        """
        committer = self._committer
        idle = [
            name
            for name in self._store.idle(before, most + len(committer.forgotten))
            if name not in committer.unsaved and name not in committer.forgotten
        ]
        self._forget(idle)
        return len(idle)

    def _refuse(self, readings: Sequence[Reading]) -> Refusal:
        """Count and tell the readings of new names that are refused; one refusal for all of them."""
        self.refused += len(readings)
        first = readings[0]
        reason = f"expected at most {self._limit} stream names{self._why}, all in use, found a new one"
        others = f", and {len(readings) - 1} more readings of new names" if len(readings) > 1 else ""
        self._tell(f"{reason}: {first.stream}{others}; {self.refused} readings refused so far")
        return Refusal(first.stream, first.time, f"{reason}{others}")

    @property
    def _why(self) -> str:
        return " (max_stream_names)" if self._limit == self._most else ", since the disk has little space left"

    def _tell(self, error: str) -> None:
        if self._told.due():
            log.error("%s; %s", error, _REMEDY)
            self._report({"error": error, "hint": _REMEDY})

    def _look_at_disk(self) -> None:
        free = self._free_bytes()
        if free < _LEAST_FREE and self._most_on_full_disk is None:
            self._most_on_full_disk = max(self.count, self._few)
        elif free > 2 * _LEAST_FREE:
            self._most_on_full_disk = None

    def _spare_memory(self) -> None:
        """Evict names with few readings from memory beyond their share of it; the database has them."""
        if len(self._marks) <= self._few_in_memory:
            return
        in_memory = [name for name in chain.from_iterable(self._by_count) if name in self._table.names]
        for name in in_memory[: max(0, len(in_memory) - self._few_in_memory)]:
            if name not in self._committer.unsaved:
                self._table.evict(name)
