"""Reads the history of a stopped service for a replay, from a state database of any form."""

from __future__ import annotations

import logging
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.service.database.checksums import batch_checksum, chunk_checksum
from edge_lstm.service.database.former_readings import as_stepped_by_0_1_0
from edge_lstm.service.database.readings_json import entries_of, record_of, stream_of
from edge_lstm.service.database.schema import form_of
from edge_lstm.service.database.spans import Span, SteppingRules, last_span
from edge_lstm.streaming.reading import Reading

log = logging.getLogger(__name__)


class _Placed(NamedTuple):
    """An entry and its place in the order of processing."""

    batch: int
    place: int
    entry: Any


class _Gap(NamedTuple):
    """Readings up to this batch are damaged; stream None: possibly of every stream."""

    batch: int
    stream: str | None


class Part(NamedTuple):
    """Readings that were stepped by the same rules; None: by another bundle.

    `batches`: of each reading the number of the batch in which it was stepped; empty: no service stepped them.
    """

    readings: list[Reading]
    rules: SteppingRules | None
    batches: Sequence[int] = ()

    def until(self, time: float) -> Part:
        """The readings up to `time` (seconds since 1970)."""
        chosen = [reading.time <= time for reading in self.readings]
        return Part(list(compress(self.readings, chosen)), self.rules, list(compress(self.batches, chosen)))


def read_history(path: Path, bundle_id: str, stream: str | None = None) -> tuple[list[Reading], SteppingRules | None]:
    """`read_parts` as one list of readings, and the last rules."""
    parts = read_parts(path, bundle_id, stream)
    return [reading for part in parts for reading in part.readings], parts[-1].rules


def read_parts(path: Path, bundle_id: str, stream: str | None = None, contract: Contract | None = None) -> list[Part]:
    """The readings in a state database in the order of their processing, and the rules of their steps; at least a part.

    Only the readings of the last time that this bundle ran. For a bundle that never ran there: all readings, and None.
    `stream`: only its readings. `contract`: of the bundle; with it, readings that release 0.1.0 stepped are changed, so
    that they are stepped in the same way. Refused readings are left out. After damaged readings, their streams restart;
    that is logged. The file is not changed.

    Raises EdgeLstmError if it is no state database, has a later form, or a running service uses it.
    """
    try:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1.0)
        try:
            form = form_of(database, path) or 0
            span = last_span(database, form, bundle_id)
            gaps: list[_Gap] = []
            placed = sorted(_placed(database, form, stream, gaps), key=lambda one: one[:2])
        finally:
            database.close()
    except sqlite3.Error as error:
        raise EdgeLstmError(
            f"expected a state database at {path}, found: {error}",
            "copy the file of a stopped service, and use the copy",
        ) from None
    within = [one for one in placed if span.since <= one.batch < span.until]
    readings = list(_readings(within, [gap for gap in gaps if span.since <= gap.batch < span.until]))
    if stream is not None and not readings:
        raise EdgeLstmError(
            f"expected readings of the stream {stream} in {path}, found none of bundle {bundle_id}",
            "name a stream that the service predicted; its topic or payload has the name",
        )
    return _by_rules(readings, span, contract)


def _by_rules(readings: Sequence[tuple[int, Reading]], span: Span, contract: Contract | None) -> list[Part]:
    """The readings (batch, reading) in parts of the same rules."""
    if not span.rules:
        return [Part([reading for _, reading in readings], None, [batch for batch, _ in readings])]
    parts: list[Part] = []
    end = span.until
    for since, rules in span.rules:
        found = [reading for batch, reading in readings if since <= batch < end]
        batches = [batch for batch, _ in readings if since <= batch < end]
        if contract is not None and since < span.former_until:
            found = list(as_stepped_by_0_1_0(found, contract, rules.window))
            batches = list(range(-len(found), 0))  # it stepped each reading on its own
        if parts and parts[-1].rules == rules:
            parts[-1] = Part([*found, *parts[-1].readings], rules, [*batches, *parts[-1].batches])
        elif found or not parts:
            parts.append(Part(found, rules, batches))
        end = since
    return parts[::-1]


def _placed(database: sqlite3.Connection, form: int, stream: str | None, gaps: list[_Gap]) -> Iterator[_Placed]:
    """The entries of the stream, or of all streams. Adds what is damaged to `gaps`."""
    if form > 1:
        yield from _of_chunks(database, stream, gaps)
        batches = database.execute("select batch, facts, checksum, readings from history order by batch")
    else:
        batches = database.execute("select batch, null, null, readings from history order by batch")
    for batch, facts, kept, content in batches:
        if kept is not None and (not isinstance(content, bytes) or batch_checksum(batch, facts, content) != kept):
            gaps.append(_Gap(batch, None))
            continue
        for place, entry in enumerate(entries_of(content)):
            if stream is None or stream_of(entry) == stream:
                yield _Placed(batch, place, entry)


def _of_chunks(database: sqlite3.Connection, stream: str | None, gaps: list[_Gap]) -> Iterator[_Placed]:
    chosen = "" if stream is None else "where stream = ? or stream is null"
    query = f"select stream, until, checksum, readings from chunks {chosen}"
    for found, until, kept, content in database.execute(query, () if stream is None else (stream,)):
        if found is None or not isinstance(content, bytes) or chunk_checksum(found, content) != kept:
            gaps.append(_Gap(until, found))
        else:
            yield from (_Placed(*one) for one in entries_of(content))


def _readings(placed: Iterable[_Placed], gaps: list[_Gap]) -> Iterator[tuple[int, Reading]]:
    """The readings and their batches. The first one of a stream after a gap restarts it."""
    last_gap: defaultdict[str | None, list[int]] = defaultdict(list)
    for gap in sorted(gaps, key=lambda gap: gap.batch):
        names = "every stream" if gap.stream is None else f"stream {gap.stream}"
        log.warning("history damaged, %s restarts in the replay after batch=%d", names, gap.batch)
        last_gap[gap.stream].append(gap.batch)
    known: dict[str, int] = {}  # by stream: batch of its last reading
    for batch, _, entry in placed:
        record = record_of(entry)
        if not isinstance(record, Reading):
            continue
        if gaps:
            before = known.get(record.stream, -1)
            known[record.stream] = batch
            if any(before <= at < batch for at in (*last_gap[None], *last_gap[record.stream])):
                record = record._replace(restart=True)
        yield batch, record
