"""A device's own numbers of its readings: which readings are repeated, and where a counter wrapped or began again.

With a time of its own, a reading is identified by sequence and time: a counter of eight bits has each number
again, but never at the same time. Without one, it is identified by sequence and values, and a number is a repetition
only among the last readings: those that can be under way when a device sends again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Integers
from edge_lstm.foundation.hashing import blake2b

UNDER_WAY = 64  # readings of a stream; half of what RFC 1982 distinguishes with eight bits
_NO_NUMBER = -1
_MOST_DIGITS = 18  # so that a number fits into 64 bits
_COUNTER_BITS = (8, 16, 32, 64)

Keys = NDArray[np.uint64]


class Sequences(NamedTuple):
    """The sequences of n samples, as arrays."""

    keys: Keys  # (n,): identifies the reading; 0: it has no sequence. The lowest bit: its sequence is a number
    numbers: Integers  # (n,): -1 where the sequence is no number
    arrived: Flags  # (n,): whether the sample's time is that of arrival

    def at(self, chosen: slice | Flags | NDArray[np.intp]) -> Sequences:
        """Those of the chosen samples."""
        return Sequences(self.keys[chosen], self.numbers[chosen], self.arrived[chosen])


def sequence_id(sequence: str) -> int:
    """64 bits for a device's sequence number or id. Never 0, which means that the time identifies the sample."""
    return int.from_bytes(blake2b(sequence.encode(errors="surrogatepass"), digest_size=8).digest(), "big") or 1


def sequences_of(
    texts: Sequence[str | None], ids: Keys, times: Doubles, given: Floats, arrived: Sequence[bool]
) -> Sequences:
    """The sequences `texts` of n readings with `ids` from `sequence_id` (0: none); given (n, features)."""
    by_arrival = np.array(arrived, np.bool_)
    facts = _mixed(times.astype(np.float64).view(np.uint64))
    if by_arrival.any():
        facts = np.where(by_arrival, _of_values(given), facts)
    numbers = np.array([_number(text) for text in texts], np.int64)
    keys = _mixed(ids ^ facts) | np.uint64(3)  # never 0
    keys = np.where(numbers < 0, keys & ~np.uint64(1), keys)
    return Sequences(np.where(ids == 0, np.uint64(0), keys), numbers, by_arrival)


def is_number(key: int) -> bool:
    """Whether the sequence of a key is a number."""
    return bool(key & 1)


def is_known(key: int, seen: Keys, noted: int) -> bool:
    """Whether a reading was received before. `seen` (window,) has the keys of the last readings, `noted` counts all.

    A number that was received too long ago to be under way comes from a counter that wrapped.
    """
    places = np.flatnonzero(seen == np.uint64(key))
    if not len(places):
        return False
    age = int(((noted - 1 - places) % len(seen)).min())
    return not is_number(key) or age < UNDER_WAY


def wrapped_bits(last: int, number: int) -> int | None:
    """The bits of a counter that went from `last` over its end to a smaller `number`; None: it began again."""
    for bits in _COUNTER_BITS:
        if last < 1 << bits:
            return bits if (number - last) % (1 << bits) <= UNDER_WAY else None
    return None


def _number(text: str | None) -> int:
    if text is None or len(text) > _MOST_DIGITS or not (text.isascii() and text.isdigit()):
        return _NO_NUMBER
    return int(text)


def _of_values(given: Floats) -> Keys:
    """64 bits for the values (n, features) of each reading."""
    whole = given.dtype == np.float64  # of a contract with counters
    bare = np.where(np.isnan(given), given.dtype.type(np.nan), given)
    bits = bare.view(np.uint64) if whole else bare.view(np.uint32).astype(np.uint64)
    places = np.arange(1, given.shape[1] + 1, dtype=np.uint64) << np.uint64(32)
    found: Keys = _mixed(bits + places).sum(axis=1, dtype=np.uint64)
    return found


def _mixed(bits: Keys) -> Keys:
    """Each number with its bits mixed (the last step of SplitMix64)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
