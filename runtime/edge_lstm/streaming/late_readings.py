"""Late and repeated samples: inserted at their time, added to their sample, or dropped.

An inserted sample goes into its stream's trail at once. The stream returns to an earlier state and steps again when all
samples of the call are in their places, or before its next new sample: many late samples share one rewind. The states,
the trail and every revision number are those of one rewind for each sample; only predictions that a later one of the
same call corrects are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from edge_lstm.foundation.arrays import Floats, Records, Slots
from edge_lstm.foundation.times.text import format_time
from edge_lstm.streaming.sampling.joining import belonging, completed
from edge_lstm.streaming.sampling.sampler import Round, Sampler
from edge_lstm.streaming.sampling.sequences import is_known
from edge_lstm.streaming.step_results import Steps
from edge_lstm.streaming.stream_table import StreamTable
from edge_lstm.streaming.stream_watch import StreamWatch

StepRound = Callable[[Round], Iterator[Steps]]


class _Changed(NamedTuple):
    """A trail with samples that are not stepped yet."""

    position: int  # of the first of them
    one: Round  # with the sample that came last


class LateReadings:
    """What becomes of samples that are not the newest of their streams."""

    def __init__(
        self,
        table: StreamTable,
        sampler: Sampler,
        watch: StreamWatch,
        max_rewind: int,
        max_steps: int,
        step_round: StepRound,
        ahead: Sequence[int] = (),
    ) -> None:
        """`max_rewind`: how many samples of its stream a late one may lie back; `max_steps`: how many it may cause,
        0: any number; `step_round` steps a round of samples that are the newest of their streams; `ahead`: indices of
        the features that are known ahead.
        """
        self.rewound = 0  # samples that were inserted or completed
        self._table, self._sampler, self._watch = table, sampler, watch
        self._max_rewind, self._max_steps, self._step_round = max_rewind, max_steps, step_round
        self._ahead = ahead
        self._changed: dict[int, _Changed] = {}  # by slot

    def __bool__(self) -> bool:
        """Whether a stream has to step again."""
        return bool(self._changed)

    def forget(self) -> None:
        """Leave all trails as they are. Only for streams whose rows are read again, or dropped."""
        self._changed.clear()

    def step_new(self, one: Round) -> Iterator[Steps]:
        """Step a round of samples that are the newest of their streams."""
        if self._changed:
            for slot in one.slots.tolist():
                yield from self._settle(slot)
        if one.sequences is not None:
            self._sampler.note_sequences(one.slots, one.sequences)
        yield from self._step_round(one)

    def settle(self) -> Iterator[Steps]:
        """Step every changed trail again."""
        for slot in list(self._changed):
            yield from self._settle(slot)

    def take(self, one: Round) -> Iterator[Steps]:
        """A round of one sample that is late or repeated: insert it at its time, add it to its sample, or drop it."""
        table, slot, time = self._table, int(one.slots[0]), float(one.times[0])
        newest, given = float(table.current["time"][slot]), one.given[0]
        key = 0 if one.sequences is None else int(one.sequences.keys[0])
        if key and is_known(key, table.seen[slot], int(table.identities[slot])):
            self._drop(slot, "duplicate", "its sequence was received before")
            return
        if not time <= newest:  # of a counter that came to this number again
            yield from self.step_new(one)
            return
        trail = table.trail[slot, : table.trail_length[slot]]
        is_part = bool(np.isinf(given).any())
        within_s = self._sampler.part_window_s if is_part else 0.0
        if one.ids[0]:  # rows of before the keys were kept have the ids alone
            same = (trail["time"] == time) & (trail["id"] == one.ids[0])
            forgets = one.sequences is None and not len(trail)  # so that of one time only the first is known
            known = forgets or bool((table.seen[slot] == one.ids[0]).any())
            if same.any() or (time == newest and known):
                self._drop(slot, "duplicate", "its sequence was received before")
                return
        elif (place := belonging(trail, time, within_s)) is not None:
            sample_time = float(trail["time"][place])
            merged = completed(trail["given"][place], sample_time, given, time, is_part, self._ahead)
            if merged is None:
                self._drop(slot, "duplicate", f"its time {format_time(time)} was received before")
            elif len(trail) - place - 1 > self._max_rewind:
                self._drop(slot, "late", self._lateness(time, newest))
            elif self._is_affordable(slot, place, 0):
                self._complete(slot, one, place, merged)
            return
        elif time == newest:
            self._drop(slot, "duplicate", f"its time {format_time(time)} was received before")
            return
        if time == newest:  # of one time with others, by its sequence
            yield from self.step_new(self._after_ties(one, trail))
            return
        position = int(np.searchsorted(trail["time"], time, side="right"))
        # the place of a sample before the whole trail is unknown
        before_all = position == 0 and not np.isnan(table.snapshot_old["time"][slot])
        if not len(trail) or before_all or len(trail) - position > self._max_rewind:
            self._drop(slot, "late", self._lateness(time, newest))
            return
        if not self._is_affordable(slot, position, 1):
            return
        if one.sequences is not None:
            table.note_keys(one.slots, one.sequences.keys)
        yield from self._insert(slot, self._after_ties(one, trail), position)

    def _complete(self, slot: int, one: Round, place: int, merged: Floats) -> None:
        """Give the sample at this place of the trail the `merged` values."""
        self.rewound += 1
        trail = self._table.trail[slot, : self._table.trail_length[slot]]
        trail["given"][place] = merged
        trail["revision"][place:] += 1
        self._note(slot, one, place)

    def _insert(self, slot: int, one: Round, position: int) -> Iterator[Steps]:
        """Put the sample into the trail at this position."""
        self.rewound += 1
        table, length = self._table, int(self._table.trail_length[slot])
        if length == table.trail.shape[1]:  # stepping it again makes room
            yield from self._settle(slot)
            again = table.rewind(slot, position)
            position -= length - len(again)
            sample = np.empty(1, again.dtype)
            _write(sample, 0, one)
            again["revision"][position:] += 1
            yield from self._step_again(one, np.concatenate([again[:position], sample, again[position:]]), position)
            return
        trail = table.trail[slot, : length + 1]
        trail[position + 1 :] = trail[position:-1].copy()
        _write(trail, position, one)
        trail["revision"][position + 1 :] += 1
        table.trail_length[slot] = length + 1
        self._note(slot, one, position)

    def _note(self, slot: int, one: Round, position: int) -> None:
        former = self._changed.get(slot)
        self._changed[slot] = _Changed(position if former is None else min(former.position, position), one)

    def _settle(self, slot: int) -> Iterator[Steps]:
        """Step the trail of a slot again, if it has changed."""
        changed = self._changed.pop(slot, None)
        if changed is None:
            return
        length = int(self._table.trail_length[slot])
        again = self._table.rewind(slot, changed.position)
        yield from self._step_again(changed.one, again, changed.position - (length - len(again)))

    def _step_again(self, one: Round, samples: Records, first: int) -> Iterator[Steps]:
        """Step samples of the trail (n,) of a stream that was rewound; predictions before the `first` do not change."""
        for index, sample in enumerate(samples):
            # one of revision 0 is new; nothing new happens at the others
            self._watch.is_repeating = index < first or bool(sample["revision"])
            try:
                steps = list(self._step_round(_round_of(one, sample)))
            finally:
                self._watch.is_repeating = False
            if index >= first:
                yield from steps

    def _is_affordable(self, slot: int, position: int, more: int) -> bool:
        """Whether this many steps are allowed: those of the trail from `position` on, with `more` samples there."""
        length = int(self._table.trail_length[slot])
        steps = length + more - self._table.rewind_begin(position, length)
        if not self._max_steps or steps <= self._max_steps:
            return True
        self._drop(slot, "costly", f"it would cause {steps} steps, more than max_steps_per_reading={self._max_steps}")
        return False

    def _after_ties(self, one: Round, trail: Records) -> Round:
        """The round of one sample, with the highest revision of the samples of the same time, so that it is unique."""
        ties = trail["revision"][trail["time"] == one.times[0]]
        return one._replace(revisions=ties.max(keepdims=True)) if len(ties) else one

    def _lateness(self, time: float, newest: float) -> str:
        """Why a late reading is dropped."""
        behind = f"it lies {newest - time:.1f} s before the stream's newest one"
        return f"{behind}, more than max_rewind={self._max_rewind} samples" if self._max_rewind else behind

    def _drop(self, slot: int, fate: str, reason: str) -> None:
        self._watch.dropped(self._table.name(slot), fate, reason, int(self._table.current["step"][slot]))


def _write(trail: Records, position: int, one: Round) -> None:
    """Write the sample of a round of one into a trail (n,)."""
    trail[position] = one.times.item(), one.ids.item(), one.given[0], one.revisions.item()


def _round_of(one: Round, sample: np.void) -> Round:
    """A round of one sample of the trail, caused by the reading of round `one`."""
    slots: Slots = one.slots
    return Round(
        one.order,
        slots,
        one.rows,
        np.array([sample["time"]]),
        np.array([sample["id"]]),
        sample["given"][None],
        np.array([sample["revision"]], np.uint64),
    )
