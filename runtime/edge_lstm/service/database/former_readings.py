"""Readings that release 0.1.0 stepped, in the form in which this release gives the same steps.

Release 0.1.0 joined the parts of a sample whatever their times were, and knew a repeated sequence by itself alone.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator

from edge_lstm.bundle.contract import Contract
from edge_lstm.streaming.reading import Reading


def as_stepped_by_0_1_0(readings: Iterable[Reading], contract: Contract, window: int) -> Iterator[Reading]:
    """Whole readings in place of parts, without those that it dropped for their sequence.

    `window`: how many sequences of a stream it remembered.
    """
    names = [feature.name for feature in contract.features]
    waiting: defaultdict[str, dict[str, float]] = defaultdict(dict)  # by stream: the values of an incomplete sample
    seen: defaultdict[str, OrderedDict[str, None]] = defaultdict(OrderedDict)  # by stream: the last sequences
    for reading in readings:
        if reading.partial:
            values = waiting[reading.stream]
            values.update({name: reading.values[name] for name in names if name in reading.values})
            if len(values) < len(names):
                continue
            reading = reading._replace(values=waiting.pop(reading.stream), partial=False)
        if contract.sampling.grid:
            reading = reading._replace(sequence=None)  # it used none there
        elif reading.sequence is not None and window:
            known = seen[reading.stream]
            if reading.sequence in known:
                continue
            known[reading.sequence] = None
            if len(known) > window:
                known.popitem(last=False)
        yield reading
