"""An alarm as one event: when it began, the highest score so far, and which sensors drove it then.

The memory of an event is in the stream's record. It begins at the first step with an alarm and ends at the first one
without; a restart of the stream ends it. So its beginning, which names it, is the same after a crash and in a replay.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.alarms.drivers import Drivers
from edge_lstm.decisions.step import Step
from edge_lstm.foundation.arrays import Doubles, Flags, Floats

MOST_DRIVERS = 3  # that are published, and kept of an event
FIELDS = ("event_since", "event_peak", "event_drivers")  # rows of release 0.1.0 lack them
_BEGIN, _PEAK = 0, 1
_LEAST = 1e-9  # a peak: 0 is that of no event


class Events(NamedTuple):
    """The alarm events of n steps."""

    since: Doubles  # (n,): time of the event's first step, seconds since 1970; NaN: there is no event
    peak: Doubles  # (n,): the highest score of the event so far
    ended: Flags  # (n,): whether this is the first step after the event
    drivers: Floats  # (n, 2, most, 4): at the beginning and at the peak; of each index of target, share, is, expected


def record_fields(contract: Contract) -> list[tuple[str, str, tuple[int, ...]]]:
    """The fields (name, type, shape) of a stream's record for its event. All are 0 without one."""
    since, peak, drivers = FIELDS
    return [(since, "f8", ()), (peak, "f8", ()), (drivers, "f4", (2, min(MOST_DRIVERS, len(contract.targets)), 4))]


def follow(step: Step, scores: Doubles, alarms: Flags, drivers: Drivers) -> Events:
    """Begin, continue or end the event of each stream (n,)."""
    current, slots = step.current, step.slots
    peak = current["event_peak"][slots]
    if not (alarms.any() or peak.any()):  # as nearly always
        none = np.broadcast_to(np.float32(0), (len(slots), *current["event_drivers"].shape[1:]))
        return Events(np.full(len(slots), np.nan), peak, alarms, none)
    since = current["event_since"][slots]
    open_before = peak > 0
    begins, ended = alarms & ~open_before, open_before & ~alarms
    higher = begins | (alarms & (scores > peak))  # False for NaN
    since = np.where(begins, current["time"][slots], since)
    peak = np.where(higher, np.fmax(scores, _LEAST), peak)
    if higher.any():
        first = _kept(drivers)
        current["event_drivers"][slots[begins], _BEGIN] = first[begins]
        current["event_drivers"][slots[higher], _PEAK] = first[higher]
    known = current["event_drivers"][slots]
    current["event_since"][slots] = np.where(alarms, since, 0.0)
    current["event_peak"][slots] = np.where(alarms, peak, 0.0)
    if ended.any():
        current["event_drivers"][slots[ended]] = 0.0
    return Events(np.where(alarms | ended, since, np.nan), peak, ended, known)


def _kept(drivers: Drivers) -> Floats:
    """(n, most, 4): the first drivers as numbers."""
    found: Floats = np.stack([part[:, :MOST_DRIVERS] for part in drivers], axis=2).astype(np.float32)
    return found
